"""Patterns that select files of a source by name."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["selected"]


def selected(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether patterns select a name: it matches one of `include` (or `include` is empty), and none of `exclude`.

    Patterns work as in huggingface_hub: shell wildcards that match the whole name, slashes included; `dir/` selects
    everything below the directory.
    """
    return (not include or _matches(name, include)) and not _matches(name, exclude)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern + "*" if pattern.endswith("/") else pattern) for pattern in patterns)
