"""Files of a target that belong to a copy in a directory below or above the target (docs/adr/0016).

    /models/
    ├── .kthena/manifest.json        of a source with a directory `llama`
    └── llama/
        ├── .kthena/manifest.json    of another source, downloaded into /models/llama
        └── config.json              may be named by both

A file that both manifests name belongs to the copy whose manifest has the file's size and
mtime. If both have them, or neither, the file belongs to both: no download changes it
without permission.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from storage.disk.held import find_held, record_places
from storage.disk.names import parents_of
from storage.request.reserved import OWN_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from storage.disk.held import Held

__all__ = ["find_claims"]


def find_claims(target: Path, source: str, names: Mapping[str, bool]) -> dict[str, str]:
    """Return the files that belong to a copy of another source, each with that copy's description for messages.

    Args:
        target: The target of a download.
        source: The source of the download.
        names: Files below the target, and whether each still matches the target's own manifest.
    """
    claims: dict[str, str] = {}
    for root in _copies(target, names):
        held = find_held(root, record_places(root))
        if held.is_of(source):
            continue
        owner = f"{' and '.join(held.sources) or 'a copy with a manifest that cannot be read'} in {root}"
        claims |= {name: owner for name, path in _below(root, target, names) if _claims(held, root, path, names[name])}
    return claims


def _copies(target: Path, names: Iterable[str]) -> Iterator[Path]:
    """Yield directories with records of a download: of the target's parents, and of the directories of the names."""
    below = {place for name in names for place in parents_of(name)}
    for root in (*target.parents, *(target / place for place in sorted(below))):
        if os.path.lexists(root / OWN_DIRECTORY):
            yield root


def _below(root: Path, target: Path, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the names below `root`, each with its path relative to `root`."""
    prefix = f"{root}/".replace("//", "/")
    for name in names:
        path = f"{target}/{name}"
        if path.startswith(prefix):
            yield name, path.removeprefix(prefix)


def _claims(held: Held, root: Path, path: str, is_ours: bool) -> bool:  # noqa: FBT001 - of a mapping
    entry = held.entries.get(path)
    if is_ours:
        return entry is not None and entry.is_untouched(root)
    return entry is not None or not held.is_known
