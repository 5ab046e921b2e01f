"""A partial file: its bytes, the pieces that workers fetch, and its digest.

A machine that crashes may lose what the page cache had not written yet. A file
that grows from its start to its end is too short then, and is seen to be; one
whose pieces come in any order has its full length from the beginning, so each
of its pieces is synced to the disk.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from threading import RLock
from typing import TYPE_CHECKING, Final

from storage.disk.journal import clipped, missing
from storage.errors import NoSpaceError
from storage.transfer.hashing import make_hashing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from storage.disk.listing import Digest, RemoteFile
    from storage.disk.staging import Staging
    from storage.transfer.hashing import Hashing

__all__ = ["PartialFile", "Piece", "enough_space", "resize"]

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class Piece:
    """A range of the file that one worker fetches.

    Attributes:
        start: Its first byte.
        at: How far it has got.
        end: The byte after its last.
        marked: How far the journal knows of it.
    """

    __slots__ = ("at", "end", "marked", "start")

    def __init__(self, start: int, end: int) -> None:
        """Begin at `start`."""
        self.start = self.at = self.marked = start
        self.end = end


class PartialFile:
    """A file of the tree, open for writing; several workers write its pieces.

    Attributes:
        file: What it is to become.
        pending: The pieces that no worker has taken.
        under_way: The pieces that workers fetch.
        resumed: Bytes that an earlier run left.
        arrived: Bytes that are there.
        refused: How often the source refused a request for it.
        abandoned: Whether a new partial file takes its place.
        whole: Whether the server sends no ranges, and one worker fetches the whole file.
        location: Where the source redirected to, with the headers for that address.
    """

    def __init__(self, file: RemoteFile, path: Path, staging: Staging, part_size: int) -> None:
        """Open the file and continue from what the journal has of it."""
        self.file = file
        self._path = path
        self._journal = staging.journal
        self._observer = staging.observer
        # Guards the pieces, the spans and the counts, and orders what the journal is told. The digest has its own
        # lock: it is computed while other workers write.
        self._lock = RLock()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        spans = clipped(self._journal.spans(file), os.fstat(self._file).st_size)
        self.pending = deque(missing(spans, file.size, part_size))
        self.under_way: list[Piece] = []
        self._is_split = len(self.pending) > 1 or any(start for start, _ in spans)
        with enough_space(path):
            resize(self._file, file.size if self._is_split else sum(end for _, end in spans))
        self._spans = dict(spans)
        self.resumed = self.arrived = sum(end - start for start, end in spans)
        self.refused = 0
        self.abandoned = False
        self.whole = False
        self.location: tuple[str, dict[str, str]] | None = None
        self._digest_known = False
        self._digest: Digest | None = None
        self._hashing: Hashing | None = None
        if self.resumed:
            self._observer.on_bytes(file.path, self.resumed)

    def take(self) -> Piece:
        """Return a piece that no worker has taken; an empty one when there is none: of an empty file, say."""
        with self._lock:
            piece = Piece(*self.pending.popleft()) if self.pending else Piece(0, 0)
            self.under_way.append(piece)
            return piece

    def release(self, piece: Piece) -> bool:
        """End the work on a piece; return whether it was the last one."""
        with self._lock:
            self.under_way.remove(piece)
            return not self.under_way and not self.pending

    def take_whole(self, piece: Piece) -> bool:
        """Make a piece the whole file, because the server sends no ranges; whether no other worker has done so."""
        with self._lock:
            if self.whole:
                return False
            self.whole = True
            self.pending.clear()
            piece.end = self.file.size
            self.begin_again(piece)
            return True

    def begin_again(self, piece: Piece) -> None:
        """Fetch the whole file from its first byte again, and forget what was hashed."""
        with self._lock:
            piece.start = piece.at = piece.marked = 0
            self._hashing = make_hashing(self._digest, self.file.size, self._read) if self._digest else None
            lost, self.arrived = self.arrived, 0
        self._observer.on_bytes(self.file.path, -lost)

    @property
    def digest(self) -> Digest | None:
        """The digest that is computed, once it is known which."""
        return self._digest

    def learn_digest(self, find: Callable[[], Digest | None]) -> None:
        """Ask once what the digest is, and compute it from now on."""
        with self._lock:
            if self._digest_known:
                return
            self._digest = find()
            self._hashing = make_hashing(self._digest, self.file.size, self._read) if self._digest else None
            self._digest_known = True

    def write(self, piece: Piece, data: memoryview) -> None:
        """Put the next bytes of a piece in their place.

        Raises:
            NoSpaceError: The volume is full.
        """
        at, count = piece.at, len(data)
        with enough_space(self._path):
            written = 0
            while written < count:
                written += os.pwrite(self._file, data[written:], at + written)
        if self._hashing:
            self._hashing.written(at, data)
        with self._lock:
            piece.at += count
            self.arrived += count
        self._observer.on_bytes(self.file.path, count)

    def _read(self, buffer: memoryview, at: int) -> int:
        return 0 if self.abandoned else os.preadv(self._file, [buffer], at)

    def sync(self) -> None:
        """Flush to disk what a crash of the machine could remove unnoticed."""
        if self._is_split and not self.abandoned:
            with enough_space(self._path):
                os.fdatasync(self._file)

    def mark(self) -> None:
        """Record how far all pieces have got: what arrives after that is fetched again when this process is killed."""
        with self._lock:
            for piece in self.under_way:
                at = piece.at
                if at != piece.marked and not self.abandoned:
                    piece.marked = at
                    self._journal.add(self.file, piece.start, at)
                    self._spans[piece.start] = max(at, self._spans.get(piece.start, 0))

    def catch_up(self) -> None:
        """Hash what has become contiguous."""
        if self._hashing:
            self._hashing.catch_up(self._contiguous())

    def _contiguous(self) -> int:
        end = 0
        with self._lock:
            for start, stop in sorted(self._spans.items()):
                if start > end:
                    break
                end = max(end, stop)
        return end

    def hexdigest(self) -> str:
        """Return the digest of the file, all of which has arrived."""
        assert self._hashing is not None  # noqa: S101 - asked for only when there is a digest
        return self._hashing.hexdigest()

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def discard(self) -> None:
        """Remove the file and all that is recorded of it; workers that still write do no harm."""
        with self._lock:  # nothing is recorded after it was forgotten
            self.abandoned = True
        self._journal.forget(self.file)
        self._path.unlink(missing_ok=True)


def resize(file: int, size: int) -> None:
    """Give an open file a length that it does not have yet."""
    # ext4 writes a file out when it is closed after it was truncated to nothing, even if it was empty before.
    if os.fstat(file).st_size != size:
        os.ftruncate(file, size)


class enough_space:  # noqa: N801 - used as a function
    """Says in what is raised within that there is no room left, with the number."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError) and error.errno in _FULL:
            status = os.statvfs(self._path.parent)
            free = status.f_bavail * status.f_frsize
            raise NoSpaceError(f"no room left while writing {self._path}: {free} bytes free") from error
