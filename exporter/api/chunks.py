"""A response body made of chunks that several answers share.

Waitress copies what an application yields into a buffer for each client. From a
file, it only reads. This file is a view of the chunks. It drops them when the body
has been sent or the client is gone, so concurrent scrapers share one page.
"""

from __future__ import annotations

from bisect import bisect_right
from io import SEEK_CUR, SEEK_END, SEEK_SET
from itertools import accumulate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Chunks"]

# The most bytes that one read returns, because it returns a copy.
_READ: Final = 1 << 20


class Chunks:
    """A read-only file over bytes in memory; a read never crosses the end of a chunk. Not thread-safe."""

    def __init__(self, chunks: Sequence[bytes | memoryview], keep: object = None) -> None:
        """Read from `chunks`; keep a reference to `keep`, such as a `Hold`, until `close`."""
        self._chunks = [memoryview(chunk) for chunk in chunks]
        self._keep = keep
        self._ends = list(accumulate(map(len, self._chunks)))
        self._position = 0

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes, fewer at the end of a chunk; an empty result is the end of the file."""
        number = bisect_right(self._ends, self._position)
        if number == len(self._chunks):
            return b""
        chunk = self._chunks[number]
        start = self._position - self._ends[number] + len(chunk)
        size = _READ if size is None or size < 0 else min(size, _READ)
        data = bytes(chunk[start : start + size])
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        base = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: len(self)}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        """Drop the chunks and `keep`; Waitress calls it after the last byte, or when the client is gone."""
        self._chunks, self._ends, self._keep = [], [], None
