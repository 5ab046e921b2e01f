"""Kthena / Adapters and downloads: is what should be loaded loaded?"""

from __future__ import annotations

from typing import Final

from exporter.telemetry.names import (
    DOWNLOAD_BYTES,
    DOWNLOAD_COMPLETED_BYTES,
    DOWNLOAD_DURATION,
    DOWNLOAD_EXPECTED_BYTES,
    DOWNLOAD_RETRIES,
    DOWNLOADS,
    DOWNLOADS_IN_PROGRESS,
    LORA_ADAPTER_INFO,
    LORA_ADAPTERS,
    LORA_OPERATION_DURATION,
    LORA_OPERATIONS,
    LORA_RECONCILES,
    MODEL_CONFIG_VALID,
    STORAGE_FREE,
    STORAGE_SIZE,
)
from grafana.board import Board, drill_down
from grafana.layout import Row
from grafana.panels import CHART_HEIGHT, bargauge, heatmap, stat, timeseries
from grafana.promql import PODS, RANGE, divide
from grafana.style import BAD_IF_ANY, SHARE_IS_GOOD, Steps
from grafana.tables import Column, table
from grafana.variables import POD_CHAIN

__all__ = ["ADAPTERS"]

_R = PODS
_CHOSEN = PODS.over(RANGE)
_POD = ("namespace", "pod")
_NO_ADAPTERS: Final = "No adapters"
_NO_DOWNLOADS: Final = "No downloads"
_ALL_VALID: Final[Steps] = ((None, "red"), (1, "green"))
_SPACE_IS_GOOD: Final[Steps] = ((None, "red"), (0.05, "orange"), (0.15, "green"))

_LOADED = divide(
    _CHOSEN.increase(LORA_OPERATIONS, operation="load", outcome="done"),
    _CHOSEN.increase(LORA_OPERATIONS, operation="load"),
)
_FREE = divide(_R.raw(STORAGE_FREE), _R.raw(STORAGE_SIZE))

_NOW = (
    stat(
        "Adapters loaded",
        "none",
        "Adapters that their engines serve, each counted in every pod.",
        _R.sum(LORA_ADAPTERS, state="loaded"),
        empty=_NO_ADAPTERS,
    ),
    stat(
        "Adapters failed",
        "none",
        "Adapters that cannot be loaded; they are tried again, less and less often. GET /v1/lora_adapters of the pod "
        "says why.",
        _R.sum(LORA_ADAPTERS, state="failed"),
        judge=BAD_IF_ANY,
        empty=_NO_ADAPTERS,
    ),
    stat(
        "Loads that succeeded",
        "percentunit",
        "Of the loads that ended in the chosen time.",
        _LOADED,
        judge=SHARE_IS_GOOD,
        empty="No loads",
        instant=True,
    ),
    stat(
        "Model files followed",
        "percentunit",
        "Share of runtimes with --model-config whose file is valid. Below 100%: a file changed and cannot be followed; "
        "what was loaded before stays.",
        _R.mean_of(MODEL_CONFIG_VALID),
        judge=_ALL_VALID,
        empty="No --model-config",
    ),
    stat(
        "Download rate",
        "binBps",
        "Bytes fetched or copied, of all pods and sources.",
        _R.rate(DOWNLOAD_BYTES),
        empty=_NO_DOWNLOADS,
    ),
    stat(
        "Least free space",
        "percentunit",
        "Free part of the fullest volume that models or adapters are downloaded to. A download that does not fit is "
        "refused before its first byte.",
        f"min({_FREE})",
        judge=_SPACE_IS_GOOD,
        empty="Not downloaded into",
    ),
)

