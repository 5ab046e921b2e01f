"""One scrape of the runtime: what it said, as numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Final
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.samples import Sample

__all__ = ["Histogram", "Snapshot", "final_url", "is_ready", "read_snapshot", "scrape"]

_TIMEOUT_SECONDS: Final = 2.0

# All is on this machine: a proxy of the environment has no part in it.
_opener: Final = build_opener(ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Histogram:
    """What a histogram counted.

    Attributes:
        buckets: Observations up to each bound, all smaller ones included.
        total: The sum of what was observed.
    """

    buckets: Mapping[float, float] = field(default_factory=dict)
    total: float = 0.0

    @property
    def count(self) -> float:
        """How many observations there were."""
        return self.buckets.get(math.inf, 0.0)

    @property
    def mean(self) -> float | None:
        """The mean, where anything was observed."""
        return self.total / self.count if self.count > 0 else None

    def since(self, older: Histogram) -> Histogram:
        """Return what came after `older`; all of it when the engine began anew."""
        if older.count > self.count:
            return self
        buckets = {bound: count - older.buckets.get(bound, 0.0) for bound, count in self.buckets.items()}
        return Histogram(buckets, self.total - older.total)

    def quantile(self, share: float) -> float | None:
        """Estimate a quantile as PromQL's histogram_quantile does; None where nothing is known."""
        if self.count <= 0:
            return None
        rank, lower, below = share * self.count, 0.0, 0.0
        finite = sorted((bound, count) for bound, count in self.buckets.items() if math.isfinite(bound))
        for bound, count in finite:
            if count >= rank and count > below:
                return lower + (bound - lower) * (rank - below) / (count - below)
            lower, below = bound, count
        return lower if finite else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One page of the runtime.

    Attributes:
        time: When it was asked for, in seconds of a monotonic clock.
        values: Counters and gauges by name, all series of a name added up.
        histograms: Histograms by name, likewise.
    """

    time: float
    values: Mapping[str, float] = field(default_factory=dict)
    histograms: Mapping[str, Histogram] = field(default_factory=dict)


def _get(url: str) -> tuple[bytes, str]:
    """Return the body of a page and the URL it has in the end.

    Raises:
        OSError: There is no answer in time, or it is an error.
    """
    with _opener.open(url, timeout=_TIMEOUT_SECONDS) as answer:
        return answer.read(), answer.url


def is_ready(url: str) -> bool:
    """Whether a page answers, with no error."""
    try:
        _get(url)
    except OSError:
        return False
    return True


def final_url(url: str) -> str:
    """Return where a page's redirects lead."""
    try:
        return _get(url)[1]
    except HTTPError as error:
        return error.url


def scrape(runtime_url: str, names: Iterable[str]) -> Snapshot:
    """Ask the runtime for these metrics and no others.

    Raises:
        OSError: There is no answer in time, or it is an error.
    """
    asked = monotonic()
    body, _ = _get(f"{runtime_url}/metrics?{urlencode([('name[]', name) for name in names])}")
    return read_snapshot(body.decode(), time=asked)


def read_snapshot(page: str, *, time: float) -> Snapshot:
    """Read the text format."""
    values: dict[str, float] = {}
    histograms: dict[str, Histogram] = {}
    for family in text_string_to_metric_families(page):
        if family.type == "histogram":
            histograms[family.name] = _histogram(family.samples)
        else:
            for sample in family.samples:
                values[sample.name] = values.get(sample.name, 0.0) + sample.value
    return Snapshot(time, values, histograms)


def _histogram(samples: Iterable[Sample]) -> Histogram:
    buckets: dict[float, float] = {}
    total = 0.0
    for sample in samples:
        if sample.name.endswith("_bucket"):
            bound = float(sample.labels["le"])
            buckets[bound] = buckets.get(bound, 0.0) + sample.value
        elif sample.name.endswith("_sum"):
            total += sample.value
    return Histogram(buckets, total)
