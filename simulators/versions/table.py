"""What a version table consists of, and how a page is made from it.

Every row of a table holds for a span of versions. `at` picks what holds for
one version; there is nothing else to know about versions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from simulators.versions.rendering import Family, Labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["EXTENDED", "ORDERED", "Spans", "Table", "VersionPage", "at"]

_T = TypeVar("_T")
# (first version, last version, what holds from the one to the other)
Spans: TypeAlias = tuple[tuple[str, str, _T], ...]

ORDERED = (
    "kthena:generation_tokens_total",
    "kthena:num_requests_waiting",
    "kthena:time_to_first_token_seconds",
    "kthena:time_per_output_token_seconds",
    "kthena:e2e_request_latency_seconds",
)
EXTENDED = (
    "kthena:num_requests_running",
    "kthena:prompt_tokens_total",
    "kthena:kv_cache_usage_ratio",
    "kthena:prefix_cache_queries_total",
    "kthena:prefix_cache_hits_total",
    "kthena:request_success_total",
)


@dataclass(frozen=True, slots=True)
class VersionPage:
    """The /metrics page of one version of an engine, and what must come of it.

    Attributes:
        engine: The engine, as `--engine` names it.
        version: The version, with its variant if it is not the plain one.
        text: The page.
        expected: For every standard name the sample name of its source, or
            `None` when this version has none.
        dropped: For a standard name, labels that mark samples of the source
            that must not come through.
        scale: For a standard name, the factor between source and twin, if not 1.
    """

    engine: str
    version: str
    text: bytes
    expected: Mapping[str, str | None]
    dropped: Mapping[str, tuple[Labels, ...]] = field(default_factory=dict)
    scale: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """All versions of an engine.

    Attributes:
        versions: The versions, oldest first.
        families: Family name to type, group and span.
        labels: Group to the labels of its series.
        variants: Family name to the labels that multiply its series.
        bounds: Histogram to its upper bounds; `other` for those not named.
        expected: Standard name to its source.
    """

    versions: tuple[str, ...]
    families: tuple[tuple[str, str, str, str, str], ...]  # name, type, group, first, last
    labels: Mapping[str, Spans[tuple[Labels, ...]]]
    variants: Mapping[str, Spans[tuple[Labels, ...]]]
    bounds: Mapping[str, Spans[tuple[float, ...]]]
    expected: Mapping[str, Spans[str]]

    def page(self, version: str) -> Iterator[Family]:
        """Yield the families that a version exposes."""
        for name, kind, group, first, last in self.families:
            if at(self.versions, ((first, last, True),), version):
                yield Family(name, kind, self._series(name, group, version), self._bounds(name, kind, version))

    def sources(self, version: str) -> dict[str, str | None]:
        """Return where each standard metric of a version comes from."""
        return {name: at(self.versions, self.expected[name], version) for name in ORDERED + EXTENDED}

    def _series(self, name: str, group: str, version: str) -> tuple[Labels, ...]:
        base = at(self.versions, self.labels[group], version) or ({},)
        more = at(self.versions, self.variants.get(name, ()), version) or ({},)
        return tuple({**labels, **extra} for labels in base for extra in more)

    def _bounds(self, name: str, kind: str, version: str) -> tuple[float, ...]:
        spans = self.bounds.get(name, self.bounds["other"])
        return at(self.versions, spans, version) or () if kind == "histogram" else ()


def at(versions: tuple[str, ...], spans: Spans[_T], version: str) -> _T | None:
    """Return what holds for a version, or `None`."""
    place = versions.index(version)
    holding = (value for first, last, value in spans if versions.index(first) <= place <= versions.index(last))
    return next(holding, None)
