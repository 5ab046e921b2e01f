"""One file while it grows: its bytes, which of them are there, and its digest.

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

from storage.errors import NoSpaceError
from storage.hashing import make_hashing
from storage.journal import clipped, missing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from storage.hashing import Hashing
    from storage.journal import Journal
    from storage.plan import Digest, RemoteFile

__all__ = ["Cursor", "Growth", "enough_space", "resize"]

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class Cursor:
    """A piece under way.

    Attributes:
        start: Where it begins.
        at: How far it has got.
        marked: How far the journal knows of it.
    """

    __slots__ = ("at", "marked", "start")

    def __init__(self, start: int) -> None:
        """Begin at a byte of the file."""
        self.start = self.at = self.marked = start


class Growth:
    """A file of the tree, open for writing; its methods may be called by several workers.

    Attributes:
        file: What it is to become.
        pending: The pieces that nobody fetches yet.
        active: How many workers are at it.
        resumed: Bytes that were there from an earlier run.
        arrived: Bytes that are there.
        refused: How often the source said no.
        abandoned: Whether another takes its place.
        whole: Whether the server sends no ranges, and one worker takes it all.
        location: Where the source redirected to, with the headers for there.
    """

    def __init__(self, file: RemoteFile, path: Path, journal: Journal, part_size: int) -> None:
        """Open the file and go on from what the journal has of it."""
        self.file = file
        self._path = path
        self._journal = journal
        self._lock = RLock()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        spans = clipped(journal.spans(file), os.fstat(self._file).st_size)
        self.pending = deque(missing(spans, file.size, part_size))
        self._is_split = len(self.pending) > 1 or any(start for start, _ in spans)
        with enough_space(path):
            resize(self._file, file.size if self._is_split else sum(end for _, end in spans))
        self._spans = dict(spans)
        self.resumed = self.arrived = sum(end - start for start, end in spans)
        self.active = 0
        self.refused = 0
        self.abandoned = False
        self.whole = False
        self.location: tuple[str, dict[str, str]] | None = None
        self._digest_known = False
        self._digest: Digest | None = None
        self._hashing: Hashing | None = None

    @property
    def digest(self) -> Digest | None:
        """The digest that is taken, once it is known."""
        return self._digest

    def learn_digest(self, find: Callable[[], Digest | None]) -> None:
        """Ask once what the digest is, and take it from now on."""
        with self._lock:
            if self._digest_known:
                return
            self._digest = find()
            self._hashing = make_hashing(self._digest, self.file.size, self._read) if self._digest else None
            self._digest_known = True

    def write(self, data: memoryview, at: int) -> None:
        """Put bytes in their place.

        Raises:
            NoSpaceError: The volume is full.
        """
        with enough_space(self._path):
            written = 0
            while written < len(data):
                written += os.pwrite(self._file, data[written:], at + written)
        if self._hashing:
            self._hashing.written(at, data)

    def _read(self, buffer: memoryview, at: int) -> int:
        return 0 if self.abandoned else os.preadv(self._file, [buffer], at)

    def sync(self) -> None:
        """Have on disk what a crash could take away unseen."""
        if self._is_split and not self.abandoned:
            with enough_space(self._path):
                os.fdatasync(self._file)

    def mark(self, cursor: Cursor) -> None:
        """Record how far a piece has got."""
        with self._lock:
            at = cursor.at
            if at == cursor.marked or self.abandoned:
                return
            cursor.marked = at
            self._journal.add(self.file, cursor.start, at)
            self._spans[cursor.start] = max(at, self._spans.get(cursor.start, 0))

    def catch_up(self) -> None:
        """Hash what has become contiguous."""
        if self._hashing:
            self._hashing.catch_up(self._contiguous())

    def hexdigest(self) -> str:
        """Return the digest of the whole file; to be called when it is whole."""
        assert self._hashing is not None  # noqa: S101 - asked for only when there is a digest
        return self._hashing.hexdigest()

    def begin_again(self) -> None:
        """Forget what was hashed: all bytes are written anew."""
        with self._lock:
            self._hashing = make_hashing(self._digest, self.file.size, self._read) if self._digest else None

    def _contiguous(self) -> int:
        end = 0
        with self._lock:
            for start, stop in sorted(self._spans.items()):
                if start > end:
                    break
                end = max(end, stop)
        return end

    def take(self) -> tuple[int, int]:
        """Return a piece that nobody fetches yet; an empty one when there is none."""
        with self._lock:
            return self.pending.popleft() if self.pending else (0, 0)

    def take_whole(self) -> bool:
        """Claim the whole file for one worker, as the server sends no ranges; whether the claim holds."""
        with self._lock:
            if self.whole:
                return False
            self.whole = True
            self.pending.clear()
            return True

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
