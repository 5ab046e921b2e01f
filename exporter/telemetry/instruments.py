"""Counters, gauges and histograms that keep their own exposition text (docs/adr/0003).

prometheus_client needs about 6 µs to render a line. For the runtime's 130 series,
that would cost more than the engine's whole page of 60 KB. These instruments keep
the text of every child, and render only the children that changed since the last
scrape.

    # HELP kthena_runtime_http_requests_total HTTP requests answered, by ...
    # TYPE kthena_runtime_http_requests_total counter
    kthena_runtime_http_requests_total{route="/metrics",method="GET",status="200"} 1.0
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cache
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Final

from exporter.page.family import TextFamily
from exporter.page.text_format import escape_help, header, series

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.telemetry.names import Description

__all__ = ["LATENCY_BUCKETS", "Histogram", "Value", "header_of"]

LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@cache
def header_of(description: Description) -> bytes:
    """Return the HELP and TYPE lines."""
    return header(description.name.encode(), description.kind.encode(), escape_help(description.help))


class _Instrument:
    """One family with a child for each combination of label values; safe for threads.

    Children are exported in the order in which they were made.
    """

    def __init__(self, description: Description) -> None:
        self.description = description
        self._lock = Lock()
        self._texts: dict[tuple[str, ...], str] = {}
        # Children that changed since the last scrape. A dict keeps their order, a set would not.
        self._stale: dict[tuple[str, ...], None] = {}
        self._text = header_of(description)

    def family(self) -> TextFamily:
        """Return the family with its current values; later changes do not affect it."""
        with self._lock:
            if self._stale:
                for key in self._stale:
                    self._texts[key] = self._render(key)
                self._stale.clear()
                self._text = header_of(self.description) + "".join(self._texts.values()).encode()
            return TextFamily(self.description.name, self.description.kind, self._text)

    def _render(self, key: tuple[str, ...]) -> str:
        raise NotImplementedError


class Value(_Instrument):
    """A counter or a gauge, according to its description; `set` and `add` make its children.

    kthena_runtime_kv_event_gaps_total 0.0
    """

    def __init__(self, description: Description) -> None:
        super().__init__(description)
        self._values: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, amount: float = 1.0) -> None:
        """Add to the child with these label values; `amount=0` only makes it exist."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0.0) + amount
            self._stale[labels] = None

    def set(self, *labels: str, value: float) -> None:
        """Set the child with these label values."""
        with self._lock:
            self._values[labels] = value
            self._stale[labels] = None

    def _render(self, key: tuple[str, ...]) -> str:
        return f"{series(self.description.name, self.description.labels, key)} {self._values[key]!r}\n"


class Histogram(_Instrument):
    """A histogram with fixed buckets.

    kthena_runtime_http_request_duration_seconds_bucket{route="/metrics",le="0.001"} 2.0
    kthena_runtime_http_request_duration_seconds_bucket{route="/metrics",le="+Inf"} 3.0
    kthena_runtime_http_request_duration_seconds_sum{route="/metrics"} 0.012
    kthena_runtime_http_request_duration_seconds_count{route="/metrics"} 3.0
    """

    def __init__(self, description: Description, bounds: Sequence[float] = LATENCY_BUCKETS) -> None:
        """Use the upper bounds `bounds`, ascending and without +Inf."""
        super().__init__(description)
        self._bounds = bounds
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        self._series: dict[tuple[str, ...], list[str]] = {}

    def make(self, *labels: str) -> None:
        """Make the child with these label values exist, without an observation."""
        with self._lock:
            self._child(labels)

    def observe(self, *labels: str, value: float) -> None:
        """Count one observation; a value equal to a bound belongs to its bucket."""
        with self._lock:
            self._child(labels)[bisect_left(self._bounds, value)] += 1
            self._sums[labels] += value

    def _child(self, labels: tuple[str, ...]) -> list[int]:
        self._stale[labels] = None
        if labels not in self._counts:
            self._counts[labels] = [0] * (len(self._bounds) + 1)
            self._sums[labels] = 0.0
            self._series[labels] = self._names(labels)
        return self._counts[labels]

    def _names(self, labels: tuple[str, ...]) -> list[str]:
        name, names = self.description.name, self.description.labels
        bounds = [*map(repr, self._bounds), "+Inf"]
        buckets = [series(f"{name}_bucket", (*names, "le"), (*labels, bound)) for bound in bounds]
        return [*buckets, series(f"{name}_sum", names, labels), series(f"{name}_count", names, labels)]

    def _render(self, key: tuple[str, ...]) -> str:
        counts = [float(count) for count in accumulate(self._counts[key])]
        values = [*counts, self._sums[key], counts[-1]]
        return "".join(f"{name} {value!r}\n" for name, value in zip(self._series[key], values, strict=True))
