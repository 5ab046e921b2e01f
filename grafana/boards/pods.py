"""Kthena / Pods: which pod misbehaves?"""

from __future__ import annotations

from typing import Final

from exporter.telemetry.names import ENGINE_UP
from grafana.board import Board, drill_down
from grafana.layout import Row
from grafana.names import E2E, GENERATION_TOKENS, KV_USAGE, PREFIX_HITS, PREFIX_QUERIES, RUNNING, TPOT, TTFT, WAITING
from grafana.panels import timeseries
from grafana.promql import PODS, SERIES
from grafana.style import FULL_IS_BAD
from grafana.tables import Column, table
from grafana.variables import MODEL_CHAIN

__all__ = ["PODS_BOARD"]

_S = SERIES
_RECENT = SERIES.over("5m")
_POD = ("namespace", "pod")
_ROW = (*_POD, "model_name")

_TABLE = table(
    "Pods (last 5 minutes)",
    "One row for each pod. Click on a pod to see it alone, or what its runtime and its KV events do. A pod whose engine "
    "is down has no model.",
    {"pod": "Pod", "namespace": "Namespace", "model_name": "Model", "engine": "Engine"},
    (
        Column(
            "State",
            "none",
            PODS.over("5m").max(ENGINE_UP, *_POD, "engine"),
            ((None, "red"), (1, "green")),
            {"0": "unreachable", "1": "up"},
        ),
        Column("Running", "none", _S.sum(RUNNING, *_ROW)),
        Column("Waiting", "none", _S.sum(WAITING, *_ROW)),
        Column("KV cache", "percentunit", _S.max(KV_USAGE, *_ROW), FULL_IS_BAD),
        Column("Requests / s", "reqps", _RECENT.observed(E2E, *_ROW)),
        Column("Output tok/s", "count:tok/s", _RECENT.rate(GENERATION_TOKENS, *_ROW)),
        Column("First token, p95", "s", _RECENT.quantile(0.95, TTFT, *_ROW)),
        Column("Per token, p95", "s", _RECENT.quantile(0.95, TPOT, *_ROW)),
        Column("End to end, p95", "s", _RECENT.quantile(0.95, E2E, *_ROW)),
    ),
    links={
        "Pod": {
            "Only this pod": drill_down("kthena-pods", namespace="__data.fields.Namespace", pod="__value.raw"),
            "Its runtime": drill_down("kthena-runtime", namespace="__data.fields.Namespace", pod="__value.raw"),
            "Its KV events": drill_down("kthena-kv-events", namespace="__data.fields.Namespace", pod="__value.raw"),
        },
        "Model": {"Only this model": drill_down("kthena-pods", model_name="__value.raw")},
    },
    height=9,
)

_LATENCY = (
    timeseries(
        "Time to first token, p95",
        "s",
        "One pod above the others has the longest queue or the fewest cached prefixes: compare below.",
        {"{{pod}}": _S.quantile(0.95, TTFT, *_POD)},
    ),
    timeseries(
        "Time per output token, p95",
        "s",
        "One pod above the others runs more requests at once, or on slower or throttled hardware.",
        {"{{pod}}": _S.quantile(0.95, TPOT, *_POD)},
    ),
    timeseries(
        "End-to-end latency, p95",
        "s",
        "One pod above the others while its token times are alike was given the longer answers.",
        {"{{pod}}": _S.quantile(0.95, E2E, *_POD)},
    ),
)

_LOAD = (
    timeseries(
        "Waiting requests",
        "none",
        "A queue at one pod only is a matter of routing; at all, of capacity.",
        {"{{pod}}": _S.sum(WAITING, *_POD)},
    ),
    timeseries(
        "Running requests",
        "none",
        "A flat top is the engine's limit of concurrent requests, or of its KV cache.",
        {"{{pod}}": _S.sum(RUNNING, *_POD)},
    ),
    timeseries(
        "Output tokens / s",
        "count:tok/s",
        "What each pod gets done. Zero with requests running is an engine that hangs.",
        {"{{pod}}": _S.rate(GENERATION_TOKENS, *_POD)},
    ),
    timeseries(
        "Requests / s",
        "reqps",
        "How evenly answers come from the pods.",
        {"{{pod}}": _S.observed(E2E, *_POD)},
    ),
    timeseries(
        "KV cache usage",
        "percentunit",
        "Used part of each pod's KV cache; of several engines in a pod, the fullest. At 100% requests wait or are "
        "thrown out and computed again.",
        {"{{pod}}": _S.max(KV_USAGE, *_POD)},
        share=True,
    ),
    timeseries(
        "Prefix cache hits",
        "percentunit",
        "Share of prompt tokens that were cached. Pods far apart serve different prompts, or were restarted.",
        {"{{pod}}": _S.ratio(PREFIX_HITS, PREFIX_QUERIES, *_POD)},
        share=True,
    ),
)

PODS_BOARD: Final = Board(
    uid="kthena-pods",
    title="Pods",
    description="Which pod misbehaves? The standard metrics by pod.",
    variables=MODEL_CHAIN,
    rows=(
        Row("", (_TABLE,)),
        Row("Latency by pod", _LATENCY),
        Row("Load by pod", _LOAD),
    ),
)
