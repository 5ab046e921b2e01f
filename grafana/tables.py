"""Tables: one row for each combination of labels, its columns from a query each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grafana.frame import REF_IDS, defaults, panel, sized
from grafana.style import NEUTRAL, NO_TRAFFIC, thresholds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grafana.style import Json, Steps

__all__ = ["Column", "table"]

_COLUMN_PIXELS: Final = 80
_NO_CELL: Final = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, from a query of its own.

    Attributes:
        title: Its head.
        unit: Grafana's id of a unit.
        query: What gives its values, one for each row.
        colors: Colours by value; without them the text is plain.
        words: What to show in place of values.
    """

    title: str
    unit: str
    query: str
    colors: Steps = ()
    words: Mapping[str, str] | None = None


def table(
    title: str,
    description: str,
    labels: Mapping[str, str],
    columns: Sequence[Column],
    *,
    links: Mapping[str, Mapping[str, str]] | None = None,
    empty: str = NO_TRAFFIC,
    width: int = 24,
    height: int = 7,
) -> Json:
    """One row for each combination of labels.

    Args:
        title: What the rows are, with the time that they cover.
        description: What they mean and what to do about it.
        labels: Heads by label, in order.
        columns: What stands behind the labels; a column without a title is only queried.
        links: By head, the addresses that a click offers, by their titles.
        empty: What to show when there is nothing.
        width: Of 24.
        height: In units of 30 pixels.
    """
    series = {column.title: column.query for column in columns}
    options = {"cellHeight": "sm", "frameIndex": 0, "showHeader": True}
    custom = {
        "align": "auto",
        "cellOptions": {"type": "auto"},
        "filterable": False,
        "inspect": False,
        "minWidth": _COLUMN_PIXELS,
        "wrapHeaderText": True,
    }
    config = defaults("none", empty, {"mode": "thresholds"}, NEUTRAL) | {"custom": custom}
    overrides = [
        *map(_head, labels.values()),
        *map(_cells, filter(lambda column: column.title, columns)),
        *_linked(links or {}),
    ]
    made = panel("table", title, description, series, config, options, overrides=overrides, form="table")
    made["transformations"] = _merged(labels, columns)
    return sized(made, width=width, height=height)


def _head(head: str) -> Json:
    return {"matcher": {"id": "byName", "options": head}, "properties": [{"id": "noValue", "value": _NO_CELL}]}


def _cells(column: Column) -> Json:
    properties: list[Json] = [{"id": "unit", "value": column.unit}, {"id": "noValue", "value": _NO_CELL}]
    if column.colors:
        properties += [
            {"id": "custom.cellOptions", "value": {"type": "color-text"}},
            {"id": "thresholds", "value": thresholds(column.colors)},
        ]
    if column.words:
        words = {value: {"index": index, "text": word} for index, (value, word) in enumerate(column.words.items())}
        properties.append({"id": "mappings", "value": [{"type": "value", "options": words}]})
    return {"matcher": {"id": "byName", "options": column.title}, "properties": properties}


def _linked(links: Mapping[str, Mapping[str, str]]) -> list[Json]:
    return [
        {
            "matcher": {"id": "byName", "options": head},
            "properties": [{"id": "links", "value": [{"title": name, "url": url} for name, url in targets.items()]}],
        }
        for head, targets in links.items()
    ]


def _merged(labels: Mapping[str, str], columns: Sequence[Column]) -> list[Json]:
    """Join the queries' results to one table: the labels first, in order, then the columns."""
    values = [f"Value #{ref}" if len(columns) > 1 else "Value" for ref, _ in zip(REF_IDS, columns, strict=False)]
    titles = {value: column.title for value, column in zip(values, columns, strict=True)}
    shown = {**labels, **{value: title for value, title in titles.items() if title}}
    hidden = ["Time", *(value for value, title in titles.items() if not title)]
    organize = {
        "excludeByName": dict.fromkeys(hidden, True),
        "indexByName": {name: index for index, name in enumerate(shown)},
        "renameByName": shown,
    }
    return [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}]
