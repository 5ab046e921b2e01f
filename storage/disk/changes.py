"""What a download would do to the files that are there, and what of it must be allowed.

| what is there                                    | what becomes of it                                      |
|--------------------------------------------------|---------------------------------------------------------|
| a file of a manifest that the source has no more | is removed; of another source: only when that is allowed |
| … that the patterns pass over                    | stays; of another source: as above                      |
| … that the source has with other content         | is replaced; of another source: only when allowed       |
| … that a copy below or above the target has, too  | is removed or replaced only when that is allowed        |
| a file in no manifest                            | stays                                                   |
| … with the name of one to fetch                  | is replaced only when that is allowed                   |
| a link with such a name                          | is replaced; what it leads to stays                     |
| a directory with such a name                     | is an error, unless all in it is removed                |
| a manifest that cannot be read                   | keeps files from being added, unless that is allowed    |
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from stat import S_ISDIR, S_ISLNK
from typing import TYPE_CHECKING, NoReturn
from unicodedata import normalize

from storage.disk.names import is_real, make_directory, parents_of
from storage.disk.neighbours import find_claims
from storage.errors import HoldsOtherError, TargetError, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from storage.disk.held import Held
    from storage.disk.layout import Local
    from storage.disk.listing import Listing, RemoteFile
    from storage.disk.manifest import Entry

__all__ = ["Changes", "Removal", "find_changes"]


@dataclass(frozen=True, slots=True)
class Removal:
    """A file whose content will be gone, and was not merely brought up to date.

    Attributes:
        path: Its name below the target.
        size: Its length in bytes.
        overwritten: Whether a file of the source takes its place.
        needs_consent: Whether it goes only when the caller allows it.
    """

    path: str
    size: int
    overwritten: bool
    needs_consent: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """What a download does to a target besides adding files.

    Attributes:
        target: The directory.
        held: What manifests say of it.
        listing: The files that the download is of.
        kept: Those of them that are there.
        stay: Files of the manifest that the patterns pass over.
        leave: Files of the manifest that go.
        removals: All whose content will be gone, by name.
        others: Copies below or above the target whose files are among the removals.
        added: How many files are to be fetched.
    """

    target: Path
    held: Held
    listing: Listing
    kept: tuple[Entry, ...]
    stay: tuple[Entry, ...]
    leave: tuple[Entry, ...]
    removals: tuple[Removal, ...]
    others: tuple[str, ...] = ()
    added: int = 0

    def check_allowed(self) -> None:
        """Make sure that nothing goes but what the source itself has given up.

        Raises:
            HoldsOtherError: Something would; the message names it and says how to allow it.
        """
        names = [each.path for each in self.removals if each.needs_consent]
        if names:
            self._refuse(f"remove or overwrite {len(names)} of its files ({listed(names)})")
        if self.added and not self.held.is_known:
            self._refuse(f"add {self.added} files")

    def _refuse(self, what: str) -> NoReturn:
        raise HoldsOtherError(
            f"{self.target} {self._contents()}: {self.listing.source} would {what}; "
            'choose another directory, or allow it with --replace or "replace": true'
        )

    def _contents(self) -> str:
        if not self.held.is_known:
            return "has a manifest that cannot be read, so that what it holds is unknown"
        sources = () if self.held.is_of(self.listing.source) else self.held.sources
        owners = [*sources, *self.others]
        return f"holds {' and '.join(owners)}" if owners else "has files that no download put there"


def find_changes(target: Path, held: Held, listing: Listing, local: Local, is_chosen: Callable[[str], bool]) -> Changes:
    """Compare what is there with what is to come; nothing is written.

    Args:
        target: The directory.
        held: What manifests say of it.
        listing: The files that the download is of.
        local: Which of them are there.
        is_chosen: Whether the patterns of the download let a name through.

    Raises:
        TargetError: Something that will not go stands where a file is to come.
    """
    planned = {file.path for file in listing.files}
    is_same = held.is_of(listing.source)
    older = [entry for path, entry in held.entries.items() if path not in planned]
    stay = [entry for entry in older if is_same and not is_chosen(entry.file.path)]
    staying = {entry.file.path for entry in stay}
    leave = [entry for entry in older if entry.file.path not in staying]
    _check_way(target, [file.path for file in local.wanted], {entry.file.path for entry in leave})
    claims = _claims(target, held, listing.source, [entry.file for entry in leave] + list(local.wanted))
    removed = _removed(target, leave, claims, is_same=is_same)
    overwritten = _overwritten(target, held, local.wanted, claims, is_same=is_same)
    removals = tuple(sorted([*removed, *overwritten], key=lambda removal: removal.path))
    others = tuple(sorted({claims[removal.path] for removal in removals if removal.path in claims}))
    return Changes(target, held, listing, local.kept, tuple(stay), tuple(leave), removals, others, len(local.wanted))


def _claims(target: Path, held: Held, source: str, files: Iterable[RemoteFile]) -> Mapping[str, str]:
    """Return which of the files that are there belong to a copy below or above the target, and to which."""
    known = {file.path: held.entries.get(file.path) for file in files if _status(target, file.path)}
    names = {path: entry is not None and entry.is_untouched(target) for path, entry in known.items()}
    return find_claims(target, source, names)


def _removed(target: Path, leave: Iterable[Entry], claims: Mapping[str, str], *, is_same: bool) -> Iterator[Removal]:
    for path in (entry.file.path for entry in leave):
        status = _status(target, path)
        if status and not S_ISDIR(status.st_mode) and is_real(target, path.rpartition("/")[0]):
            yield Removal(path, status.st_size, overwritten=False, needs_consent=not is_same or path in claims)


def _overwritten(
    target: Path, held: Held, wanted: Iterable[RemoteFile], claims: Mapping[str, str], *, is_same: bool
) -> Iterator[Removal]:
    present = {file.path: status for file in wanted if (status := _status(target, file.path))}
    own = _spellings(target, held) if present.keys() - held.entries.keys() else set()
    for path, status in present.items():
        entry = held.entries.get(path)
        is_own = entry is not None or _spelling(path, status) in own or S_ISLNK(status.st_mode)
        is_update = is_same and entry and entry.is_untouched(target) and path not in claims
        if S_ISDIR(status.st_mode) or is_update:
            continue
        needs_consent = not (is_same and is_own) or path in claims
        yield Removal(path, status.st_size, overwritten=True, needs_consent=needs_consent)


def _spellings(target: Path, held: Held) -> set[tuple[str, int, int]]:
    """Return which files those of the manifests are, under any spelling: not every file system tells `A` from `a`."""
    return {_spelling(path, status) for path in held.entries if (status := _status(target, path))}


def _spelling(path: str, status: os.stat_result) -> tuple[str, int, int]:
    """Return what two spellings of one file have in common. Another link to the file has another name."""
    name = normalize("NFD", normalize("NFD", path).casefold())  # Unicode's canonical caseless match
    return name, status.st_dev, status.st_ino


def _status(target: Path, path: str) -> os.stat_result | None:
    try:
        return os.lstat(target / path)
    except OSError:
        return None


def _check_way(target: Path, names: Sequence[str], leave: set[str]) -> None:
    """Make sure that nothing stands where a file is to come, but what leaves."""
    for place in {place for name in names for place in parents_of(name)} - leave:
        if os.path.lexists(target / place):
            make_directory(target / place)
    for path in (target / name for name in names):
        if path.is_dir() and not path.is_symlink() and not _holds_only(target, path, leave):
            raise TargetError(f"{path} is a directory where the source has a file")


def _holds_only(target: Path, directory: Path, names: set[str]) -> bool:
    files = [path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir()]
    return bool(files) and {str(path.relative_to(target)) for path in files} <= names
