"""Metrics of the runtime itself: scrapes of the engine, HTTP requests, versions and the process.

There are two kinds. `scrape_families` describe one scrape: they are written from
its result and have no state. `Telemetry` keeps counters and histograms. Series
whose label values are known in advance start at 0. Otherwise `increase()` would
miss the first event.
"""

from __future__ import annotations

import platform
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

from exporter import __version__
from exporter.page.errors import Reason
from exporter.page.family import TextFamily
from exporter.page.repairs import Repair
from exporter.page.text_format import series
from exporter.telemetry import names
from exporter.telemetry.instruments import Histogram, Value, header_of
from exporter.telemetry.process import ProcessFigures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from exporter.engine.result import Scrape
    from exporter.telemetry.names import Description

__all__ = ["Telemetry", "scrape_families"]


class Telemetry:
    """The runtime's counters; observes scrapes and HTTP requests. Safe for threads.

    kthena_runtime_build_info{version="...",python="3.12.1"} 1.0
    kthena_runtime_engine_info{engine="vllm"} 1.0
    kthena_runtime_engine_scrape_errors_total{reason="timeout"} 0.0
    kthena_runtime_engine_page_repairs_total{kind="escape"} 0.0
    kthena_runtime_http_requests_total{route="/metrics",method="GET",status="200"} 12.0
    kthena_runtime_http_request_duration_seconds_bucket{route="/metrics",le="0.001"} 2.0
    kthena_runtime_process_open_fds 19.0
    """

    def __init__(self, engine: str, routes: Mapping[str, str]) -> None:
        """Start every series with known label values at 0.

        Args:
            engine: The engine whose rules are in use.
            routes: The templates of the HTTP routes, each with its usual method.
        """
        self._engine = engine
        build = Value(names.BUILD_INFO)
        build.set(__version__, platform.python_version(), value=1.0)
        info = Value(names.ENGINE_INFO)
        info.set(engine, value=1.0)
        self._scrape_errors = Value(names.ENGINE_SCRAPE_ERRORS)
        for reason in Reason:
            self._scrape_errors.add(reason, amount=0)
        self._repairs = Value(names.ENGINE_PAGE_REPAIRS)
        for kind in Repair:
            self._repairs.add(kind, amount=0)
        self._requests = Value(names.HTTP_REQUESTS)
        self._latency = Histogram(names.HTTP_REQUEST_DURATION)
        for route, method in routes.items():
            self._requests.add(route, method, "200", amount=0)
            self._latency.make(route)
        self._instruments = (build, info, self._scrape_errors, self._repairs, self._requests, self._latency)
        self._process = ProcessFigures()
        self._sources: list[Callable[[], Iterable[TextFamily]]] = []

    def add(self, source: Callable[[], Iterable[TextFamily]]) -> None:
        """Add a part of the runtime: `families` calls `source` at each scrape. Call before the first scrape."""
        self._sources.append(source)

    def scraped(self, scrape: Scrape) -> None:
        """Count the errors and repairs of a fetch of the engine's page."""
        if scrape.error:
            self._scrape_errors.add(scrape.error.reason)
        for kind, times in scrape.repairs.items():
            self._repairs.add(kind, amount=times)

    def answered(self, *, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answered HTTP request; `route` is a template, never a raw path, which would be unbounded."""
        self._requests.add(route, method, str(status))
        self._latency.observe(route, value=seconds)

    def families(self) -> list[TextFamily]:
        """Return the families kept here, those of all added parts, and those of the process."""
        values = self._process.read()
        return [
            *(instrument.family() for instrument in self._instruments),
            *chain.from_iterable(source() for source in self._sources),
            *(_family(one, {(): value}) for one in names.PROCESS if (value := values.get(one.name)) is not None),
        ]


def scrape_families(scrape: Scrape) -> list[TextFamily]:
    """Return the families that describe one scrape.

    # HELP kthena_runtime_engine_up Whether this scrape could read ...
    # TYPE kthena_runtime_engine_up gauge
    kthena_runtime_engine_up 1.0
    kthena_runtime_engine_scrape_duration_seconds 0.0031
    kthena_runtime_engine_scrape_size_bytes 61234.0
    kthena_runtime_engine_scrape_samples 512.0
    kthena_runtime_standard_metric_present{metric="kthena:num_requests_waiting"} 1.0
    """
    return [
        _family(names.ENGINE_UP, {(): float(scrape.up)}),
        _family(names.ENGINE_SCRAPE_DURATION, {(): scrape.duration}),
        _family(names.ENGINE_SCRAPE_SIZE, {(): float(scrape.size)}),
        _family(names.ENGINE_SCRAPE_SAMPLES, {(): float(scrape.page.samples)}),
        _presence(scrape.standard.present, scrape.standard.missing),
    ]


@lru_cache(maxsize=4)  # the set of standard metrics rarely changes between two scrapes
def _presence(there: tuple[str, ...], missing: tuple[str, ...]) -> TextFamily:
    present = dict.fromkeys(there, 1.0) | dict.fromkeys(missing, 0.0)
    return _family(names.STANDARD_METRIC_PRESENT, {(name,): value for name, value in present.items()})


def _family(description: Description, values: dict[tuple[str, ...], float]) -> TextFamily:
    lines = "".join(
        f"{series(description.name, description.labels, labels)} {value!r}\n" for labels, value in values.items()
    )
    return TextFamily(description.name, description.kind, header_of(description) + lines.encode())
