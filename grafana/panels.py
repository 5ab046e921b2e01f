"""Panels: each builder says what to show and returns the panel's JSON, without id and place.

`series` maps a legend to its query; `{{label}}` in a legend stands for the label's value. A description says what the
number means and what to do about it; the metrics that are queried are added to it here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grafana.style import (
    BY_NAME,
    NEUTRAL,
    NO_TRAFFIC,
    fixed,
    legend_overrides,
    thresholds,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from grafana.style import Json, Steps

__all__ = ["CHART_HEIGHT", "DATASOURCE", "Column", "bargauge", "heatmap", "metrics_of", "stat", "table", "timeseries"]

DATASOURCE: Final[Mapping[str, str]] = {"type": "prometheus", "uid": "${datasource}"}

_SELECTED: Final = re.compile(r"([a-zA-Z_:][\w:]*)\{")
_PART_OF_HISTOGRAM: Final = re.compile(r"_(bucket|sum|count)$")
# A chart's height, in which a legend with three names is whole.
CHART_HEIGHT: Final = 9
_TILE_TEXT: Final = 30
_COLUMN_PIXELS: Final = 80
_REF_IDS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


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


def stat(  # noqa: PLR0913 - as few as a tile has properties
    title: str,
    unit: str,
    description: str,
    query: str,
    *,
    judge: Steps = (),
    zero: str = "",
    empty: str = NO_TRAFFIC,
    instant: bool = False,
) -> Json:
    """A tile: one number, on its colour if it is judged, else with its course over time.

    Args:
        title: What the number is.
        unit: Grafana's id of its unit.
        description: What it means and what to do about it.
        query: What gives it.
        judge: Colours by value; without them it is a fact and blue.
        zero: What to show for 0.
        empty: What to show when there is nothing.
        instant: Whether the query covers the chosen time by itself.
    """
    options = {
        "colorMode": "background" if judge else "value",
        "graphMode": "none" if instant or judge else "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showPercentChange": False,
        "text": {"valueSize": _TILE_TEXT},
        "textMode": "value",
        "wideLayout": True,
    }
    color = {"mode": "thresholds"} if judge else fixed("blue")
    defaults = _defaults(unit, empty, color, judge or NEUTRAL) | {
        "mappings": _tile_mappings(zero, empty, judged=bool(judge))
    }
    panel = _panel("stat", title, description, {title: query}, defaults, options, instant=instant)
    return _sized(panel, width=4, height=4)


def timeseries(  # noqa: PLR0913 - as few as a chart has properties
    title: str,
    unit: str,
    description: str,
    series: Mapping[str, str],
    *,
    stacked: bool = False,
    share: bool = False,
    empty: str = NO_TRAFFIC,
    width: int = 8,
) -> Json:
    """Lines over time.

    Args:
        title: What they are.
        unit: Grafana's id of their unit.
        description: What they mean and what to do about it.
        series: Queries by legend.
        stacked: Whether the lines are parts of a whole.
        share: Whether the axis goes from 0 to 1.
        empty: What to show when there is nothing.
        width: Of 24.
    """
    many = any("{{" in legend for legend in series)
    custom = {
        "axisPlacement": "auto",
        "drawStyle": "line",
        "fillOpacity": 30 if stacked else 8,
        "gradientMode": "none" if stacked else "opacity",
        "lineInterpolation": "linear",
        "lineWidth": 1 if stacked else 2,
        "pointSize": 4,
        "showPoints": "auto",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
        "thresholdsStyle": {"mode": "off"},
    }
    options = {
        "legend": {
            "calcs": ["mean", "max"] if many else [],
            "displayMode": "table" if many else "list",
            "placement": "bottom",
            "showLegend": many or len(series) > 1,
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    color = BY_NAME if many or len(series) > 1 else fixed("blue")
    defaults = _defaults(unit, empty, color, NEUTRAL) | {"custom": custom, "min": 0} | ({"max": 1} if share else {})
    overrides = legend_overrides(series)
    return _sized(
        _panel("timeseries", title, description, series, defaults, options, overrides=overrides),
        width=width,
        height=CHART_HEIGHT,
    )


def heatmap(title: str, unit: str, description: str, buckets: str, *, width: int = 8) -> Json:
    """How often each length of time occurred, over time, from the buckets of a histogram."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "cellValues": {"unit": "reqps"},
        "color": {
            "exponent": 0.5,
            "fill": "dark-blue",
            "mode": "scheme",
            "reverse": False,
            "scale": "exponential",
            "scheme": "Blues",
            "steps": 64,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": False},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
    }
    defaults = {"custom": {"scaleDistribution": {"type": "linear"}}, "noValue": NO_TRAFFIC, "unit": unit}
    panel = _panel("heatmap", title, description, {"{{le}}": buckets}, defaults, options, form="heatmap")
    return _sized(panel, width=width, height=CHART_HEIGHT)


