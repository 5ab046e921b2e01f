"""Short ways to write a page's families down, and what must come of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from simulators.versions.rendering import Family
from simulators.versions.table import EXTENDED, ORDERED

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.versions.rendering import Labels

__all__ = [
    "E2E",
    "REASONS",
    "TOKENS",
    "TPOT",
    "TTFT",
    "counter",
    "expected",
    "gauge",
    "histogram",
    "labelled",
    "renamed",
]

# The bounds that most engines took over from vLLM, and the reasons to finish.
TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TPOT = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
E2E = (1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0)
TOKENS = (10.0, 50.0, 100.0, 500.0, 1000.0)
REASONS = tuple({"finished_reason": reason} for reason in ("stop", "length"))


def gauge(name: str, *series: Labels) -> Family:
    return Family(name, "gauge", series or ({},))


def counter(name: str, *series: Labels) -> Family:
    return Family(name, "counter", series or ({},))


def histogram(name: str, bounds: tuple[float, ...], *series: Labels) -> Family:
    return Family(name, "histogram", series or ({},), bounds)


def labelled(labels: Labels, *families: Family) -> tuple[Family, ...]:
    """Put the labels that all series of an engine have on each of them."""
    return tuple(replace(family, series=tuple({**labels, **extra} for extra in family.series)) for family in families)


def renamed(rename: Callable[[str], str], families: tuple[Family, ...]) -> tuple[Family, ...]:
    return tuple(replace(family, name=rename(family.name)) for family in families)


def expected(**sources: str) -> dict[str, str | None]:
    none: dict[str, str | None] = dict.fromkeys(ORDERED + EXTENDED)
    return none | {f"kthena:{name}": source for name, source in sources.items()}
