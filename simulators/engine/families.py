"""A table of metric families turned into prometheus_client objects.

Both engines declare their families the same way, as rows of a table; what differs is whether
children exist from the start (one process) or from their first observation (multiprocess mode).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from prometheus_client import Counter, Gauge, Histogram, Summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client import CollectorRegistry

Instrument: TypeAlias = Counter | Gauge | Histogram | Summary


@dataclass(frozen=True, slots=True)
class Family:
    """One row: how the engine declares a family.

    Attributes:
        kind: The prometheus_client class.
        name: The declared name, for counters without ``_total``.
        help: The HELP text.
        labels: Label names; those the engine knows as constants are filled in by `Families`.
        buckets: Upper bounds, for histograms.
        presets: Values of the other labels whose children exist before any observation.
    """

    kind: type[Counter | Gauge | Histogram | Summary]
    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    presets: tuple[tuple[str, ...], ...] = ()


class Families:
    """The instruments of one engine, addressed by family name and the labels that vary."""

    def __init__(
        self,
        registry: CollectorRegistry,
        table: Iterable[Family],
        constants: Mapping[str, str],
        *,
        eager: bool,
    ) -> None:
        """Declare every family of `table`.

        Args:
            registry: Where the families are exposed.
            table: The families, in page order.
            constants: Labels that have one value for the life of the engine.
            eager: Create the children of families without varying labels at once.
        """
        self._constants = dict(constants)
        self._parents: dict[str, Instrument] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._children: dict[tuple[str, ...], Instrument] = {}
        for family in table:
            self._parents[family.name] = _declare(family, registry)
            self._names[family.name] = family.labels
            varies = any(label not in self._constants for label in family.labels)
            for values in family.presets or ([()] if eager and not varies else ()):
                self._child(family.name, values)

    def add(self, name: str, amount: float = 1, *values: str) -> None:
        """Increment a counter."""
        child = self._child(name, values)
        assert isinstance(child, Counter), name
        child.inc(amount)

    def set(self, name: str, value: float, *values: str) -> None:
        """Set a gauge."""
        child = self._child(name, values)
        assert isinstance(child, Gauge), name
        child.set(value)

    def observe(self, name: str, value: float, *values: str) -> None:
        """Observe a value in a histogram or summary."""
        child = self._child(name, values)
        assert isinstance(child, (Histogram, Summary)), name
        child.observe(value)

    def _child(self, name: str, values: tuple[str, ...]) -> Instrument:
        key = (name, *values)
        child = self._children.get(key)
        if child is None:
            names = self._names[name]
            parent = self._parents[name]
            varying = iter(values)
            fixed = self._constants
            labels = [fixed[name] if name in fixed else next(varying) for name in names]
            child = parent.labels(*labels) if names else parent
            self._children[key] = child
        return child


def _declare(family: Family, registry: CollectorRegistry) -> Instrument:
    if family.kind is Histogram:
        return Histogram(family.name, family.help, family.labels, registry=registry, buckets=family.buckets)
    return family.kind(family.name, family.help, family.labels, registry=registry)
