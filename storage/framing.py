"""HTTP answers whose framing is bounded: http.client alone trusts a server too far.

http.client, and with it urllib3 and requests, takes a chunk of size -1 for all
that is to come, and skips chunk extensions, trailers and interim answers for as
long as they go on. A connection whose `response_class` is this one refuses them.
"""

from __future__ import annotations

import re
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import Any, Final

__all__ = ["FramingError", "StrictResponse"]

# A size that fits a signed 64-bit number, and extensions, which have no meaning here.
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")
_LONGEST_LINE: Final = 4096
# Bytes of framing that are always allowed, and for each byte of the body: chunks may be small.
_FREE: Final = 64 * 1024
_PER_BYTE: Final = 8
_MOST_HEADS: Final = 16


class FramingError(HTTPException):
    """The answer breaks the rules by which its end is found; the message says how."""


class StrictResponse(HTTPResponse):
    """http.client's response, with a chunked body read strictly and interim answers counted."""

    # The types of http.client leave these out.
    fp: Any
    chunk_left: int | None
    _close_conn: Any
    _safe_read: Any

    _heads = 0
    _framing = 0
    _framed = 0

    def _read_status(self) -> tuple[str, int, str]:
        self._heads += 1
        if self._heads > _MOST_HEADS:
            raise FramingError("interim answers without end")
        status: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        return status

    def _get_chunk_left(self) -> int | None:
        """Return the bytes left of the chunk under way, or of the next one; `None` at the end of the body."""
        if self.chunk_left:
            return self.chunk_left
        if self.chunk_left == 0 and self._safe_read(2) != b"\r\n":
            raise FramingError("a chunk that is longer than its size")
        self.chunk_left = self._next_chunk() or None
        if self.chunk_left is None:
            self._skip_trailers()
            self._close_conn()
        return self.chunk_left

    def _next_chunk(self) -> int:
        line = self._framing_line()
        if not line.endswith(b"\n"):
            raise IncompleteRead(line)
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise FramingError("a chunk without a size")
        size = int(match[1], 16)
        self._framed += size
        return size

    def _skip_trailers(self) -> None:
        # Some servers close the connection in place of the last empty line.
        while self._framing_line() not in (b"\r\n", b"\n", b""):
            pass

    def _framing_line(self) -> bytes:
        line: bytes = self.fp.readline(_LONGEST_LINE)
        self._framing += len(line)
        if len(line) == _LONGEST_LINE or self._framing > _FREE + _PER_BYTE * self._framed:
            raise FramingError("chunk extensions or trailers without end")
        return line
