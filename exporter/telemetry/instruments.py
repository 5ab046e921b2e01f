"""Counters, gauges and histograms that keep their own exposition text.

prometheus_client renders about 5 us a line, which for the runtime's own series
would cost more than the engine's whole page. These keep the text of every
child and write anew only what changed since the last scrape (docs/adr/0003).

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
    """One family of children by label values; thread-safe."""

    def __init__(self, description: Description) -> None:
        self.description = description
        self._lock = Lock()
        self._texts: dict[tuple[str, ...], str] = {}
        self._stale: dict[tuple[str, ...], None] = {}  # ordered, unlike a set
        self._text = header_of(description)

    def family(self) -> TextFamily:
        """Return the family as it stands now."""
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
    """A counter or a gauge."""

    def __init__(self, description: Description) -> None:
        """Start without children; `set` or `add` makes them."""
        super().__init__(description)
        self._values: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, amount: float = 1.0) -> None:
        """Add to the child of these label values; `amount=0` makes it exist."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0.0) + amount
            self._stale[labels] = None

    def set(self, *labels: str, value: float) -> None:
        """Set the child of these label values."""
        with self._lock:
            self._values[labels] = value
            self._stale[labels] = None

    def _render(self, key: tuple[str, ...]) -> str:
        return f"{series(self.description.name, self.description.labels, key)} {self._values[key]!r}\n"


class Histogram(_Instrument):
    """A histogram with fixed bounds."""

    def __init__(self, description: Description, bounds: Sequence[float] = LATENCY_BUCKETS) -> None:
        """Take the upper bounds, ascending, without +Inf."""
        super().__init__(description)
        self._bounds = bounds
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        self._series: dict[tuple[str, ...], list[str]] = {}

    def make(self, *labels: str) -> None:
        """Make the child of these label values exist, with nothing observed."""
        with self._lock:
            self._child(labels)

    def observe(self, *labels: str, value: float) -> None:
        """Count one observation."""
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
