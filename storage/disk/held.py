"""What a target holds, as far as manifests say.

A copy whose replacement was cut short has no manifest of its own any more. Its
former one lies in `.kthena/work`, with the one of the copy that was to come: of
that, the files count that have arrived.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.disk.manifest import NAME, Manifest, UnreadableError, load_manifest
from storage.request.reserved import OWN_DIRECTORY
from storage.request.source import same_source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from storage.disk.manifest import Entry

__all__ = ["Held", "find_held", "is_replacing", "record_places"]


@dataclass(frozen=True, slots=True)
class Held:
    """What manifests say of a target.

    Attributes:
        published: The manifest of a finished copy; `None` when there is none, or it cannot be read.
        sources: Where files of manifests come from: none, one, or several while one source replaces another.
        entries: The files of manifests by their path.
        is_known: Whether every manifest there could be read.
    """

    published: Manifest | None
    sources: tuple[str, ...]
    entries: Mapping[str, Entry]
    is_known: bool = True

    def is_of(self, source: str) -> bool:
        """Whether nothing of another source is there, as far as manifests say."""
        return self.is_known and all(same_source(each, source) for each in self.sources)


def record_places(target: Path) -> tuple[Path, Path]:
    """Return where manifests of a replacement may lie: in the target, or beside it, where version 0.1 kept them."""
    return target / OWN_DIRECTORY / "work", target.with_name(f".{target.name}{OWN_DIRECTORY}")


def is_replacing(place: Path) -> bool:
    """Whether a manifest lies there: of a copy whose replacement was cut short, or of the one that was to come."""
    return os.path.lexists(place / NAME) or os.path.lexists(place / "tree" / NAME)


def find_held(target: Path, places: Sequence[Path]) -> Held:
    """Read the manifests of a target, of the copy that is being replaced, and of the one that is to come.

    Args:
        target: The directory.
        places: Where manifests of a replacement may lie; the first that has any counts.
    """
    if _is_empty(target):
        return Held(None, (), {})
    place = next((place for place in places if is_replacing(place)), places[0])
    try:
        published = load_manifest(target)
        former = published or load_manifest(place)
        coming = None if published else load_manifest(place / "tree")
    except UnreadableError:
        return Held(None, (), {}, is_known=False)
    arrived = [entry for entry in coming.entries if entry.is_untouched(target)] if coming else []
    sources = [former.source, *former.others] if former else []
    if coming and arrived and not any(same_source(each, coming.source) for each in sources):
        sources.append(coming.source)
    entries = [*(former.entries if former else ()), *arrived]
    return Held(published, tuple(sources), {entry.file.path: entry for entry in entries})


def _is_empty(target: Path) -> bool:
    try:
        return not any(target.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
