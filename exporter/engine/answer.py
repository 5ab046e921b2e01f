"""The head of an HTTP answer, read without the email package (docs/adr/0002).

http.client parses heads with the email package. For the usual dozen lines, that
takes as long as checking a small metrics page, and a scrape needs four of them.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from http.client import HTTPException, LineTooLong, UnknownProtocol
from typing import IO, TYPE_CHECKING, Any, Final

from storage.framing import FramingError, StrictResponse

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Answer", "Headers"]

# http.client's limits: 100 lines with the blank one, and 65,536 bytes, which it allows for each line.
# Here the bytes are the limit for all lines together.
_MAX_LINES: Final = 100
_MAX_BYTES: Final = 65536
_END: Final = frozenset({b"\r\n", b"\n", b""})
_INTERIM: Final = range(HTTPStatus.CONTINUE, HTTPStatus.OK)
_LENGTH: Final = re.compile(r"[0-9]{1,15}")
_NO_BODY: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


class Headers:
    """Header fields, with the few methods that http.client and its callers use; names are case-insensitive."""

    __slots__ = ("_values",)

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in fields:
            self._values.setdefault(name.lower(), []).append(value)

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the first value of a field, or `default`."""
        return self._values.get(name.lower(), (default,))[0]

    def get_all(self, name: str, default: list[str] | None = None) -> list[str] | None:
        """Return all values of a field in their order, or `default`."""
        return self._values.get(name.lower(), default)


class Answer(StrictResponse):
    """http.client's response with a faster reader for the head, and strict framing (`storage.framing`)."""

    # The type stubs of http.client lack these attributes or declare them differently.
    headers: Any
    msg: Any
    length: Any
    will_close: Any
    _method: Any
    _check_close: Any

    def begin(self) -> None:
        """Read the status line and the header fields; set the attributes that http.client's own `begin` sets.

        Raises:
            HTTPException: The answer is not HTTP, its head is too long, or its framing is not valid.
        """
        if self.headers:
            return
        version, status, reason = self._read_head()
        # `StrictResponse` bounds the number of interim answers.
        while status in _INTERIM:
            version, status, reason = self._read_head()
        if not version.startswith("HTTP/1."):
            raise UnknownProtocol(version)
        self.version = 10 if version == "HTTP/1.0" else 11
        self.code = self.status = status
        self.reason = reason.strip()
        self.chunked = self._is_chunked()
        self.chunk_left = None
        self.will_close = self._check_close()
        self.length = None if self.chunked else self._content_length()
        if not (self.will_close or self.chunked) and self.length is None:
            # Without a length, only the end of the connection marks the end of the body.
            self.will_close = True

    def _read_head(self) -> tuple[str, int, str]:
        status: tuple[str, int, str] = self._read_status()
        self.headers = self.msg = Headers(_fields(self.fp))
        return status

    def _is_chunked(self) -> bool:
        codings = self.headers.get_all("transfer-encoding", [])
        if codings and [coding.lower() for coding in codings] != ["chunked"]:
            raise FramingError("a transfer encoding other than chunked")
        return bool(codings)

    def _content_length(self) -> int | None:
        if self.status in _NO_BODY or self.status < HTTPStatus.OK or self._method == "HEAD":
            return 0
        # RFC 9112, 6.3: equal repeated lengths are one length. A proxy may have joined them with commas.
        lengths = {text.strip() for field in self.headers.get_all("content-length", []) for text in field.split(",")}
        if not lengths:
            return None
        length = lengths.pop()
        if lengths or not _LENGTH.fullmatch(length):
            raise FramingError("a length that is no number, or two of them")
        return int(length)


def _fields(source: IO[bytes]) -> list[tuple[str, str]]:
    """Read the fields up to the blank line; a line that begins with a blank continues the previous field."""
    fields: list[tuple[str, str]] = []
    left = _MAX_BYTES
    for _ in range(_MAX_LINES):
        line = source.readline(left + 1)
        left -= len(line)
        if left < 0:
            kind = "header lines"
            raise LineTooLong(kind)
        if line in _END:
            return fields
        text = line.decode("iso-8859-1")
        if fields and text[0] in " \t":
            name, begun = fields.pop()
            fields.append((name, f"{begun} {text.strip()}".strip()))
        else:
            name, _, value = text.partition(":")
            fields.append((name, value.strip()))
    message = f"got {_MAX_LINES} headers or more"
    raise HTTPException(message)
