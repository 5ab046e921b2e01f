"""A partial file: its bytes on disk, the pieces that workers fetch, and its digest.

After a crash of the machine, bytes that the page cache had not written are lost. A file that
grows from start to end is then too short, and the loss is noticed. A file whose pieces arrive
in any order has its full length from the beginning, so each of its pieces is synced to disk.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from threading import Lock, RLock
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
    """A range of the file. One worker fetches it.

    Attributes:
        start: Offset of its first byte.
        at: Offset of the next byte to fetch.
        end: Offset after its last byte.
        marked: Offset up to which the journal has recorded it.
    """

    __slots__ = ("at", "end", "marked", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start = self.at = self.marked = start
        self.end = end


class PartialFile:
    """A file of the tree, open for writing. Several workers write its pieces concurrently.

    Attributes:
        file: The file to fetch.
        pending: Ranges that no worker has taken.
        under_way: Pieces that workers fetch.
        resumed: Bytes that an earlier run left.
        arrived: Bytes that are on disk.
        refused: The number of refused requests for this file.
        abandoned: Whether a new partial file replaces this one. Workers that notice it stop.
        whole: Whether the server supports no ranges, so that one worker fetches the whole file.
        location: The URL that the source redirected to, with the headers for that URL.
    """

    def __init__(self, file: RemoteFile, path: Path, staging: Staging, part_size: int) -> None:
        """Open the file, and resume from what the journal has recorded of it."""
        self.file = file
        self._path = path
        self._journal = staging.journal
        self._observer = staging.observer
        # Guards pieces, spans and counts, and the order of the journal's records. The digest has its own lock, because
        # it is computed while other workers write.
        self._lock = RLock()
        self._learning = Lock()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        spans = clipped(self._journal.spans(file), os.fstat(self._file).st_size)
        self.pending = deque(missing(spans, file.size, part_size))
        self.under_way: list[Piece] = []
        # A file in one piece grows from its start. A split file gets its full length now, and is synced.
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
        """Take a pending piece; an empty piece if there is none, for example of an empty file."""
        with self._lock:
            piece = Piece(*self.pending.popleft()) if self.pending else Piece(0, 0)
            self.under_way.append(piece)
            return piece

    def release(self, piece: Piece) -> bool:
        """End the work on a piece; return whether it was the last one of the file."""
        with self._lock:
            self.under_way.remove(piece)
            return not self.under_way and not self.pending

    def take_whole(self, piece: Piece) -> bool:
        """Extend a piece to the whole file, because the server supports no ranges.

        Return False if another worker has done so already: this worker then stops.
        """
        with self._lock:
            if self.whole:
                return False
            self.whole = True
            self.pending.clear()
            piece.end = self.file.size
        self.begin_again(piece)
        return True

    def begin_again(self, piece: Piece) -> None:
        """Restart a piece at the first byte of the file, and restart the digest."""
        with self._lock:
            piece.start = piece.at = piece.marked = 0
            self._hashing = make_hashing(self._digest, self.file.size, self._read) if self._digest else None
            lost, self.arrived = self.arrived, 0
        self._observer.on_bytes(self.file.path, -lost)

    @property
    def digest(self) -> Digest | None:
        """The expected digest; `None` until `learn_digest`, or if the source gives none."""
        return self._digest

    def learn_digest(self, find: Callable[[], Digest | None]) -> None:
        """Call `find` once to learn the expected digest, and hash from now on.

        `find` may send a request; other workers of this file wait meanwhile, but not those that record what arrived.
        """
        with self._learning:
            if self._digest_known:
                return
            digest = find()
            with self._lock:
                self._digest = digest
                self._hashing = make_hashing(digest, self.file.size, self._read) if digest else None
                self._digest_known = True

    def write(self, piece: Piece, data: memoryview) -> None:
        """Write the next bytes of a piece.

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
        """Sync a split file to disk; see the module docstring."""
        if self._is_split and not self.abandoned:
            with enough_space(self._path):
                os.fdatasync(self._file)

    def mark(self) -> None:
        """Record the progress of all pieces in the journal. After a kill, later bytes are fetched again."""
        with self._lock:
            for piece in self.under_way:
                # Read once: its worker writes on meanwhile. Its bytes up to here are in the file already.
                at = piece.at
                if at != piece.marked and not self.abandoned:
                    piece.marked = at
                    self._journal.add(self.file, piece.start, at)
                    self._spans[piece.start] = max(at, self._spans.get(piece.start, 0))

    def catch_up(self) -> None:
        """Hash the bytes that are now contiguous from the start of the file."""
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
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def discard(self) -> None:
        """Remove the file and its records. Workers that still write do no harm: the file has no name any more."""
        with self._lock:  # so that `mark` records nothing after `forget`
            self.abandoned = True
        self._journal.forget(self.file)
        self._path.unlink(missing_ok=True)


def resize(file: int, size: int) -> None:
    """Set the length of an open file, if it differs."""
    # ext4 flushes a file on close after a truncation to zero, even if the file was empty before.
    if os.fstat(file).st_size != size:
        os.ftruncate(file, size)


class enough_space:  # noqa: N801 - used as a function
    """Converts a "disk full" error raised within to NoSpaceError, with the number of free bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError) and error.errno in _FULL:
            status = os.statvfs(self._path.parent)
            free = status.f_bavail * status.f_frsize
            raise NoSpaceError(f"no room left while writing {self._path}: {free} bytes free") from error
