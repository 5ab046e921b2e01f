"""How staged files become the copy.

Into an empty place the whole tree is renamed. Where files are already, each
file is renamed, the largest first and `config.json` at the end: the former
manifest goes out of the readers' sight first, and the new one comes last. The
two lie in `.kthena/work` meanwhile, so that the next run knows all of these
files when this one is killed, wherever it keeps its own work.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Final

from storage.disk.manifest import NAME, Entry, Manifest, write_manifest
from storage.disk.names import is_real, make_directory, make_parents
from storage.errors import LockedError, UnsafeNameError
from storage.request.reserved import OWN_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from storage.disk.changes import Changes, Removal
    from storage.disk.layout import Layout
    from storage.disk.listing import RemoteFile

__all__ = ["publish", "staged"]

# What engines look for first: it comes last.
_LAST: Final = ("config.json", "adapter_config.json")


def publish(
    layout: Layout,
    changes: Changes,
    fetched: Iterable[RemoteFile],
    on_removed: Callable[[Removal], None] = lambda _: None,
) -> Manifest:
    """Make the staged files the copy.

    Args:
        layout: Where they lie, and go.
        changes: What becomes of the files that are there.
        fetched: The staged files.
        on_removed: Told of each file whose content is gone.

    Raises:
        UnsafeNameError: The volume takes two names for one.
        LockedError: Another download has begun to fill the empty place.
    """
    new = staged(layout.tree, fetched)
    entries = sorted([*changes.kept, *new, *changes.stay], key=lambda entry: entry.file.path)
    manifest = Manifest(changes.listing.source, changes.listing.revision, tuple(entries))
    if not layout.is_in_place:
        write_manifest(layout.tree, manifest)
        _appear(layout)
    elif new or changes.leave or manifest != changes.held.published:
        for directory in (layout.inside.parent, layout.inside, layout.inside / "tree"):
            make_directory(directory)
        _retire(layout, changes)
        write_manifest(layout.inside / "tree", manifest)
        _replace(layout, new, changes, on_removed)
    return manifest


def _appear(layout: Layout) -> None:
    try:
        layout.tree.rename(layout.target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise LockedError(
            f"{layout.target} was empty, and another download has begun to fill it: start again"
        ) from error


def staged(tree: Path, fetched: Iterable[RemoteFile]) -> list[Entry]:
    """Return the staged files as entries.

    Raises:
        UnsafeNameError: The volume takes two names for one.
    """
    found: dict[tuple[int, int], str] = {}
    entries = []
    for file in fetched:
        status = os.lstat(tree / file.path)
        twin = found.setdefault((status.st_dev, status.st_ino), file.path)
        if twin != file.path:
            raise UnsafeNameError(f"the volume takes {twin!r} and {file.path!r} for one name: rename one at the source")
        entries.append(Entry(file, status.st_mtime_ns))
    return entries


def _retire(layout: Layout, changes: Changes) -> None:
    """Put what is known of the former files where the next run finds it, and readers do not."""
    held = changes.held
    published = layout.target / NAME
    if not held.is_known:
        _put_aside(layout)
    elif os.path.lexists(published):
        make_directory(layout.inside / OWN_DIRECTORY)
        published.replace(layout.inside / NAME)
    elif held.entries:  # cut short before: one manifest names the files of all copies from now on
        first, *others = held.sources
        write_manifest(layout.inside, Manifest(first, "", tuple(held.entries.values()), tuple(others)))


def _put_aside(layout: Layout) -> None:
    """Keep manifests that say more than this version can read: they are the only record of what was there."""
    own = layout.target / OWN_DIRECTORY
    for path in (
        root / NAME for root in (layout.target, layout.inside, layout.inside / "tree", layout.work, layout.tree)
    ):
        if os.path.lexists(path):
            names = (own / f"manifest.unreadable-{number}.json" for number in count(1))
            path.replace(next(name for name in names if not os.path.lexists(name)))


def _replace(layout: Layout, new: Sequence[Entry], changes: Changes, on_removed: Callable[[Removal], None]) -> None:
    removals = {removal.path: removal for removal in changes.removals}
    # First: a directory of the older copy may be a file of this one, and the other way round.
    for path in (entry.file.path for entry in changes.leave):
        _remove(layout.target, path)
        if path in removals:
            on_removed(removals[path])
    for path in (entry.file.path for entry in sorted(new, key=_order)):
        (layout.tree / path).replace(make_parents(layout.target, path))
        if path in removals:
            on_removed(removals[path])
    (layout.inside / "tree" / NAME).replace(layout.target / NAME)


def _remove(target: Path, name: str) -> None:
    path = target / name
    # No link is followed out of the target on the way there.
    if is_real(target, name.rpartition("/")[0]):
        with suppress(
            FileNotFoundError, IsADirectoryError, NotADirectoryError
        ):  # gone, or something else has taken its place
            path.unlink()
        for parent in path.relative_to(target).parents[:-1]:
            with suppress(OSError):
                (target / parent).rmdir()


def _order(entry: Entry) -> tuple[bool, int]:
    return (entry.file.path.rpartition("/")[2] in _LAST, -entry.file.size)
