"""What a download would do to existing files, and which of that needs permission (docs/adr/0016).

| existing file                                    | what happens to it                                      |
|--------------------------------------------------|---------------------------------------------------------|
| a file of the manifest that the source dropped   | removed; of another source: only with permission        |
| … that the patterns exclude                      | stays; of another source: as above                      |
| … with other content at the source               | replaced; of another source: only with permission       |
| … that a copy below or above the target also has | removed or replaced only with permission                |
| a file in no manifest                            | stays                                                   |
| … with the name of a file to fetch               | replaced only with permission                           |
| a link with such a name                          | replaced; what it leads to stays                        |
| a directory with such a name                     | an error, unless all its files are removed              |
| an unreadable manifest                           | no files are added, unless with permission              |
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
    """A file whose content will be gone, other than by an update from the same source.

    Attributes:
        path: Its path relative to the target.
        size: Its size in bytes.
        overwritten: Whether a file of the source replaces it.
        needs_consent: Whether it needs the caller's permission.
    """

    path: str
    size: int
    overwritten: bool
    needs_consent: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """What a download does to a target, in addition to adding files.

    Attributes:
        target: The directory.
        held: What manifests say about it.
        listing: The files of the source.
        kept: Those of them that the target has already.
        stay: Files of the manifest that the patterns exclude.
        leave: Files of the manifest that are removed.
        removals: All files whose content will be gone, sorted by path.
        others: Copies below or above the target that own some of the removals.
        added: The number of files to fetch.
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
        """Check that only files are destroyed that the same source has dropped or changed.

        Raises:
            HoldsOtherError: Other files would be destroyed; the message names them and says how to allow it.
        """
        names = [each.path for each in self.removals if each.needs_consent]
        if names:
            self._refuse(f"remove or overwrite {len(names)} of its files ({listed(names)})")
        # Two models with different file names would mix, although no file is overwritten.
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
    """Compare the target with the listing; write nothing.

    Args:
        target: The directory.
        held: What manifests say about it.
        listing: The files of the source.
        local: Which of them the target has.
        is_chosen: Whether the download's patterns select a name.

    Raises:
        TargetError: A directory, link or file that stays is in the way of a file to fetch.
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
    """Return which existing files belong to a copy below or above the target, and to which copy."""
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
    """Return the identities of the manifests' files, for file systems that do not tell `A` from `a`."""
    return {_spelling(path, status) for path in held.entries if (status := _status(target, path))}


def _spelling(path: str, status: os.stat_result) -> tuple[str, int, int]:
    """Return what two spellings of one file share. A hard link with another name is another file: a user made it."""
    name = normalize("NFD", normalize("NFD", path).casefold())  # Unicode's canonical caseless match
    return name, status.st_dev, status.st_ino


def _status(target: Path, path: str) -> os.stat_result | None:
    try:
        return os.lstat(target / path)
    except OSError:
        return None


def _check_way(target: Path, names: Sequence[str], leave: set[str]) -> None:
    """Check that nothing is in the way of the files to fetch, except files that are removed."""
    for place in {place for name in names for place in parents_of(name)} - leave:
        if os.path.lexists(target / place):
            # Raises TargetError for anything but a directory.
            make_directory(target / place)
    for path in (target / name for name in names):
        if path.is_dir() and not path.is_symlink() and not _holds_only(target, path, leave):
            raise TargetError(f"{path} is a directory where the source has a file")


def _holds_only(target: Path, directory: Path, names: set[str]) -> bool:
    files = [path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir()]
    return bool(files) and {str(path.relative_to(target)) for path in files} <= names
