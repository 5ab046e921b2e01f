"""The last minute of scrapes, and what the demo shows of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal

from demo.scrape import Histogram
from exporter.telemetry.names import EXTENDED, STANDARD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demo.scrape import Snapshot

__all__ = ["METRICS", "TREND_LENGTH", "WINDOW_SECONDS", "History", "Metric", "Reading"]

WINDOW_SECONDS: Final = 30.0
TREND_LENGTH: Final = 60
_SLACK_SECONDS: Final = 0.5

_TOKENS, _WAITING, _TTFT, _TPOT, _E2E = STANDARD
_RUNNING, _KV_CACHE = EXTENDED[0], EXTENDED[2]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that is shown.

    Attributes:
        name: Its name on the runtime's page.
        short: What it is called where room is scarce.
        kind: A counter seen as a rate, a gauge, a gauge from 0 to 1, or a histogram of seconds.
    """

    name: str
    short: str
    kind: Literal["rate", "level", "ratio", "latency"]


METRICS: Final = (
    Metric(_TOKENS, "tokens/s", "rate"),
    Metric(_WAITING, "waiting", "level"),
    Metric(_RUNNING, "running", "level"),
    Metric(_KV_CACHE, "KV cache", "ratio"),
    Metric(_TTFT, "TTFT", "latency"),
    Metric(_TPOT, "TPOT", "latency"),
    Metric(_E2E, "e2e", "latency"),
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What is shown of a metric; None is not known yet.

    Attributes:
        metric: Which.
        cells: Mean, p50 and p95 of a latency; the last value, mean and maximum of another.
        trend: The p95 or the value, scrape by scrape, oldest first.
        first: How many scrapes there were before the trend begins.
    """

    metric: Metric
    cells: tuple[float | None, float | None, float | None]
    trend: tuple[float | None, ...]
    first: int = 0


class History:
    """What the scrapes said: the whole of the window, and a trend of the last minute."""

    def __init__(self) -> None:
        self._window: deque[Snapshot] = deque()
        self._trends = {metric.name: deque[float | None](maxlen=TREND_LENGTH) for metric in METRICS}
        self._first: Snapshot | None = None
        self.scrapes = 0

    def add(self, snapshot: Snapshot) -> None:
        """Take one more scrape."""
        self._first = self._first or snapshot
        self._window.append(snapshot)
        while self._window[0].time < snapshot.time - WINDOW_SECONDS - _SLACK_SECONDS:
            self._window.popleft()
        self.scrapes += 1
        if self.scrapes == 1:
            # A rate needs two scrapes: with the second one all trends begin, in the same column.
            return
        for metric in METRICS:
            self._trends[metric.name].append(_point(metric, self._window))

    def readings(self) -> tuple[Reading, ...]:
        """Return what to show of each metric."""
        before = max(1, self.scrapes - TREND_LENGTH)
        return tuple(
            Reading(metric, _cells(metric, self._window), tuple(self._trends[metric.name]), before)
            for metric in METRICS
        )

    @property
    def tokens(self) -> float:
        """How many tokens were generated while it was watched."""
        return self._window[-1].values.get(_TOKENS, 0.0) - self._first.values.get(_TOKENS, 0.0) if self._first else 0.0

    @property
    def requests(self) -> float:
        """How many requests were finished while it was watched."""
        return _between(_E2E, self._first, self._window[-1]).count if self._first else 0.0


def _point(metric: Metric, window: Sequence[Snapshot]) -> float | None:
    if metric.kind == "latency":
        return _latency(metric, window)[-1]
    return next(reversed(_series(metric, window)), None)


def _cells(metric: Metric, window: Sequence[Snapshot]) -> tuple[float | None, float | None, float | None]:
    if metric.kind == "latency":
        return _latency(metric, window)
    series = _series(metric, window)
    known = [value for value in series if value is not None]
    return (series[-1], _mean(known), max(known)) if known else (None, None, None)


def _latency(metric: Metric, window: Sequence[Snapshot]) -> tuple[float | None, float | None, float | None]:
    if not window:
        return None, None, None
    seen = _between(metric.name, window[0], window[-1])
    return seen.mean, seen.quantile(0.5), seen.quantile(0.95)


def _series(metric: Metric, window: Sequence[Snapshot]) -> list[float | None]:
    if metric.kind == "rate":
        return [_rate(metric.name, older, newer) for older, newer in pairwise(window)]
    return [snapshot.values.get(metric.name) for snapshot in window]


def _rate(name: str, older: Snapshot, newer: Snapshot) -> float | None:
    if name not in older.values or name not in newer.values:
        return None
    # Less than before: the engine began anew, and counted from zero.
    gained = newer.values[name] - older.values[name]
    return (gained if gained >= 0 else newer.values[name]) / (newer.time - older.time)


def _between(name: str, older: Snapshot, newer: Snapshot) -> Histogram:
    nothing = Histogram()
    return newer.histograms.get(name, nothing).since(older.histograms.get(name, nothing))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
