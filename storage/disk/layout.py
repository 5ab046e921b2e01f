"""The layout on disk, from the first byte to the published copy.

    /models/                          the parent
    ├── .llama.kthena/                work, while /models/llama is being made
    │   ├── lock-1                    who makes it (storage.disk.lock)
    │   ├── parts                     which bytes have arrived (storage.disk.journal)
    │   └── tree/                     the files, growing in place
    │       └── model.safetensors
    └── llama/                        a copy: complete, or missing
        ├── .kthena/
        │   ├── manifest.json         what it consists of (storage.disk.manifest)
        │   └── work/                 only while files are replaced
        │       ├── lock-1                    who replaces them
        │       ├── .kthena/manifest.json     of the copy whose files are being replaced
        │       └── tree/.kthena/manifest.json    of the new copy
        └── model.safetensors

A new copy appears by one rename of `tree`. In a directory that already holds files,
changed files are renamed one by one (storage.disk.publication). storage.disk.changes
decides what may be removed or overwritten there.

If the target is a mount point or the write root itself, or if its parent is not
writable, all work is in `.kthena/work` inside the target instead. Files are then renamed
one by one, too: largest first, `config.json` last.

So the place of the work depends on the process: on its mounts, its rights and its write
roots. What protects the files of a target does not: its lock and the manifests of a
replacement are always in the target itself (docs/adr/0016). Version 0.1 kept them with
the work; manifests are still found there.

After a success only the copy remains. After a failure the work remains, and the next run
resumes from it.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_IMODE, S_IRWXU, S_ISREG
from typing import TYPE_CHECKING

from storage.disk.digests import matches
from storage.disk.held import find_held, is_replacing, record_places
from storage.disk.manifest import NAME, Entry
from storage.disk.names import is_real, make_directory
from storage.errors import NoSpaceError
from storage.request.reserved import OWN_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from storage.disk.held import Held
    from storage.disk.listing import Digest, Listing, RemoteFile

    FindDigest = Callable[[RemoteFile], Digest | None]

__all__ = ["Layout", "Local", "work_directory"]


@dataclass(frozen=True, slots=True)
class Local:
    """The result of comparing a target with a listing.

    Attributes:
        kept: Files that the target has, unchanged.
        wanted: Files to fetch.
    """

    kept: tuple[Entry, ...]
    wanted: tuple[RemoteFile, ...]


def work_directory(target: Path, write_roots: Sequence[str] = ()) -> Path:
    """Return the work directory of a download into `target`: inside the target, or next to it."""
    inside, beside = record_places(target)
    parent = target.parent
    roots = {Path(root).absolute().resolve() for root in write_roots}
    existing = next(path for path in (parent, *parent.parents) if path.exists())
    if target in roots or os.path.ismount(target) or not os.access(existing, os.W_OK | os.X_OK):
        return inside
    return beside


class Layout:
    """The directories of one download.

    Attributes:
        target: Where the copy is published.
        work: The work directory, guarded by its lock.
        tree: The growing files, in `work`.
        inside: Where the lock and the manifests of a replacement are.
        is_in_place: Whether files are renamed one by one, because the target holds files.
    """

    def __init__(self, target: Path, write_roots: Sequence[str] = (), *, work: Path | None = None) -> None:
        self.target = target
        self.inside, self.beside = record_places(target)
        self.work = work or work_directory(target, write_roots)
        self.is_in_place = self.work == self.inside
        self.tree = self.work / "tree"
        self.journal = self.work / "parts"

    def prepare(self) -> None:
        """Create the work directories.

        Raises:
            TargetError: There is a link or a file in place of one of them.
        """
        own = self.target / OWN_DIRECTORY
        is_inside = self.work == self.inside
        (self.target if is_inside else self.work.parent).mkdir(parents=True, exist_ok=True)
        if is_inside or os.path.lexists(own):
            make_directory(own)
        for directory in (self.work, self.tree):
            make_directory(directory)
        if not is_inside and self.target.exists():
            _take_after(self.target, self.tree)
        self.is_in_place = is_inside or self.is_occupied()

    def prepare_inside(self) -> bool:
        """Create `inside`; return False if this process may not write to the target.

        Raises:
            TargetError: There is a link or a file in its place.
        """
        own = self.inside.parent
        if not os.access(own if own.exists() else self.target, os.W_OK | os.X_OK):
            return False
        make_directory(own)
        make_directory(self.inside)
        return True

    def held(self) -> Held:
        """Return what manifests say about the target."""
        return find_held(self.target, self._places())

    def _places(self) -> Sequence[Path]:
        return self.inside, self.beside

    def compare(
        self,
        listing: Listing,
        held: Held,
        find_digest: FindDigest = lambda _: None,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> Local:
        """Divide the listed files into unchanged ones and those to fetch.

        A file that differs from its manifest entry, or has none, may still have the right content: another tool may
        have copied it. It is read and compared with the source's digest. If the listing has no digest of a file in no
        manifest, `find_digest` asks the source for one.
        """
        names = {place: self._names(place) for place in {_place_and_name(file)[0] for file in listing.files}}
        kept, wanted = [], []
        for file in listing.files:
            place, name = _place_and_name(file)
            known = held.entries.get(file.path)
            entry = self._present(file, known, find_digest, on_bytes) if name in names[place] else None
            if entry:
                kept.append(entry)
            else:
                wanted.append(file)
        return Local(tuple(kept), tuple(wanted))

    def _names(self, place: str) -> frozenset[str]:
        """Return the names in a directory of the target, exactly as spelled on disk; none behind a link."""
        if not is_real(self.target, place):
            return frozenset()
        try:
            return frozenset(os.listdir(self.target / place))  # noqa: PTH208 - names only
        except OSError:
            return frozenset()

    def _present(
        self, file: RemoteFile, known: Entry | None, find_digest: FindDigest, on_bytes: Callable[[int], None]
    ) -> Entry | None:
        file = _with_digest(file, known.file) if known else file
        if known and known.is_untouched(self.target) and _is_same(file, known.file):
            return Entry(file, known.mtime_ns)
        path = self.target / file.path
        try:
            status = os.lstat(path)
            if status.st_size != file.size or not S_ISREG(status.st_mode):
                return None
            # ADR 16: only for a file in no manifest is the source asked.
            digest = file.digest or (None if known else find_digest(file))
            if not digest or not matches(path, digest, on_bytes):
                return None
        except OSError:
            return None
        return Entry(replace(file, digest=digest), status.st_mtime_ns)

    def check_space(self, needed: int) -> int:
        """Return the free bytes of the volume.

        Raises:
            NoSpaceError: There are fewer than `needed`.
        """
        place = next(path for path in (self.work, *self.work.parents) if path.exists())
        status = os.statvfs(place)
        free = status.f_bavail * status.f_frsize
        if needed > free:
            raise NoSpaceError(f"{self.target} needs {needed} bytes more, and its volume has {free} bytes free")
        return free

    def sweep(self, wanted: Iterable[RemoteFile]) -> None:
        """Remove files of an earlier plan from the tree: they take space, and their names may be in the way."""
        names = {NAME, *(file.path for file in wanted)}
        for directory, directories, files in os.walk(self.tree, topdown=False):
            for path in (Path(directory, name) for name in (*files, *directories)):
                if path.is_dir() and not path.is_symlink():
                    with suppress(OSError):
                        path.rmdir()
                elif str(path.relative_to(self.tree)) not in names:
                    path.unlink()

    def is_occupied(self) -> bool:
        """Whether the target is not empty, so that a rename cannot replace it."""
        with suppress(FileNotFoundError):
            return any(self.target.iterdir())
        return False

    def is_replacing(self) -> bool:
        """Whether manifests of an interrupted replacement exist. They must not be removed."""
        return any(is_replacing(place) for place in self._places())

    def clean(self) -> None:
        """Remove the work after a success. If files were replaced, the caller must still hold the target's lock."""
        self.discard()
        if self.is_in_place:
            shutil.rmtree(self.inside / "tree", ignore_errors=True)
            shutil.rmtree(self.inside / OWN_DIRECTORY, ignore_errors=True)

    def discard(self) -> None:
        """Remove the files of the work directory, except locks."""
        shutil.rmtree(self.tree, ignore_errors=True)
        shutil.rmtree(self.work / OWN_DIRECTORY, ignore_errors=True)
        self.journal.unlink(missing_ok=True)

    def leave(self) -> None:
        """Remove the work directories if they are empty, after their locks were released."""
        for directory in (self.work, self.inside, self.inside.parent):
            with suppress(OSError):
                directory.rmdir()


def _take_after(old: Path, new: Path) -> None:
    """Give a directory the owner and the mode of the empty directory that it will replace."""
    status = old.stat()
    with suppress(PermissionError):
        os.chown(new, status.st_uid, status.st_gid)
        new.chmod(S_IMODE(status.st_mode) | S_IRWXU)


def _is_same(file: RemoteFile, known: RemoteFile) -> bool:
    if file.size != known.size:
        return False
    same_digest = file.digest is not None and file.digest.certain and file.digest == known.digest
    return file.validator == known.validator or same_digest


def _with_digest(file: RemoteFile, known: RemoteFile) -> RemoteFile:
    """Add the digest that was found when the file was fetched, if the file is the same."""
    is_same = (file.size, file.validator) == (known.size, known.validator)
    return replace(file, digest=known.digest) if file.digest is None and is_same else file


def _place_and_name(file: RemoteFile) -> tuple[str, str]:
    place, _, name = file.path.rpartition("/")
    return place, name
