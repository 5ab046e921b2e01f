"""Families with made-up values, written as the engines' client libraries write them.

A value depends on nothing but the series' name and labels, so two families
never look alike and a page is the same at every run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from typing import TYPE_CHECKING, TypeAlias
from zlib import crc32

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Family", "Labels", "plain_page", "python_page"]

Labels: TypeAlias = Mapping[str, str]
_Sample: TypeAlias = tuple[str, Labels, float]

_CREATED = 1.79e9


@dataclass(frozen=True, slots=True)
class Family:
    """One family of one page.

    Attributes:
        name: The name as in the TYPE line.
        kind: The type as in the TYPE line.
        series: The labels of each series.
        bounds: Upper bounds of a histogram, without +Inf.
    """

    name: str
    kind: str
    series: tuple[Labels, ...] = ({},)
    bounds: tuple[float, ...] = ()


class _Families:
    """What `generate_latest` reads: families in their order, without a registry."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


def python_page(families: Iterable[Family], *, created: bool = False, multiprocess: bool = False) -> bytes:
    """Write a page as prometheus_client does.

    Args:
        families: The families, in page order.
        created: With the `_created` gauges of counters and histograms.
        multiprocess: As from several processes' files: one HELP text for all,
            and the sum of a histogram before its buckets.
    """
    metrics = []
    for family in families:
        name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
        metric = Metric(name, "Multiprocess metric" if multiprocess else _help(family), family.kind)
        for labels in family.series:
            samples = list(_samples(family, labels))
            if multiprocess and family.kind == "histogram":
                samples = [samples[-1], *samples[:-1]]
            if created and family.kind != "gauge":
                samples.append((f"{name}_created", labels, _CREATED))
            for sample in samples:
                metric.add_sample(sample[0], dict(sample[1]), sample[2])
        metrics.append(metric)
    return generate_latest(_Families(metrics))


def plain_page(families: Iterable[Family], *, separator: str = "") -> bytes:
    """Write a page as the libraries of C++ and Rust do: names as they are, `le` last, integers bare."""
    blocks = []
    for family in families:
        lines = [f"# HELP {family.name} {_help(family)}", f"# TYPE {family.name} {family.kind}"]
        lines += [_line(*sample) for labels in family.series for sample in _samples(family, labels)]
        blocks.append("\n".join(lines) + "\n")
    return separator.join(blocks).encode()


def _line(name: str, labels: Labels, value: float) -> str:
    shown = {label: content.removesuffix(".0") if label == "le" else content for label, content in labels.items()}
    text = ",".join(f'{label}="{content}"' for label, content in shown.items())
    return f"{name}{{{text}}} {value:.10g}" if text else f"{name} {value:.10g}"


def _help(family: Family) -> str:
    return family.name.rpartition(":")[2].replace("_", " ").capitalize() + "."


def _samples(family: Family, labels: Labels) -> Iterator[_Sample]:
    """Yield the samples of one series."""
    if family.kind == "histogram":
        yield from _histogram(family, labels)
    else:
        yield family.name, labels, _value(family, labels)


def _value(family: Family, labels: Labels) -> float:
    seed = crc32(f"{family.name}{sorted(labels.items())}".encode())
    if family.kind == "counter":
        return float(seed % 900_000 + 1)
    is_share = family.name.endswith(("_perc", "_usage", "_rate", "_utilization")) or "fraction" in labels.values()
    return seed % 1000 / 1000 if is_share else float(seed % 200 + 1)


def _histogram(family: Family, labels: Labels) -> Iterator[_Sample]:
    """Yield buckets, count and sum; each bucket's observations lie at its upper bound."""
    seed = crc32(f"{family.name}{sorted(labels.items())}".encode())
    bounds = [*family.bounds, inf]
    counts = [(seed >> i % 24) % 17 for i in range(len(family.bounds))] + [0]
    for bound, total in zip(bounds, accumulate(counts), strict=True):
        yield f"{family.name}_bucket", {**labels, "le": "+Inf" if bound == inf else str(bound)}, float(total)
    yield f"{family.name}_count", labels, float(sum(counts))
    total_time = sum(bound * count for bound, count in zip(family.bounds, counts, strict=False))
    yield f"{family.name}_sum", labels, round(total_time, 6)
