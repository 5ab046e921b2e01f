"""Patterns that choose files of a source by name."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["selected"]


def selected(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether patterns let a name through: some of `include`, if there are any, and none of `exclude`.

    Patterns are those of huggingface_hub: shell wildcards over the whole name, `dir/` means all below it.
    """
    return (not include or _matches(name, include)) and not _matches(name, exclude)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern + "*" if pattern.endswith("/") else pattern) for pattern in patterns)