_ADAPTERS = (
    timeseries(
        "Adapters by state",
        "none",
        "All should end as loaded. failed, or pending for long: see the table.",
        {"{{state}}": _R.sum(LORA_ADAPTERS, "state")},
        stacked=True,
        empty=_NO_ADAPTERS,
    ),
    timeseries(
        "Loads and unloads / s",
        "suffix:/s",
        "How they end. engine_unavailable while an engine starts is no fault; they are repeated.",
        {"{{operation}} {{outcome}}": f"{_R.rate(LORA_OPERATIONS, 'operation', 'outcome')} > 0"},
        empty="No loads",
    ),
    timeseries(
        "Duration of loads and unloads",
        "s",
        "Downloads included, so that it shows slow sources, too. SGLang's unload waits until requests are answered.",
        {
            f"{{{{operation}}}} {name}": _R.quantile(which, LORA_OPERATION_DURATION, "operation")
            for name, which in (("p50", 0.5), ("p95", 0.95))
        },
        empty="No loads",
    ),
    timeseries(
        "Comparisons with the engine / s",
        "suffix:/s",
        "Each compares what the engine has with what it should have. repaired again and again: somebody else unloads, "
        "or the engine restarts.",
        {"{{outcome}}": _R.rate(LORA_RECONCILES, "outcome")},
        empty=_NO_ADAPTERS,
    ),
    table(
        "Adapters (now)",
        "Every adapter that a runtime was asked for. Click on a pod to see it alone.",
        {
            "lora_name": "Adapter",
            "state": "State",
            "source_scheme": "Source",
            "pod": "Pod",
            "namespace": "Namespace",
        },
        (
            Column(
                "",
                "none",
                _R.max(LORA_ADAPTER_INFO, *_POD, "lora_name", "source_scheme", "state"),
            ),
        ),
        links={
            "Pod": {
                "Only this pod": drill_down("kthena-adapters", namespace="__data.fields.Namespace", pod="__value.raw")
            }
        },
        empty=_NO_ADAPTERS,
        width=16,
        height=CHART_HEIGHT,
    ),
)

_DOWNLOADS = (
    timeseries(
        "In progress",
        "none",
        "Downloads that run, by source. Two pods with one volume download once: the second waits.",
        {"{{scheme}}": _R.sum(DOWNLOADS_IN_PROGRESS, "scheme")},
        stacked=True,
        empty=_NO_DOWNLOADS,
    ),
    timeseries(
        "Throughput by source",
        "binBps",
        "In progress at 0 bytes is a stall: the worker is ended after --stall-timeout, and goes on where it was.",
        {"{{scheme}}": _R.rate(DOWNLOAD_BYTES, "scheme")},
        stacked=True,
        empty=_NO_DOWNLOADS,
    ),
    timeseries(
        "Ended downloads / s",
        "suffix:/s",
        "How downloads end. failed: GET /v1/downloads of the pod says why.",
        {"{{scheme}} {{outcome}}": f"{_R.rate(DOWNLOADS, 'scheme', 'outcome')} > 0"},
        empty="None ended",
    ),
    timeseries(
        "Retries / s",
        "suffix:/s",
        "Requests made again, by reason. http_503 and http_429: the source asks for less; stalled: nothing came; "
        "docs/metrics.md has them all.",
        {"{{scheme}} {{reason}}": _R.rate(DOWNLOAD_RETRIES, "scheme", "reason")},
        empty="No retries",
    ),
    heatmap(
        "Duration, distribution",
        "s",
        "Downloads that ended, by how long they took. The shortest found everything in place.",
        _R.buckets(DOWNLOAD_DURATION),
    ),
    bargauge(
        "Progress",
        "percentunit",
        "Running downloads, by pod and id, as at GET /v1/downloads.",
        {
            "{{pod}} {{download}}": divide(
                _R.max(DOWNLOAD_COMPLETED_BYTES, *_POD, "download"),
                _R.max(DOWNLOAD_EXPECTED_BYTES, *_POD, "download"),
            )
        },
        empty="No download runs",
    ),
)

_DISK = (
    timeseries(
        "Free space",
        "percentunit",
        "Free part of each volume. Old revisions stay until somebody removes them.",
        {"{{pod}} {{root}}": f"min by (namespace, pod, root) ({_FREE})"},
        share=True,
        empty="Not downloaded into",
        width=12,
    ),
    timeseries(
        "Free bytes",
        "bytes",
        "The same in bytes: compare with the size of the next model.",
        {"{{pod}} {{root}}": f"min by (namespace, pod, root) ({_R.raw(STORAGE_FREE)})"},
        empty="Not downloaded into",
        width=12,
    ),
)

ADAPTERS: Final = Board(
    uid="kthena-adapters",
    title="Adapters and downloads",
    description="Is what should be loaded loaded? LoRA adapters, downloads and the disks that hold them.",
    variables=POD_CHAIN,
    rows=(
        Row("", _NOW),
        Row("Adapters", _ADAPTERS),
        Row("Downloads", _DOWNLOADS),
        Row("Disk", _DISK),
    ),
)
