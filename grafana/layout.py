"""Rows of panels, flowed on Grafana's grid of 24 columns."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from grafana.style import Json

__all__ = ["Row", "flow"]

_COLUMNS: Final = 24


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading.

    Attributes:
        title: The heading; without one the panels stand by themselves.
        panels: From left to right; a line is full when the next does not fit.
        collapsed: Whether it is folded until somebody opens it.
        repeat: A variable for each of whose values the row is shown.
    """

    title: str
    panels: Sequence[Json]
    collapsed: bool = False
    repeat: str = ""


def flow(rows: Sequence[Row]) -> list[Json]:
    """Give every panel its id and place."""
    ids = count(1)
    top = 0
    placed: list[Json] = []
    for row in rows:
        head = [_head(row, next(ids), top)] if row.title else []
        body, bottom = _placed(row.panels, ids, top + len(head))
        if row.collapsed:
            head[0]["panels"] = body
            placed, top = placed + head, top + 1
        else:
            placed, top = placed + head + body, bottom
    return placed


def _head(row: Row, number: int, top: int) -> Json:
    return {
        "id": number,
        "type": "row",
        "title": row.title,
        "collapsed": row.collapsed,
        "gridPos": {"w": _COLUMNS, "h": 1, "x": 0, "y": top},
        "panels": [],
    } | ({"repeat": row.repeat} if row.repeat else {})


def _placed(panels: Sequence[Json], ids: Iterator[int], top: int) -> tuple[list[Json], int]:
    """Return the panels with their places, and where the next line begins."""
    placed: list[Json] = []
    left = bottom = 0
    for panel in panels:
        width, height = panel["gridPos"]["w"], panel["gridPos"]["h"]
        if left + width > _COLUMNS:
            left, top = 0, bottom
        placed.append({"id": next(ids)} | panel | {"gridPos": {"w": width, "h": height, "x": left, "y": top}})
        left, bottom = left + width, max(bottom, top + height)
    return placed, max(bottom, top)
