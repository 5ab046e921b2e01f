"""A minute of values as a line of small blocks."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["sparkline"]

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_GAP: Final = " "


def sparkline(
    values: Sequence[float | None], width: int, *, span: int, first: int = 0, top: float | None = None
) -> str:
    """Draw `values` from zero up to the highest, at most `width` characters; unknown ones are gaps.

    Args:
        values: Oldest first.
        width: Room in characters.
        span: How many values the room is for, however few there are yet.
        first: Place of the first value in the whole series. Values share a character by their
            place, so that a character once drawn moves on but never changes.
        top: The value of a full block, where it is known.
    """
    if width <= 0:
        return ""
    size = -(-span // width)
    numbered = enumerate(values, start=first)
    columns = [_mean([value for _, value in group]) for _, group in groupby(numbered, key=lambda each: each[0] // size)]
    columns = columns[-width:]
    highest = top or max((value for value in columns if value is not None), default=0.0)
    return "".join(_block(value, highest) for value in columns)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _block(value: float | None, highest: float) -> str:
    if value is None:
        return _GAP
    share = value / highest if highest > 0 else 0.0
    return _BLOCKS[round(min(max(share, 0.0), 1.0) * (len(_BLOCKS) - 1))]
