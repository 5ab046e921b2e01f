"""What a target holds, according to its manifests.

A copy whose replacement was interrupted has no manifest of its own any more. Its former
manifest is in `.kthena/work`, together with the manifest of the new copy. Of the new
copy, only the files that have arrived count.
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
    """What manifests say about a target.

    Attributes:
        published: The manifest of a finished copy; `None` if there is none, or if it cannot be read.
        sources: The sources of the files: none, one, or several after interrupted replacements.
        entries: The files by path.
        is_known: Whether all manifests could be read. If not, all files are unknown (docs/adr/0016).
    """

    published: Manifest | None
    sources: tuple[str, ...]
    entries: Mapping[str, Entry]
    is_known: bool = True

    def is_of(self, source: str) -> bool:
        """Whether, according to manifests, the target has no files of another source."""
        return self.is_known and all(same_source(each, source) for each in self.sources)


def record_places(target: Path) -> tuple[Path, Path]:
    """Return where manifests of a replacement may be: in the target, or next to it, where version 0.1 kept them."""
    return target / OWN_DIRECTORY / "work", target.with_name(f".{target.name}{OWN_DIRECTORY}")


def is_replacing(place: Path) -> bool:
    """Whether a place has a manifest of an interrupted replacement: of the former copy, or of the new one."""
    return os.path.lexists(place / NAME) or os.path.lexists(place / "tree" / NAME)


def find_held(target: Path, places: Sequence[Path]) -> Held:
    """Read the manifests of a target, of the copy that is being replaced, and of the new copy.

    Args:
        target: The directory.
        places: Where manifests of a replacement may be; the first place that has any counts.
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
