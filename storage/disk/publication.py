"""Publication: how staged files become the copy.

If the target is empty, the whole tree is renamed. If it holds files, each new file is
renamed into it, the largest first and `config.json` last. The former manifest is moved away
first, and the new one is moved in last: in between, readers see no manifest and so no model.
Meanwhile both manifests are in `.kthena/work`. If this run is killed, the next run still
knows all of these files, wherever that run keeps its own work.
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

# Engines look for these files first, so they are renamed last.
_LAST: Final = ("config.json", "adapter_config.json")


def publish(
    layout: Layout,
    changes: Changes,
    fetched: Iterable[RemoteFile],
    on_removed: Callable[[Removal], None] = lambda _: None,
) -> Manifest:
    """Publish the staged files as the copy.

    Args:
        layout: The directories.
        changes: What happens to existing files.
        fetched: The staged files.
        on_removed: Called for each file whose content is gone.

    Raises:
        UnsafeNameError: The volume treats two names as one, for example because it ignores case.
        LockedError: Another download has begun to fill the empty target.
    """
    new = staged(layout.tree, fetched)
    entries = sorted([*changes.kept, *new, *changes.stay], key=lambda entry: entry.file.path)
    manifest = Manifest(changes.listing.source, changes.listing.revision, tuple(entries))
    if not layout.is_in_place:
        write_manifest(layout.tree, manifest)
        _appear(layout)
    # Nothing to do otherwise. A target that this process may not write to is then still a success.
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
    """Return the staged files as manifest entries.

    Raises:
        UnsafeNameError: The volume treats two names as one, for example because it ignores case.
    """
    found: dict[tuple[int, int], str] = {}
    entries = []
    for file in fetched:
        status = os.lstat(tree / file.path)
        # Two names with one inode: the volume ignores case, and the second file overwrote the first.
        twin = found.setdefault((status.st_dev, status.st_ino), file.path)
        if twin != file.path:
            raise UnsafeNameError(f"the volume takes {twin!r} and {file.path!r} for one name: rename one at the source")
        entries.append(Entry(file, status.st_mtime_ns))
    return entries


def _retire(layout: Layout, changes: Changes) -> None:
    """Move the manifest of the former files to where the next run finds it, and readers do not."""
    held = changes.held
    published = layout.target / NAME
    if not held.is_known:
        _put_aside(layout)
    elif os.path.lexists(published):
        make_directory(layout.inside / OWN_DIRECTORY)
        published.replace(layout.inside / NAME)
    elif held.entries:  # after an interrupted replacement: one manifest now names the files of all copies
        first, *others = held.sources
        write_manifest(layout.inside, Manifest(first, "", tuple(held.entries.values()), tuple(others)))


def _put_aside(layout: Layout) -> None:
    """Keep unreadable manifests under other names: a later version may be able to read them (docs/adr/0016)."""
    own = layout.target / OWN_DIRECTORY
    for path in (
        root / NAME for root in (layout.target, layout.inside, layout.inside / "tree", layout.work, layout.tree)
    ):
        if os.path.lexists(path):
            names = (own / f"manifest.unreadable-{number}.json" for number in count(1))
            path.replace(next(name for name in names if not os.path.lexists(name)))


def _replace(layout: Layout, new: Sequence[Entry], changes: Changes, on_removed: Callable[[Removal], None]) -> None:
    removals = {removal.path: removal for removal in changes.removals}
    # Removals come first: a directory of the older copy may be a file in this one, and vice versa.
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
    # Never through a link: it could lead out of the target.
    if is_real(target, name.rpartition("/")[0]):
        with suppress(
            FileNotFoundError, IsADirectoryError, NotADirectoryError
        ):  # it is gone, or something else is in its place
            path.unlink()
        # Directories that have become empty go, too; rmdir fails for all others.
        for parent in path.relative_to(target).parents[:-1]:
            with suppress(OSError):
                (target / parent).rmdir()


def _order(entry: Entry) -> tuple[bool, int]:
    return (entry.file.path.rpartition("/")[2] in _LAST, -entry.file.size)
