"""Panels: each builder says what to show and returns the panel's JSON, without id and place.

`series` maps a legend to its query; `{{label}}` in a legend stands for the label's value. A description says what the
number means and what to do about it; the metrics that are queried are added to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana.frame import defaults, panel, sized, special
from grafana.style import BY_NAME, NEUTRAL, NO_TRAFFIC, fixed, legend_overrides

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grafana.style import Json, Steps

__all__ = ["CHART_HEIGHT", "bargauge", "heatmap", "stat", "timeseries"]

# A chart's height, in which a legend with three names is whole.
CHART_HEIGHT: Final = 9
_TILE_TEXT: Final = 28
# Labels that may have many values: their legend is a table, with numbers to find the odd one by.
_WITHOUT_END: Final = ("{{pod}}", "{{model_name}}", "{{route}}")


def stat(
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
        "colorMode": "background" if judge else "none",
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
    config = defaults(unit, empty, color, judge or NEUTRAL) | {
        "mappings": _tile_mappings(zero, empty, judged=bool(judge))
    }
    made = panel("stat", title, description, {title: query}, config, options, instant=instant)
    return sized(made, width=4, height=4)


def timeseries(
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
    many = any(label in legend for legend in series for label in _WITHOUT_END)
    several = len(series) > 1 or any("{{" in legend for legend in series)
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
    options = {"legend": _legend(several=several, many=many), "tooltip": {"mode": "multi", "sort": "desc"}}
    color = BY_NAME if several else fixed("blue")
    config = defaults(unit, empty, color, NEUTRAL) | {"custom": custom, "min": 0} | ({"max": 1} if share else {})
    overrides = legend_overrides(series)
    return sized(
        panel("timeseries", title, description, series, config, options, overrides=overrides),
        width=width,
        height=CHART_HEIGHT,
    )


def _legend(*, several: bool, many: bool) -> Json:
    """Return a legend for one line, for several, or for as many as there are pods or models."""
    return {
        "calcs": ["mean", "max"] if many else [],
        "displayMode": "table" if many else "list",
        "placement": "bottom",
        "showLegend": several,
        **({"sortBy": "Max", "sortDesc": True} if many else {}),
    }


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
    config = {"custom": {"scaleDistribution": {"type": "linear"}}, "noValue": NO_TRAFFIC, "unit": unit}
    made = panel("heatmap", title, description, {"{{le}}": buckets}, config, options, form="heatmap")
    return sized(made, width=width, height=CHART_HEIGHT)


def bargauge(title: str, unit: str, description: str, series: Mapping[str, str], *, empty: str, width: int = 8) -> Json:
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
    config = defaults(unit, empty, fixed("blue"), NEUTRAL) | {"max": 1, "min": 0}
    made = panel("bargauge", title, description, series, config, options, instant=True)
    return sized(made, width=width, height=CHART_HEIGHT)


def _tile_mappings(zero: str, empty: str, *, judged: bool) -> list[Json]:
    """Return what stands for values that are no measurement, and so get no judgement: none, NaN, a time of 0."""
    color = "transparent" if judged else "text"
    nothing = [special("nan", NO_TRAFFIC, color, 0), special("null", empty, color, 1)]
    return nothing + ([{"type": "value", "options": {"0": {"color": color, "index": 2, "text": zero}}}] if zero else [])
