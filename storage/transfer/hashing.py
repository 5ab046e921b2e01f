"""Computes the digest of a file while its pieces arrive.

A digest over the whole file needs the bytes in order. Bytes that arrive ahead of their turn
are read back, usually from the page cache. A digest over parts takes each part as it comes,
and reads back only parts with gaps.
"""

from __future__ import annotations

from threading import RLock
from typing import TYPE_CHECKING, Final, Protocol

from storage.disk.digests import Parts, make_hasher

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.disk.digests import Hasher
    from storage.disk.listing import Digest

    # Fills a buffer with the file's bytes from an offset; returns the number of bytes.
    Read = Callable[[memoryview, int], int]

__all__ = ["Hashing", "make_hashing"]

_READ_BACK: Final = 256 << 10


class Hashing(Protocol):
    """Hashes what several workers write to one file concurrently."""

    def written(self, at: int, data: memoryview) -> None:
        """Add bytes that were just written at `at`."""

    def catch_up(self, end: int) -> None:
        """Hash up to `end`, where all bytes have arrived. Returns immediately if another worker does it already."""

    def hexdigest(self) -> str:
        """Return the digest of the whole file, all of which has arrived."""


def make_hashing(digest: Digest, size: int, read: Read) -> Hashing:
    """Return a new hashing of a file of `size` bytes, whose bytes `read` can read back."""
    hasher = make_hasher(digest, size)
    return _ByParts(hasher, read) if isinstance(hasher, Parts) else _InOrder(hasher, size, read)


class _ByParts:
    def __init__(self, parts: Parts, read: Read) -> None:
        self._parts = parts
        self._read = read

    def written(self, at: int, data: memoryview) -> None:
        self._parts.update_at(at, data)

    def catch_up(self, end: int) -> None:
        pass

    def hexdigest(self) -> str:
        for start, end in self._parts.missing():
            _read_back(self._read, start, end, self._parts.update_at)
        return self._parts.hexdigest()


class _InOrder:
    def __init__(self, hasher: Hasher, size: int, read: Read) -> None:
        self._hasher = hasher
        self._size = size
        self._read = read
        self._at = 0
        self._lock = RLock()

    def written(self, at: int, data: memoryview) -> None:
        # Never waits: bytes that cannot be hashed now are read back later.
        if at == self._at and self._lock.acquire(blocking=False):
            try:
                self._take(at, data)
            finally:
                self._lock.release()

    def _take(self, at: int, data: memoryview) -> None:
        if at == self._at:
            self._hasher.update(data)
            self._at += len(data)

    def catch_up(self, end: int) -> None:
        if self._lock.acquire(blocking=False):
            try:
                _read_back(self._read, self._at, end, self._take)
            finally:
                self._lock.release()

    def hexdigest(self) -> str:
        with self._lock:
            _read_back(self._read, self._at, self._size, self._take)
            return self._hasher.hexdigest()


def _read_back(read: Read, at: int, end: int, take: Callable[[int, memoryview], None]) -> None:
    if at >= end:
        return
    buffer = memoryview(bytearray(_READ_BACK))
    while at < end and (count := read(buffer[: end - at], at)):
        take(at, buffer[:count])
        at += count
