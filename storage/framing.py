"""A stricter http.client response: the framing of an HTTP answer is bounded, whatever the server sends.

http.client, and so urllib3 and requests, reads a chunk of size -1 as everything that
follows. It also skips chunk extensions, trailers and interim answers without a limit.
A connection whose `response_class` is `StrictResponse` refuses all of these.
"""

from __future__ import annotations

import re
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import Any, Final

__all__ = ["FramingError", "StrictResponse"]

# A chunk's size of at most 15 hex digits, so it fits a signed 64-bit number, and chunk extensions, which are ignored.
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")
_LONGEST_LINE: Final = 4096
# Bytes of framing that are always allowed, and those allowed for each byte of the body: chunks may be very small.
_FREE: Final = 64 * 1024
_PER_BYTE: Final = 8
# Status lines per answer: interim answers (1xx) precede the final one.
_MOST_HEADS: Final = 16


class FramingError(HTTPException):
    """The end of the answer cannot be found, or not within the limits; the message says why."""


class StrictResponse(HTTPResponse):
    """http.client's response with strict reading of chunks, and a limit for interim answers.

    It overrides private methods of http.client's HTTPResponse.
    """

    # typeshed does not declare these attributes.
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
        """Return the bytes left of the current or next chunk; `None` at the end of the body."""
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
        # Some servers close the connection instead of sending the last empty line.
        while self._framing_line() not in (b"\r\n", b"\n", b""):
            pass

    def _framing_line(self) -> bytes:
        line: bytes = self.fp.readline(_LONGEST_LINE)
        self._framing += len(line)
        if len(line) == _LONGEST_LINE or self._framing > _FREE + _PER_BYTE * self._framed:
            raise FramingError("chunk extensions or trailers without end")
        return line
