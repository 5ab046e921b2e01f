"""Pages in vLLM's form whose values move from one scrape to the next.

A page comes as a rotation of versions: counters and histograms grow, gauges go
up and down, `_created` stays. So no scrape sees the text of the one before it.
The values are seeded: every run has the same pages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from bench.families import DEFAULT, OPTIONAL, PROCESS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.families import Family

__all__ = ["SIZES", "Size", "rotation"]

VERSIONS: Final = 8
_STARTED: Final = 1.7954686833e9
_MODEL: Final = "meta-llama/Llama-3.1-8B-Instruct"


@dataclass(frozen=True, slots=True)
class Size:
    """How large a page is: so many models, each with these families."""

    models: int
    families: tuple[Family, ...]


SIZES: Final[Mapping[str, Size]] = {
    "small": Size(1, DEFAULT),
    "medium": Size(10, DEFAULT + OPTIONAL),
    "large": Size(100, DEFAULT + OPTIONAL),
}


def rotation(size: Size, *, versions: int = VERSIONS) -> list[bytes]:
    """Render the versions of a page, as an engine under load shows them one after another."""
    engine = _Engine(size)
    registry = CollectorRegistry()
    registry.register(engine)
    pages = []
    for _ in range(versions):
        engine.move()
        pages.append(generate_latest(registry))
    return pages


@dataclass(slots=True)
class _Series:
    """The state of one series: a value, or a histogram's buckets and sum."""

    family: Family
    labels: dict[str, str]
    random: Random
    created: float
    value: float = 0.0
    counts: list[int] = field(default_factory=list)

    def move(self, times: int = 1) -> None:
        """Let what happens between two scrapes happen `times` over."""
        family, random = self.family, self.random
        if family.kind == "constant":
            self.value = family.scale
        elif family.kind == "gauge":
            self.value = random.random() if family.scale == 1 else float(random.randrange(int(family.scale)))
        elif family.kind == "counter":
            self.value += times * random.randrange(int(family.scale) + 1)
        else:
            self._observe(times)

    def _observe(self, times: int) -> None:
        bounds = self.family.buckets
        self.counts = self.counts or [0] * (len(bounds) + 1)
        middle, spread = len(bounds) / 2, len(bounds) / 5
        for _ in range(self.random.randrange(int(self.family.scale) // 4 + 2)):
            bucket = min(max(round(self.random.gauss(middle, spread)), 0), len(bounds))
            bound = bounds[min(bucket, len(bounds) - 1)]
            self.counts[bucket] += 4 * times
            self.value += 4 * times * (bound * self.random.random() if "seconds" in self.family.name else bound // 2)

    def add_to(self, metric: Metric) -> None:
        """Add the samples as prometheus_client's own instruments order them."""
        name, labels = self.family.name, self.labels
        if self.family.kind == "histogram":
            bounds = [*map(floatToGoString, self.family.buckets), "+Inf"]
            for bound, count in zip(bounds, accumulate(self.counts), strict=True):
                metric.add_sample(f"{name}_bucket", {**labels, "le": bound}, count)
            metric.add_sample(f"{name}_count", labels, sum(self.counts))
            metric.add_sample(f"{name}_sum", labels, self.value)
        else:
            metric.add_sample(f"{name}_total" if self.family.kind == "counter" else name, labels, self.value)
        if self.family.kind in ("counter", "histogram") and name.startswith(("vllm:", "http_")):
            metric.add_sample(f"{name}_created", labels, self.created)


class _Engine(Collector):
    """All series of a page; a collector, so that prometheus_client writes them."""

    def __init__(self, size: Size) -> None:
        random = Random(size.models)
        models = [{"engine": "0", "model_name": f"{_MODEL}-{number:03d}"} for number in range(size.models)]
        self._families = [
            *((family, self._series(family, [{}], random)) for family in PROCESS),
            *((family, self._series(family, models, random)) for family in size.families),
        ]
        for _, series in self._families:
            for one in series:
                one.move(times=500)  # it has been up for a while

    @staticmethod
    def _series(family: Family, models: list[dict[str, str]], random: Random) -> list[_Series]:
        return [
            _Series(family, model | labels, random, _STARTED + random.random())
            for model in models
            for labels in family.labels
        ]

    def move(self) -> None:
        """Let time pass until the next scrape."""
        for _, series in self._families:
            for one in series:
                one.move()

    def collect(self) -> Iterator[Metric]:
        """Yield the families as they are now."""
        for family, series in self._families:
            metric = Metric(family.name, family.help, "gauge" if family.kind == "constant" else family.kind)
            for one in series:
                one.add_to(metric)
            yield metric