def bargauge(  # noqa: PLR0913 - as few as a bar has properties
    title: str, unit: str, description: str, series: Mapping[str, str], *, empty: str, width: int = 8
) -> Json:
    """One bar for each series as it is now, from 0 to 1."""
    options = {
        "displayMode": "basic",
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": False},
        "maxVizHeight": 40,
        "minVizHeight": 16,
        "minVizWidth": 8,
        "namePlacement": "top",
        "orientation": "horizontal",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showUnfilled": True,
        "sizing": "manual",
        "valueMode": "text",
    }
    defaults = _defaults(unit, empty, fixed("blue"), NEUTRAL) | {"max": 1, "min": 0}
    panel = _panel("bargauge", title, description, series, defaults, options, instant=True)
    return _sized(panel, width=width, height=CHART_HEIGHT)


def table(  # noqa: PLR0913 - as few as a table has properties
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
    defaults = _defaults("none", empty, {"mode": "thresholds"}, NEUTRAL) | {"custom": custom}
    overrides = [*map(_cells, filter(lambda column: column.title, columns)), *_linked(links or {})]
    panel = _panel("table", title, description, series, defaults, options, overrides=overrides, form="table")
    panel["transformations"] = _merged(labels, columns)
    return _sized(panel, width=width, height=height)


def metrics_of(queries: Iterable[str]) -> list[str]:
    """Return the families that queries name, in order."""
    names = (name for query in queries for name in _SELECTED.findall(query))
    return list(dict.fromkeys(_PART_OF_HISTOGRAM.sub("", name) for name in names))


def _panel(  # noqa: PLR0913, PLR0917 - the parts of a panel
    kind: str,
    title: str,
    description: str,
    series: Mapping[str, str],
    defaults: Json,
    options: Json,
    *,
    overrides: Sequence[Json] = (),
    instant: bool = False,
    form: str = "time_series",
) -> Json:
    instant = instant or form == "table"
    targets = [
        _target(ref, legend, query, form=form, instant=instant)
        for ref, (legend, query) in zip(_REF_IDS, series.items(), strict=False)
    ]
    return {
        "type": kind,
        "title": title,
        "description": f"{description}\n\n{_named(series.values())}",
        "datasource": dict(DATASOURCE),
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "options": options,
        "targets": targets,
    }


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
    metrics = metrics_of(queries)
    return f"Metric{'s' if len(metrics) > 1 else ''}: {', '.join(f'`{name}`' for name in metrics)}"


def _defaults(unit: str, empty: str, color: Json, steps: Steps) -> Json:
    return {
        "color": color,
        "mappings": [_special("nan", NO_TRAFFIC, "text", 0)],
        "noValue": empty,
        "thresholds": thresholds(steps),
        "unit": unit,
    }


def _tile_mappings(zero: str, empty: str, *, judged: bool) -> list[Json]:
    """Return what stands for values that are no measurement, and so get no judgement: none, NaN, a time of 0."""
    color = "transparent" if judged else "text"
    nothing = [_special("nan", NO_TRAFFIC, color, 0), _special("null", empty, color, 1)]
    return nothing + ([{"type": "value", "options": {"0": {"color": color, "index": 2, "text": zero}}}] if zero else [])


def _special(match: str, text: str, color: str, index: int) -> Json:
    return {"type": "special", "options": {"match": match, "result": {"color": color, "index": index, "text": text}}}


def _cells(column: Column) -> Json:
    properties: list[Json] = [{"id": "unit", "value": column.unit}]
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
    values = [f"Value #{ref}" if len(columns) > 1 else "Value" for ref, _ in zip(_REF_IDS, columns, strict=False)]
    titles = {value: column.title for value, column in zip(values, columns, strict=True)}
    shown = {**labels, **{value: title for value, title in titles.items() if title}}
    hidden = ["Time", *(value for value, title in titles.items() if not title)]
    organize = {
        "excludeByName": dict.fromkeys(hidden, True),
        "indexByName": {name: index for index, name in enumerate(shown)},
        "renameByName": shown,
    }
    return [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}]


def _sized(panel: Json, *, width: int, height: int) -> Json:
    return panel | {"gridPos": {"w": width, "h": height, "x": 0, "y": 0}}
