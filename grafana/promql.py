"""PromQL from metric names, with what every query here heeds.

- A selector holds the variables of its dashboard; no series is queried without them.
- Counters become rates before they are added up, over `$__rate_interval`, or `$__range` where a table says so.
- A ratio divides sums, and is nothing rather than NaN while its denominator is 0.
- Engines have different bounds of buckets. To group by `engine` joins the engine's name from the runtime's own
  page, so that a quantile never mixes two of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from exporter.telemetry.names import ENGINE_INFO, Description
from grafana.series import ON_TARGET, TARGET, Regex, series

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PODS", "QUANTILES", "RANGE", "RATE", "SERIES", "Promql", "divide", "name_of", "when_idle"]

Metric: TypeAlias = Description | str

RATE: Final = "$__rate_interval"
RANGE: Final = "$__range"
QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

# How a group's parts are brought down to one series per target before the engine's name is joined.
_PER_TARGET: Final = {"sum": "sum", "max": "max", "count": "group"}


@dataclass(frozen=True, slots=True)
class Promql:
    """Queries over one choice of series.

    Every method takes labels to group `by`, and `where` what labels must be besides what was chosen.

    Attributes:
        chosen: What labels must be, mostly variables.
        window: What rates span.
        engine: Whether only series of the engines chosen by `$engine` count.
    """

    chosen: Mapping[str, str]
    window: str = RATE
    engine: bool = False

    def over(self, window: str) -> Promql:
        """Return the same with rates that span `window`."""
        return replace(self, window=window)

    def of_engine(self) -> Promql:
        """Return the same for the engines chosen by `$engine`, in a row that is repeated for each."""
        return replace(self, engine=True)

    def raw(self, metric: Metric, **where: str) -> str:
        """Select the series of a metric."""
        return series(metric, **self.chosen, **where)

    def applied(self, function: str, metric: Metric, **where: str) -> str:
        """Apply a function such as `max_over_time` to the window."""
        return f"{function}({self.raw(metric, **where)}[{self.window}])"

    def total(self, operator: str, expression: str, *by: str) -> str:
        """Aggregate by labels; `engine` is the runtime's name of it, whatever the engine's own labels are."""
        if self.engine:
            chosen = PODS.over(self.window).applied("last_over_time", ENGINE_INFO, engine=Regex("$engine"))
            expression = f"{expression} and {ON_TARGET} {chosen}"
        if "engine" in by:
            labels = (*TARGET, *(label for label in by if label not in {"engine", *TARGET}))
            parts = f"{_PER_TARGET[operator]} by ({_names(labels)}) ({expression})"
            expression = f"{parts} * {ON_TARGET} group_left (engine) {self._engines()}"
        return f"{operator} by ({_names(by)}) ({expression})" if by else f"{operator}({expression})"

    def count(self, metric: Metric, *by: str, **where: str) -> str:
        """Count series."""
        return self.total("count", self.raw(metric, **where), *by)

    def sum(self, metric: Metric, *by: str, **where: str) -> str:
        """Add up a gauge."""
        return self.total("sum", self.raw(metric, **where), *by)

    def max(self, metric: Metric, *by: str, **where: str) -> str:
        """Return the largest of a gauge."""
        return self.total("max", self.raw(metric, **where), *by)

    def mean_of(self, metric: Metric, *by: str, **where: str) -> str:
        """Return the mean of a gauge over its series; of 0 and 1 it is a share."""
        return self.total("avg", self.raw(metric, **where), *by)

    def rate(self, metric: Metric, *by: str, **where: str) -> str:
        """Add up the rates of a counter."""
        return self.total("sum", self.applied("rate", metric, **where), *by)

    def increase(self, metric: Metric, *by: str, **where: str) -> str:
        """Add up what a counter grew by within the window."""
        return self.total("sum", self.applied("increase", metric, **where), *by)

    def ratio(self, part: Metric, whole: Metric, *by: str) -> str:
        """Divide one counter's rate by another's."""
        return divide(self.rate(part, *by), self.rate(whole, *by))

    def observed(self, histogram: Metric, *by: str) -> str:
        """Return how many observations a second a histogram gets."""
        return self.rate(f"{name_of(histogram)}_count", *by)

    def buckets(self, histogram: Metric, *by: str, **where: str) -> str:
        """Return how many observations a second fall into each bucket."""
        return self.rate(f"{name_of(histogram)}_bucket", "le", *by, **where)

    def mean(self, histogram: Metric, *by: str) -> str:
        """Return the mean of what a histogram observed."""
        name = name_of(histogram)
        return self.ratio(f"{name}_sum", f"{name}_count", *by)

    def quantile(self, which: float, histogram: Metric, *by: str) -> str:
        """Estimate a quantile of a histogram; nothing rather than NaN while nothing is observed."""
        return f"histogram_quantile({which}, {self.buckets(histogram, *by)}) >= 0"

    def slowest(self, which: float, histogram: Metric) -> str:
        """Estimate a quantile for each engine and return the largest; 0 while nothing is observed."""
        return when_idle(0, f"max({self.quantile(which, histogram, 'engine')})", self.observed(histogram))

    def latency(self, histogram: Metric) -> dict[str, str]:
        """Return the median, two high quantiles and the mean, by legend."""
        quantiles = {name: self.quantile(which, histogram) for name, which in QUANTILES.items()}
        return quantiles | {"mean": self.mean(histogram)}

    def _engines(self) -> str:
        """Return one series per target with its engine's name, of the last if it changed within the window."""
        return f"topk by ({_names(TARGET)}) (1, {PODS.over(self.window).applied('last_over_time', ENGINE_INFO)})"


# What the runtime's own metrics can be chosen by, and the standard ones.
PODS: Final = Promql({name: Regex(f"${name}") for name in ("job", "namespace", "pod")})
SERIES: Final = Promql({name: Regex(f"${name}") for name in ("job", "namespace", "model_name", "pod")})


def divide(part: str, whole: str) -> str:
    """Divide; the result is nothing rather than NaN where the denominator is 0."""
    return f"{part} / ({whole} > 0)"


def when_idle(value: int, expression: str, rate: str) -> str:
    """Return a value where the expression has none although the counter is there: idle stays told from broken."""
    return f"{expression} or {f'{value} + ' if value else ''}0 * {rate}"


def name_of(metric: Metric) -> str:
    """Return a metric's name."""
    return metric if isinstance(metric, str) else metric.name


def _names(labels: tuple[str, ...]) -> str:
    return ", ".join(labels)
