"""What panels look like: neutral blue for facts, green to red only where a tile judges, one colour for each quantile.

Colours are Grafana's names, which adapt to the light and the dark theme.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BAD_IF_ANY",
    "BY_NAME",
    "FULL_IS_BAD",
    "LEGENDS",
    "NEUTRAL",
    "NO_TRAFFIC",
    "SHARE_IS_GOOD",
    "STATUSES",
    "WORDS",
    "Json",
    "Steps",
    "fixed",
    "legend_overrides",
    "thresholds",
]

Json = dict[str, Any]
# From which value on a colour holds; the first holds below all of them.
Steps = tuple[tuple[float | None, str], ...]

NEUTRAL: Final[Steps] = ((None, "blue"),)
BAD_IF_ANY: Final[Steps] = ((None, "green"), (1, "red"))
SHARE_IS_GOOD: Final[Steps] = ((None, "red"), (0.95, "orange"), (0.99, "green"))
FULL_IS_BAD: Final[Steps] = ((None, "green"), (0.8, "orange"), (0.95, "red"))

# What a quantile of nothing is, and how a latency of 0 reads: no request came.
NO_TRAFFIC: Final = "No traffic"
BY_NAME: Final[Json] = {"mode": "palette-classic-by-name"}

# Legends that have one colour on every dashboard.
LEGENDS: Final = {"p50": "light-blue", "p95": "orange", "p99": "purple", "mean": "text"}

# The same for words that are a legend: states, outcomes, sources. Behind another word they would all be one green.
WORDS: Final = {
    "done|loaded|stop|in_sync": "green",
    "hf": "blue",
    "s3": "purple",
    "obs": "orange",
    "pvc": "light-green",
}

# The same for words that a legend ends in: what is not as it should be, and what is on its way.
STATUSES: Final = {
    "failed|error|lost|5..": "red",
    "engine_unavailable|abort|aborted|cancelled|unloading|4..": "orange",
    "length|repaired|loading|downloading|3..": "blue",
    "pending": "text",
    "repetition": "yellow",
}


def fixed(color: str) -> Json:
    """Return the setting of one colour, whatever the value."""
    return {"mode": "fixed", "fixedColor": color}


def thresholds(steps: Steps) -> Json:
    """Return the setting of colours by value."""
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]}


def legend_overrides(legends: Mapping[str, str]) -> list[Json]:
    """Return the colours of those legends that have one everywhere; the mean is dashed."""
    literal = [
        _override("byName", name, color, dashed=name == "mean") for name, color in LEGENDS.items() if name in legends
    ]
    if any("{{" in legend for legend in legends):
        literal += [_override("byRegexp", f"/^({words})$/", color) for words, color in WORDS.items()]
        literal += [_override("byRegexp", rf"/(^|\s)({words})$/", color) for words, color in STATUSES.items()]
    return literal


def _override(matcher: str, options: str, color: str, *, dashed: bool = False) -> Json:
    properties: list[Json] = [{"id": "color", "value": fixed(color)}]
    if dashed:
        properties.append({"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 6]}})
    return {"matcher": {"id": matcher, "options": options}, "properties": properties}
