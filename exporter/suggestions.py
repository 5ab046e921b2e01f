"""Suggestions for misspelled names in error messages."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["did_you_mean"]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean X?)` for the most similar known name, or an empty text if none is similar."""
    alike = get_close_matches(name, sorted(known), n=1, cutoff=0.65)
    return f" (did you mean {alike[0]}?)" if alike else ""
