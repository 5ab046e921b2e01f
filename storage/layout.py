"""What lies on disk, from the first byte to the published copy.

    /models/                          the parent
    ├── .llama.kthena/                work, while /models/llama is being made
    │   ├── lock-1                    who makes it (storage.lock)
    │   ├── parts                     which bytes are there (storage.journal)
    │   ├── .kthena/manifest.json     of the copy whose files are being replaced
    │   └── tree/                     the files, growing in place
    │       ├── .kthena/manifest.json     written when all of them are right
    │       └── model.safetensors
    └── llama/                        a copy: whole, or not there
        ├── .kthena/manifest.json     what it is made of (storage.manifest)
        └── model.safetensors

A new copy appears by one rename of `tree`. Into a directory that holds files
already, changed files are renamed one by one, each whole: the manifest goes
first and the new one comes last. Files of the old manifest that the source no
longer has are removed; files that nobody of us put there are left alone.

Where the target is a mount point, the write root itself, or has a parent that
cannot be written to, work lies in `.kthena/work` inside the target instead, and files are
renamed one by one there too, largest first and `config.json` at the end.

After a success nothing but the copy is left. After a failure work stays, and
the next run goes on from it.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_IMODE, S_IRWXU
from typing import TYPE_CHECKING, Final

from storage.digests import matches
from storage.errors import NoSpaceError, TargetError
from storage.manifest import NAME, Entry, Manifest, read_manifest, write_manifest
from storage.names import OWN_DIRECTORY, is_real, make_directory, make_parents, parents_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from storage.plan import Listing, RemoteFile

__all__ = ["Layout", "Local", "work_directory"]

# What engines look for first: it comes last.
_LAST: Final = ("config.json", "adapter_config.json")


@dataclass(frozen=True, slots=True)
class Local:
    """How a target compares with a listing.

    Attributes:
        kept: Files that are there and unchanged.
        wanted: Files to fetch.
    """

    kept: tuple[Entry, ...]
    wanted: tuple[RemoteFile, ...]


def work_directory(target: Path, write_roots: Sequence[str] = ()) -> Path:
    """Return where a download into `target` keeps its work; the same for all who ask."""
    parent = target.parent
    roots = {Path(root).absolute().resolve() for root in write_roots}
    existing = next(path for path in (parent, *parent.parents) if path.exists())
    if target in roots or os.path.ismount(target) or not os.access(existing, os.W_OK | os.X_OK):
        return target / OWN_DIRECTORY / "work"
    return parent / f".{target.name}{OWN_DIRECTORY}"


class Layout:
    """The directories of one download.

    Attributes:
        target: Where the copy is published.
        work: Where everything else lies; the lock guards it.
        tree: Where files grow.
    """

    def __init__(self, target: Path, write_roots: Sequence[str] = (), *, work: Path | None = None) -> None:
        self.target = target
        self.work = work or work_directory(target, write_roots)
        self.tree = self.work / "tree"
        self.journal = self.work / "parts"

    def prepare(self) -> None:
        """Make the directories for work.

        Raises:
            TargetError: A link stands where one of them should.
        """
        own = self.target / OWN_DIRECTORY
        is_inside = self.work.is_relative_to(own)
        (self.target if is_inside else self.work.parent).mkdir(parents=True, exist_ok=True)
        if is_inside or os.path.lexists(own):
            make_directory(own)
        for directory in (self.work, self.tree):
            make_directory(directory)
        if not is_inside and self.target.exists():
            _take_after(self.target, self.tree)

    def manifest(self) -> Manifest | None:
        """Return the manifest of the copy, or that of the copy whose replacement was cut short."""
        return read_manifest(self.target) or read_manifest(self.work)

    def compare(self, listing: Listing, on_bytes: Callable[[int], None] = lambda _: None) -> Local:
        """Tell files that are there and unchanged from those to fetch.

        A file that only looks different from its manifest entry, or has none, is read and
        compared with the source's digest before it is fetched again.
        """
        known = {entry.file.path: entry for entry in (self.manifest() or Manifest("", "", ())).entries}
        places = {file.path.rpartition("/")[0] for file in listing.files}
        real = {place for place in places if is_real(self.target, place)}
        kept, wanted = [], []
        for file in listing.files:
            is_here = file.path.rpartition("/")[0] in real
            entry = self._present(file, known.get(file.path), on_bytes) if is_here else None
            if entry:
                kept.append(entry)
            else:
                wanted.append(file)
        return Local(tuple(kept), tuple(wanted))

    def _present(self, file: RemoteFile, entry: Entry | None, on_bytes: Callable[[int], None]) -> Entry | None:
        if entry and entry.is_untouched(self.target) and _is_same(file, entry.file):
            return Entry(_with_digest(file, entry.file), entry.mtime_ns)
        path = self.target / file.path
        try:
            status = os.lstat(path)
            if not file.digest or status.st_size != file.size or not matches(path, file.digest, on_bytes):
                return None
        except OSError:
            return None
        return Entry(file, status.st_mtime_ns)

    def check_space(self, needed: int) -> int:
        """Return the free bytes of the volume.

        Raises:
            NoSpaceError: They are fewer than `needed`.
        """
        place = next(path for path in (self.work, *self.work.parents) if path.exists())
        status = os.statvfs(place)
        free = status.f_bavail * status.f_frsize
        if needed > free:
            raise NoSpaceError(f"{self.target} needs {needed} bytes more, and its volume has {free} bytes free")
        return free

    def sweep(self, wanted: Iterable[RemoteFile]) -> None:
        """Remove from the tree what an earlier plan left there: it takes room, and its names may stand in the way."""
        names = {file.path for file in wanted}
        for directory, directories, files in os.walk(self.tree, topdown=False):
            for path in (Path(directory, name) for name in (*files, *directories)):
                if path.is_dir() and not path.is_symlink():
                    with suppress(OSError):
                        path.rmdir()
                elif str(path.relative_to(self.tree)) not in names:
                    path.unlink()

    def publish(
        self, listing: Listing, everything: Listing, kept: Sequence[Entry], fetched: Iterable[RemoteFile]
    ) -> Manifest:
        """Make the staged files the copy; the manifest comes last."""
        new = [Entry(file, os.lstat(self.tree / file.path).st_mtime_ns) for file in fetched]
        previous = self.manifest()
        stay, leave = _sort_out(previous, listing, everything)
        entries = sorted([*kept, *new, *stay], key=lambda entry: entry.file.path)
        manifest = Manifest(listing.source, listing.revision, tuple(entries))
        if not self._is_occupied():
            self._publish_whole(manifest)
        elif new or leave or manifest != previous or not (self.target / NAME).exists():
            self._publish_each(manifest, new, leave)
        return manifest

    def _is_occupied(self) -> bool:
        if self.work.is_relative_to(self.target):
            return True
        with suppress(FileNotFoundError):
            return any(self.target.iterdir())
        return False

    def _publish_whole(self, manifest: Manifest) -> None:
        write_manifest(self.tree, manifest)
        self.tree.rename(self.target)

    def _publish_each(self, manifest: Manifest, new: Sequence[Entry], leave: Sequence[Entry]) -> None:
        self._check_way(new, {entry.file.path for entry in leave})
        if (self.target / NAME).exists():
            # Out of the readers' sight, not lost: a kill from here on is mended by the next run.
            make_directory(self.work / OWN_DIRECTORY)
            (self.target / NAME).replace(self.work / NAME)
        # First: a directory of the older copy may be a file of this one, and the other way round.
        for entry in leave:
            self._remove(entry)
        for entry in sorted(new, key=_order):
            path = make_parents(self.target, entry.file.path)
            (self.tree / entry.file.path).replace(path)
        write_manifest(self.target, manifest)

    def _check_way(self, new: Sequence[Entry], leave: set[str]) -> None:
        """Make sure that nothing of others stands where a file is to come, as long as the copy is whole."""
        names = {entry.file.path for entry in new}
        for place in {place for name in names for place in parents_of(name)} - leave:
            if os.path.lexists(self.target / place):
                make_directory(self.target / place)
        for path in (self.target / name for name in names):
            if path.is_dir() and not path.is_symlink() and not self._holds_only(path, leave):
                raise TargetError(f"{path} is a directory where the source has a file")

    def _holds_only(self, directory: Path, names: set[str]) -> bool:
        files = [path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir()]
        return bool(files) and {str(path.relative_to(self.target)) for path in files} <= names

    def _remove(self, entry: Entry) -> None:
        path = self.target / entry.file.path
        # No link is followed out of the target on the way there.
        if is_real(self.target, entry.file.path.rpartition("/")[0]):
            path.unlink(missing_ok=True)
            for parent in path.relative_to(self.target).parents[:-1]:
                with suppress(OSError):
                    (self.target / parent).rmdir()

    def clean(self) -> None:
        """Remove work, after a success."""
        shutil.rmtree(self.tree, ignore_errors=True)
        shutil.rmtree(self.work / OWN_DIRECTORY, ignore_errors=True)
        self.journal.unlink(missing_ok=True)

    def leave(self) -> None:
        """Remove the work directory if it is empty, after the lock was released."""
        with suppress(OSError):
            self.work.rmdir()


def _take_after(old: Path, new: Path) -> None:
    """Give a directory the owner and the rights of the empty one whose place it will take."""
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
    """Keep the digest that was found while the file was fetched."""
    return known if file.digest is None and file.validator == known.validator else file


def _sort_out(previous: Manifest | None, listing: Listing, everything: Listing) -> tuple[list[Entry], list[Entry]]:
    """Return which older files stay (the patterns passed them over) and which leave (the source has them no more)."""
    if previous is None:
        return [], []
    planned = {file.path for file in listing.files}
    same_source = previous.source == listing.source
    current = {file.path: file for file in everything.files} if same_source else {}
    older = [entry for entry in previous.entries if entry.file.path not in planned]
    stay = [entry for entry in older if entry.file.path in current and _is_same(current[entry.file.path], entry.file)]
    staying = {entry.file.path for entry in stay}
    return stay, [entry for entry in older if entry.file.path not in staying]


def _order(entry: Entry) -> tuple[bool, int]:
    return (entry.file.path.rpartition("/")[2] in _LAST, -entry.file.size)
