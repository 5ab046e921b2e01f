"""A body that is made of chunks which other answers hold, too.

Waitress copies what an application yields into a buffer for each client. A file
it only reads from: this one is a view of the chunks, and lets them go when it
has been sent or its client is gone.
"""

from __future__ import annotations

from bisect import bisect_right
from io import SEEK_CUR, SEEK_END, SEEK_SET
from itertools import accumulate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Chunks"]

# What one read returns at most: it is a copy.
_READ: Final = 1 << 20


class Chunks:
    """A file over bytes in memory, read-only, whose reads never cross from one chunk to the next."""

    def __init__(self, chunks: Sequence[bytes | memoryview], keep: object = None) -> None:
        """Read from `chunks`; `keep` lives as long as they are held."""
        self._chunks = [memoryview(chunk) for chunk in chunks]
        self._keep = keep
        self._ends = list(accumulate(map(len, self._chunks)))
        self._position = 0

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes, `size` of them at most; fewer at the end of a chunk."""
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
        """Go to a position."""
        base = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: len(self)}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def close(self) -> None:
        """Let the chunks go."""
        self._chunks, self._ends, self._keep = [], [], None
