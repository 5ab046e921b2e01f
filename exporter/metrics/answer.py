"""The head of an HTTP answer, read without the email package.

http.client hands it to that, which takes as long over the dozen lines as
checking a small page does; a scrape wants to know four of them.
"""

from __future__ import annotations

from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, LineTooLong, UnknownProtocol
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Answer", "Headers"]

# As many with the blank one, and as long, as http.client takes.
_MAX_LINES: Final = 100
_MAX_LINE: Final = 65536
_END: Final = frozenset({b"\r\n", b"\n", b""})
_NO_BODY: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


class Headers:
    """Header fields, as far as http.client and its callers ask for them; names in any case."""

    __slots__ = ("_values",)

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        """Hold the fields in their order."""
        self._values: dict[str, list[str]] = {}
        for name, value in fields:
            self._values.setdefault(name.lower(), []).append(value)

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the first value of a field."""
        return self._values.get(name.lower(), (default,))[0]

    def get_all(self, name: str, default: list[str] | None = None) -> list[str] | None:
        """Return all values of a field."""
        return self._values.get(name.lower(), default)


class Answer(HTTPResponse):
    """http.client's response, but for how its head is read."""

    # The types of http.client leave these out, or have other ones.
    headers: Any
    msg: Any
    fp: Any
    length: Any
    will_close: Any
    _method: Any
    _check_close: Any
    _read_status: Any

    def begin(self) -> None:
        """Read the status line and the header fields.

        Raises:
            HTTPException: It is no HTTP, or there is no end to it.
        """
        if self.headers:
            return
        version, status, reason = self._read_head()
        while status == HTTPStatus.CONTINUE:
            version, status, reason = self._read_head()
        if not version.startswith("HTTP/1."):
            raise UnknownProtocol(version)
        self.version = 10 if version == "HTTP/1.0" else 11
        self.code = self.status = status
        self.reason = reason.strip()
        self.chunked = (self.headers.get("transfer-encoding") or "").lower() == "chunked"
        self.chunk_left = None
        self.will_close = self._check_close()
        self.length = None if self.chunked else self._content_length()
        if not (self.will_close or self.chunked) and self.length is None:
            # Where the body ends, only the end of the connection tells.
            self.will_close = True

    def _read_head(self) -> tuple[str, int, str]:
        status: tuple[str, int, str] = self._read_status()
        self.headers = self.msg = Headers(_fields(self.fp))
        return status

    def _content_length(self) -> int | None:
        if self.status in _NO_BODY or self.status < HTTPStatus.OK or self._method == "HEAD":
            return 0
        try:
            length = int(self.headers.get("content-length") or "")
        except ValueError:
            return None
        return length if length >= 0 else None


def _fields(source: IO[bytes]) -> list[tuple[str, str]]:
    """Read the fields up to the blank line; a line that begins with a blank goes on with the one before."""
    fields: list[tuple[str, str]] = []
    for _ in range(_MAX_LINES):
        line = source.readline(_MAX_LINE + 1)
        if len(line) > _MAX_LINE:
            kind = "header line"
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
