"""Digests of files, with one interface for all algorithms that sources use.

md5          an S3 ETag of an object that was uploaded in one piece
sha256       the Hub's LFS files, S3's x-amz-checksum-sha256
sha1         S3's x-amz-checksum-sha1
crc32        S3's x-amz-checksum-crc32; likewise crc32c and crc64nvme
...-parts    one of these over the parts' digests: an ETag or a composite checksum of a multipart upload
git-sha1     the Hub's small files: a git blob
"""

from __future__ import annotations

import hashlib
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from storage.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from storage.disk.listing import Digest

__all__ = ["Hasher", "Parts", "hash_file", "make_hasher", "matches", "mismatch"]

_CHUNK: Final = 1 << 20
# The CRC of a whole file is combined from those of parts of this size. Fetched pieces start at a multiple of it.
_STRIDE: Final = 8 << 20
# anycrc's name of each CRC, and its number of bits.
_CRCS: Final = {"crc32": ("CRC32", 32), "crc32c": ("CRC32C", 32), "crc64nvme": ("CRC64-NVME", 64)}


class Hasher(Protocol):
    """Takes bytes in order. hashlib's objects have this interface."""

    def update(self, data: memoryview | bytes, /) -> None:
        """Add the next bytes."""

    def hexdigest(self) -> str:
        """Return the digest of all bytes so far, in lower-case hex."""


class _Whole(Hasher, Protocol):
    def digest(self) -> bytes:
        """Return the digest of all bytes so far."""


class _Crc:
    def __init__(self, name: str) -> None:
        self._model, self._length = _crc_model(name)
        self._value = 0

    def update(self, data: memoryview | bytes, /) -> None:
        self._value = self._model.calc(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._length)

    def hexdigest(self) -> str:
        return self.digest().hex()


def _crc_model(name: str) -> tuple[Any, int]:
    """Return the model that computes a CRC, and the CRC's length in bytes."""
    # Imported here: only a worker computes CRCs, not the runtime, which imports this module too.
    import anycrc

    model, bits = _CRCS[name]
    return anycrc.Model(model), bits // 8


class Parts:
    """A digest computed from the digests of equal parts. The parts may arrive in any order.

    Several workers may add bytes concurrently, if they are in different parts.
    """

    def __init__(
        self, make: Callable[[], _Whole], join: Callable[[Sequence[bytes]], bytes], part_size: int, size: int
    ) -> None:
        """Prepare; no bytes are added yet.

        Args:
            make: Returns a new hasher for a part.
            join: Computes the file's digest from those of its parts.
            part_size: Bytes of each part except the last.
            size: Bytes of the file.
        """
        self._make = make
        self._join = join
        self._part_size = part_size
        self._size = size
        self._at = 0
        self._digests: dict[int, bytes] = {}
        # Unfinished parts: the hasher of each, and the next byte that it expects.
        self._open: dict[int, tuple[_Whole, int]] = {}

    def update(self, data: memoryview | bytes, /) -> None:
        """Add the next bytes, in order."""
        self.update_at(self._at, memoryview(data))
        self._at += len(data)

    def update_at(self, at: int, data: memoryview) -> None:
        """Add bytes at `at`. Bytes that do not continue their part are ignored; `missing` then includes them."""
        while data and at < self._size:
            number = at // self._part_size
            end = min((number + 1) * self._part_size, self._size)
            self._feed(number, at, data[: end - at], end)
            at, data = end, data[end - at :]

    def _feed(self, number: int, at: int, piece: memoryview, end: int) -> None:
        if number in self._digests:
            return
        hasher, reached = self._open.get(number) or (self._make(), number * self._part_size)
        if reached != at:
            return
        hasher.update(piece)
        if at + len(piece) == end:
            self._digests[number] = hasher.digest()
            self._open.pop(number, None)
        else:
            self._open[number] = (hasher, at + len(piece))

    def missing(self) -> list[tuple[int, int]]:
        """Return the ranges that must still be added."""
        starts = range(0, self._size, self._part_size)
        return [
            (self._open[number][1] if number in self._open else start, min(start + self._part_size, self._size))
            for number, start in enumerate(starts)
            if number not in self._digests
        ]

    def hexdigest(self) -> str:
        """Return the digest; all parts must be complete."""
        return self._join([self._digests[number] for number in sorted(self._digests)]).hex()


def _composite(make: Callable[[], _Whole], part_size: int, size: int) -> Parts:
    """Return a digest over the parts' digests, as S3 computes it for a multipart upload."""

    def join(digests: Sequence[bytes]) -> bytes:
        whole = make()
        for digest in digests:
            whole.update(digest)
        return whole.digest()

    return Parts(make, join, part_size, size)


def _combined(name: str, size: int) -> Parts:
    """Return the CRC of a whole file, combined from those of its parts, so that no part waits for another."""
    model, length = _crc_model(name)

    def join(digests: Sequence[bytes]) -> bytes:
        value = 0
        for number, digest in enumerate(digests):
            value = model.combine(value, int.from_bytes(digest), min(_STRIDE, size - number * _STRIDE))
        return int(value).to_bytes(length)

    return Parts(partial(_Crc, name), join, _STRIDE, size)


def _git_sha1(size: int) -> Hasher:
    hasher = hashlib.sha1(usedforsecurity=False)
    hasher.update(b"blob %d\0" % size)
    return hasher


_PLAIN: Final[Mapping[str, Callable[[], _Whole]]] = {
    "md5": lambda: hashlib.md5(usedforsecurity=False),
    "sha256": hashlib.sha256,
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    **{name: partial(_Crc, name) for name in _CRCS},
}


def make_hasher(digest: Digest, size: int) -> Hasher:
    """Return a new hasher for a file of `size` bytes."""
    if digest.algorithm == "git-sha1":
        return _git_sha1(size)
    if digest.algorithm in _CRCS:
        return _combined(digest.algorithm, size)
    make = _PLAIN[digest.algorithm.removesuffix("-parts")]
    return _composite(make, digest.part_size, size) if digest.algorithm.endswith("-parts") else make()


def hash_file(path: Path, digest: Digest, on_bytes: Callable[[int], None] = lambda _: None) -> str:
    """Return the digest of a file, computed with the algorithm of `digest`. A link raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - O_NOFOLLOW needs a descriptor
        hasher = make_hasher(digest, os.fstat(descriptor).st_size)
        buffer = memoryview(bytearray(_CHUNK))
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
            on_bytes(count)
    return hasher.hexdigest()


def matches(path: Path, digest: Digest, on_bytes: Callable[[int], None] = lambda _: None) -> bool:
    """Whether a file has this digest."""
    return hash_file(path, digest, on_bytes) == digest.value


def mismatch(path: str, digest: Digest, actual: str) -> CorruptError:
    """Return the error for a file with a wrong digest."""
    return CorruptError(
        f"{path}: {digest.algorithm} is {actual}, the source says {digest.value}; the file was discarded"
    )
