"""Kthena / Runtime: does the sidecar do its work, and what does it need?"""

from __future__ import annotations

from typing import Final

from exporter.telemetry.names import (
    BUILD_INFO,
    ENGINE_PAGE_REPAIRS,
    ENGINE_SCRAPE_DURATION,
    ENGINE_SCRAPE_ERRORS,
    ENGINE_SCRAPE_SAMPLES,
    ENGINE_SCRAPE_SIZE,
    ENGINE_UP,
    HTTP_REQUEST_DURATION,
    HTTP_REQUESTS,
    STANDARD_METRIC_PRESENT,
)
from grafana.board import Board, drill_down
from grafana.layout import Row
from grafana.names import CPU, MAX_FDS, OPEN_FDS, RESIDENT_MEMORY, START_TIME
from grafana.panels import CHART_HEIGHT, stat, timeseries
from grafana.promql import PODS, divide
from grafana.series import ON_TARGET, Regex
from grafana.style import SHARE_IS_GOOD, Steps
from grafana.tables import Column, table
from grafana.variables import POD_CHAIN

__all__ = ["RUNTIME"]

_R = PODS
_POD = ("namespace", "pod")
_MISSING_IS_ODD: Final[Steps] = ((None, "green"), (1, "orange"))
_ERRORS_ARE_BAD: Final[Steps] = ((None, "green"), (0.001, "orange"), (0.01, "red"))

_SERVER_ERRORS = f"({_R.rate(HTTP_REQUESTS, status=Regex('5..'))} or vector(0))"
_MISSING = f"{_R.raw(STANDARD_METRIC_PRESENT)} == 0 and {ON_TARGET} {_R.raw(ENGINE_UP)} == 1"

_NOW = (
    stat("Runtimes", "none", "Runtimes that Prometheus scrapes.", _R.count(BUILD_INFO)),
    stat(
        "Engines reachable",
        "percentunit",
        "Share of runtimes that can read their engine. Below 100%: see the reasons of scrape errors below.",
        _R.mean_of(ENGINE_UP),
        judge=SHARE_IS_GOOD,
    ),
    stat(
        "Standard metrics missing",
        "none",
        "Standard metrics that a readable engine lacks: an upgrade renamed one, or --engine is wrong. SGLang has none "
        "before its first request. Listed below.",
        f"count({_MISSING}) or vector(0)",
        judge=_MISSING_IS_ODD,
    ),
    stat(
        "Slowest engine scrape",
        "s",
        "How long the slowest engine took to give its page. It must stay below Prometheus' scrape timeout.",
        _R.max(ENGINE_SCRAPE_DURATION),
    ),
    stat(
        "HTTP 5xx",
        "percentunit",
        "Share of requests to the runtime that it could not serve. Not the users' requests: those go to the engine.",
        divide(_SERVER_ERRORS, _R.rate(HTTP_REQUESTS)),
        judge=_ERRORS_ARE_BAD,
    ),
    stat(
        "Largest resident memory",
        "bytes",
        "What the largest runtime needs. Some 45 MB when idle, 58 MB with KV events.",
        _R.max(RESIDENT_MEMORY),
    ),
)

