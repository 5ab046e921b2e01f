"""Mounted volumes: copies a directory with the fastest call that its file system supports.

    FICLONE            the file system shares the blocks (XFS, Btrfs, some NFS)
    copy_file_range    the kernel copies; a file server may do it itself
    sendfile           the kernel copies between file systems
    read and write     always works

Files are copied concurrently, but a file is never split. Splitting is slower, and a file that grows from its start is
too short if a crash of the machine loses its end, so the loss is noticed.

Links are followed if they stay inside the volume's directory. Links that lead out of it, in a circle, or nowhere are
refused.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections import deque
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from threading import Event
from typing import TYPE_CHECKING, Final

from storage.disk.journal import clipped, missing
from storage.disk.listing import Digest, Listing, RemoteFile, gather
from storage.disk.names import make_parents
from storage.errors import ChangedError, CorruptError, NotFoundError, StorageError, TargetError, UnsafeNameError
from storage.memory import DEFAULT_MEMORY
from storage.request.reserved import is_own
from storage.request.target import check_readable
from storage.transfer.partial_file import enough_space, resize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from storage.disk.staging import Staging
    from storage.request.source import PvcSource

__all__ = ["VolumeCopier"]

FICLONE: Final = 0x40049409
# Bytes per call. Progress is reported after each call.
STEP_BYTES: Final = 64 << 20
# Errors that mean "not supported by these file systems": the next way is tried.
_UNSUPPORTED: Final = frozenset((
    errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY, errno.EPERM, errno.EBADF, errno.ETXTBSY,
))  # fmt: skip
# Errors of a source that is changed during the copy.
_CHANGED: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP))
_MAX_COPIERS: Final = 8


class VolumeCopier:
    """Copies a directory or file of a mounted volume."""

    lists_digests = True

    def __init__(self, source: PvcSource, target: Path, *, memory: int = DEFAULT_MEMORY) -> None:
        """Prepare; nothing is read yet.

        Args:
            source: The directory or file.
            target: The target directory.
            memory: Memory limit of this process in bytes.

        Raises:
            DeniedError: The source is a system directory.
            TargetError: Source and target are the same, or one is inside the other.
        """
        self._source = source
        self._memory = memory
        self._root = check_readable(source.path)
        if self._root.is_relative_to(target) or target.is_relative_to(self._root):
            raise TargetError(f"{source.uri} and {target} lie in one another")
        self._stopping = Event()

    def listing(self) -> Listing:
        """List all files by walking the directory.

        Raises:
            NotFoundError: The directory does not exist.
            UnsafeNameError: It has something that cannot be copied safely.
            ChangedError: It changed during the walk.
        """
        if not self._root.exists():
            raise NotFoundError(f"{self._source.path} does not exist: is the volume mounted there?")
        with self._reading():
            if self._root.is_file():
                return Listing(self._source.uri, "", (_file(self._root.name, self._root),))
            return gather(self._source.uri, "", self._walk(self._root, "", (self._root,)), self._memory)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn errors of a changing source into ChangedError: the caller cannot tell whose error an OSError is."""
        try:
            yield
        except OSError as error:
            if error.errno not in _CHANGED:
                raise
            raise ChangedError(f"{error.filename or self._source.path} changed: {error.strerror}") from error

    def _walk(self, directory: Path, prefix: str, above: Sequence[Path]) -> Iterator[RemoteFile]:
        for entry in os.scandir(directory):
            path, name = Path(entry.path), prefix + entry.name
            if is_own(entry.name):
                continue  # a download's records, or an unfinished copy
            if entry.is_symlink():
                path = self._follow(path, name)
            mode = path.stat().st_mode
            if S_ISDIR(mode):
                if path in above:
                    raise UnsafeNameError(f"{self._source.path}/{name} is a link that leads round in a circle")
                yield from self._walk(path, f"{name}/", (*above, path))
            elif S_ISREG(mode):
                yield _file(name, path)
            else:
                raise UnsafeNameError(f"{self._source.path}/{name} is neither file nor directory")

    def _follow(self, link: Path, name: str) -> Path:
        try:
            path = link.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise UnsafeNameError(f"{self._source.path}/{name} is a link that leads nowhere") from error
        if not path.is_relative_to(self._root):
            raise UnsafeNameError(f"{self._source.path}/{name} is a link that leads out of {self._source.path}")
        return path

    def fetch(self, files: Sequence[RemoteFile], staging: Staging, *, workers: int) -> list[RemoteFile]:
        """Copy files into the tree, several concurrently, the largest first.

        Raises:
            StorageError: A file cannot be copied. What was copied stays for the next run.
        """
        waiting = deque(sorted(files, key=lambda file: -file.size))
        copiers = min(workers, _MAX_COPIERS, len(files) or 1)
        with ThreadPoolExecutor(copiers, "copy") as pool:
            copies = [pool.submit(self._copy_each, waiting, staging) for _ in range(copiers)]
            try:
                done, _ = wait(copies, return_when=FIRST_EXCEPTION)
            finally:
                self._stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
        for copy in done:
            copy.result()
        return list(files)

    def _copy_each(self, waiting: deque[RemoteFile], staging: Staging) -> None:
        while not self._stopping.is_set():
            try:
                file = waiting.popleft()
            except IndexError:  # none is left
                return
            self._copy(file, staging)

    def _copy(self, file: RemoteFile, staging: Staging) -> None:
        path = make_parents(staging.tree, file.path)
        with self._reading():
            source = os.open(self._inside(file), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                # Checked before and after: a file that changes in between would be a mixture of two versions.
                self._check(file, source)
                with enough_space(path):
                    self._bring(file, source, target, staging)
                self._check(file, source)
                status = os.fstat(source)
                os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(target)
        finally:
            os.close(source)
        staging.journal.verified(file)
        staging.observer.on_verified(file)

    def _inside(self, file: RemoteFile) -> Path:
        """Resolve a file's path again: a link may have been changed since the listing.

        A file from a manifest has only its name, relative to the source, or to the directory of a single-file source.
        """
        folder = self._root.parent if self._root.is_file() else self._root
        path = Path(os.path.realpath(folder / file.origin))  # unlike `resolve`, it leaves a loop of links to `open`
        if not path.is_relative_to(self._root):
            raise UnsafeNameError(f"{self._source.path}/{file.path} leads out of {self._source.path}")
        return path

    def _check(self, file: RemoteFile, source: int) -> None:
        if _validator(os.fstat(source)) != file.validator:
            raise ChangedError(f"{self._source.path}/{file.path} changed while it was copied")

    def _bring(self, file: RemoteFile, source: int, target: int, staging: Staging) -> None:
        spans = clipped(staging.journal.spans(file), os.fstat(target).st_size)
        # A clone replaces the whole file, so it is used only if nothing was copied before.
        if not spans and _clone(source, target):
            staging.observer.on_bytes(file.path, file.size)
            return
        staging.observer.on_bytes(file.path, sum(end - start for start, end in spans))
        resize(target, spans[-1][1] if spans else 0)
        for start, end in missing(spans, file.size, STEP_BYTES):
            if self._stopping.is_set():
                raise StorageError(f"the copy of {file.path} was broken off")
            _copy_range(source, target, start, end)
            staging.journal.add(file, start, end)
            staging.observer.on_bytes(file.path, end - start)

    def find_digest(self, file: RemoteFile) -> Digest | None:
        """Compute the digest by reading the whole file of the volume."""
        return Digest("sha256", self._sha256(file, lambda _: None).hex())

    def same_content(self, file: RemoteFile, copy: Path, on_bytes: Callable[[int], None]) -> bool:
        """Whether a copy has the same bytes as the source's file."""
        return self._sha256(file, on_bytes) == _sha256(copy, on_bytes)

    def _sha256(self, file: RemoteFile, on_bytes: Callable[[int], None]) -> bytes:
        with self._reading():
            return _sha256(self._inside(file), on_bytes)


def _file(name: str, path: Path) -> RemoteFile:
    status = path.stat()
    return RemoteFile(name, status.st_size, _validator(status), str(path))


def _validator(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    """Copy a range with the first call that both file systems support."""
    for way in (_by_copy_file_range, _by_sendfile, _by_read):
        try:
            while start < end:
                count = way(source, target, start, end - start)
                if not count:
                    raise CorruptError("the source file became shorter while it was copied")
                start += count
        except OSError as error:
            if error.errno not in _UNSUPPORTED or way is _by_read:
                raise
        else:
            return


def _by_copy_file_range(source: int, target: int, start: int, count: int) -> int:
    return os.copy_file_range(source, target, count, start, start)


def _by_sendfile(source: int, target: int, start: int, count: int) -> int:
    os.lseek(target, start, os.SEEK_SET)
    return os.sendfile(target, source, start, count)


def _by_read(source: int, target: int, start: int, count: int) -> int:
    data = os.pread(source, min(count, 1 << 20), start)
    return os.pwrite(target, data, start)


def _sha256(path: Path, on_bytes: Callable[[int], None]) -> bytes:
    hasher = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while data := file.read(1 << 20):
            hasher.update(data)
            on_bytes(len(data))
    return hasher.digest()
