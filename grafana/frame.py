"""The JSON that all kinds of panels share; the metrics that a panel queries are added to its description here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from grafana.style import NO_TRAFFIC, thresholds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from grafana.style import Json, Steps

__all__ = ["DATASOURCE", "REF_IDS", "defaults", "panel", "sized", "special"]

DATASOURCE: Final[Mapping[str, str]] = {"type": "prometheus", "uid": "${datasource}"}
REF_IDS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_SELECTED: Final = re.compile(r"([a-zA-Z_:][\w:]*)\{")
_PART_OF_HISTOGRAM: Final = re.compile(r"_(bucket|sum|count)$")


def panel(
    kind: str,
    title: str,
    description: str,
    series: Mapping[str, str],
    config: Json,
    options: Json,
    *,
    overrides: Sequence[Json] = (),
    instant: bool = False,
    form: str = "time_series",
) -> Json:
    """Return a panel of a kind, with `config` for all its fields and `overrides` for some; `form` is of the data."""
    instant = instant or form == "table"
    targets = [
        _target(ref, legend, query, form=form, instant=instant)
        for ref, (legend, query) in zip(REF_IDS, series.items(), strict=False)
    ]
    return {
        "type": kind,
        "title": title,
        "description": f"{description}\n\n{_named(series.values())}",
        "datasource": dict(DATASOURCE),
        "fieldConfig": {"defaults": config, "overrides": list(overrides)},
        "options": options,
        "targets": targets,
    }


def defaults(unit: str, empty: str, color: Json, steps: Steps) -> Json:
    """Return what holds for all fields: unit, colours by value, and what to say when there is nothing."""
    return {
        "color": color,
        "mappings": [special("nan", NO_TRAFFIC, "text", 0)],
        "noValue": empty,
        "thresholds": thresholds(steps),
        "unit": unit,
    }


def special(match: str, text: str, color: str, index: int) -> Json:
    """Return a mapping of `nan` or `null` to a text; of several that match, the lowest index wins."""
    return {"type": "special", "options": {"match": match, "result": {"color": color, "index": index, "text": text}}}


def sized(made: Json, *, width: int, height: int) -> Json:
    """Return a panel with its size, of 24 columns and in rows of 30 pixels; its place is the layout's business."""
    return made | {"gridPos": {"w": width, "h": height, "x": 0, "y": 0}}


def _target(ref: str, legend: str, query: str, *, form: str, instant: bool) -> Json:
    return {
        "datasource": dict(DATASOURCE),
        "editorMode": "code",
        "expr": query,
        "format": form,
        "instant": instant,
        "legendFormat": legend,
        "range": not instant,
        "refId": ref,
    }


def _named(queries: Iterable[str]) -> str:
    metrics = _metrics_of(queries)
    return f"Metric{'s' if len(metrics) > 1 else ''}: {', '.join(f'`{name}`' for name in metrics)}"


def _metrics_of(queries: Iterable[str]) -> list[str]:
    """Return the families that queries name, in order."""
    names = (name for query in queries for name in _SELECTED.findall(query))
    return list(dict.fromkeys(_PART_OF_HISTOGRAM.sub("", name) for name in names))