_SCRAPE = (
    timeseries(
        "Engine scrape duration",
        "s",
        "Fetch and check of the engine's page. A slow page comes from an engine whose event loop is busy.",
        {"{{pod}}": _R.max(ENGINE_SCRAPE_DURATION, *_POD)},
    ),
    timeseries(
        "Engine scrape errors / s",
        "suffix:/s",
        "Fetches that failed, by reason. refused: the engine is not there; timeout: it hangs; not_metrics: wrong path; "
        "docs/operations.md has them all.",
        {"{{reason}}": f"{_R.rate(ENGINE_SCRAPE_ERRORS, 'reason')} > 0"},
        empty="No errors",
    ),
    timeseries(
        "Page repairs / s",
        "suffix:/s",
        "Flaws of the engine's page that were mended, by kind: without that, Prometheus would have dropped the page.",
        {"{{kind}}": f"{_R.rate(ENGINE_PAGE_REPAIRS, 'kind')} > 0"},
        empty="No flaws",
    ),
    timeseries(
        "Samples passed through",
        "short",
        "Samples on each engine's page. A drop to 0 is an unreadable engine; steady growth is a label without bounds.",
        {"{{pod}}": _R.sum(ENGINE_SCRAPE_SAMPLES, *_POD)},
        width=6,
    ),
    timeseries(
        "Engine page size",
        "bytes",
        "Size of each engine's page. Prometheus has to store what is on it: --no-raw-metrics leaves it out.",
        {"{{pod}}": _R.max(ENGINE_SCRAPE_SIZE, *_POD)},
        width=6,
    ),
    table(
        "Standard metrics that a readable engine lacks",
        "Panels and alerts of these metrics are blind for these pods. docs/engines.md says which version has what.",
        {"pod": "Pod", "namespace": "Namespace", "metric": "Metric"},
        (Column("", "none", f"max by (namespace, pod, metric) ({_MISSING})"),),
        links={
            "Pod": {
                "Only this pod": drill_down("kthena-runtime", namespace="__data.fields.Namespace", pod="__value.raw")
            }
        },
        empty="None is missing",
        width=12,
        height=CHART_HEIGHT,
    ),
)

_HTTP = (
    timeseries(
        "Requests by route and status",
        "reqps",
        "What the runtime is asked: mostly /metrics by Prometheus and /health by Kubernetes.",
        {
            "{{route}} {{status}}": f"{_R.rate(HTTP_REQUESTS, 'route', 'status')} > 0",
        },
        width=12,
    ),
    timeseries(
        "Latency by route, p95",
        "s",
        "From a request's arrival to its answer. /metrics includes the engine's time; loads and downloads that are "
        "waited for take as long as they take.",
        {"{{route}}": _R.quantile(0.95, HTTP_REQUEST_DURATION, "route")},
        width=12,
    ),
)

_PROCESS = (
    timeseries(
        "CPU",
        "percentunit",
        "Share of one core. Scrapes of large pages and KV events are what costs.",
        {"{{pod}}": _R.rate(CPU, *_POD)},
    ),
    timeseries(
        "Resident memory",
        "bytes",
        "Memory of each runtime. Growth with the number of cached blocks is the ledger of KV events.",
        {"{{pod}}": _R.max(RESIDENT_MEMORY, *_POD)},
    ),
    timeseries(
        "Open file descriptors",
        "percentunit",
        "Share of those that may be open. Steady growth is a leak: please report it.",
        {"{{pod}}": f"max by (namespace, pod) ({divide(_R.raw(OPEN_FDS), _R.raw(MAX_FDS))})"},
    ),
    table(
        "Versions",
        "Runtimes by version. More than one line outside of a roll-out: some pods were left behind.",
        {"version": "Version", "python": "Python"},
        (Column("Runtimes", "none", _R.count(BUILD_INFO, "version", "python")),),
        width=12,
        height=6,
    ),
    table(
        "Uptime",
        "How long each runtime has been running. Short ones have just been started, or restarted.",
        {"pod": "Pod", "namespace": "Namespace"},
        (Column("Running for", "s", f"time() - max by (namespace, pod) ({_R.raw(START_TIME)})"),),
        width=12,
        height=6,
    ),
)

RUNTIME: Final = Board(
    uid="kthena-runtime",
    title="Runtime",
    description="Does the sidecar do its work, and what does it need? Engine scrapes, HTTP and process.",
    variables=POD_CHAIN,
    rows=(
        Row("", _NOW),
        Row("Engine scrape", _SCRAPE),
        Row("HTTP API", _HTTP),
        Row("Process", _PROCESS),
    ),
)
