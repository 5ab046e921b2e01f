"""Kthena / Overview: is the service healthy? Standard metrics only, so any engine will do."""

from __future__ import annotations

from typing import Final

from exporter.telemetry.names import BUILD_INFO, ENGINE_UP
from grafana.board import Board, drill_down
from grafana.layout import Row
from grafana.names import (
    E2E,
    GENERATION_TOKENS,
    KV_USAGE,
    PREFIX_HITS,
    PREFIX_QUERIES,
    PROMPT_TOKENS,
    RUNNING,
    RUNTIME_JOB,
    TPOT,
    TTFT,
    UP,
    WAITING,
)
from grafana.panels import heatmap, stat, timeseries
from grafana.promql import PODS, RANGE, SERIES, divide, when_idle
from grafana.series import series
from grafana.style import BAD_IF_ANY, FULL_IS_BAD, NO_TRAFFIC, SHARE_IS_GOOD
from grafana.tables import Column, table
from grafana.variables import ENGINE, FIRST_TOKEN_SLO, MODEL_CHAIN

__all__ = ["OVERVIEW"]

_S = SERIES
_ENGINE = SERIES.of_engine()
_TABLE = SERIES.over(RANGE)
_ROW = ("model_name", "engine")
_NOBODY: Final = "No runtimes"

_IN_TIME = _S.applied("rate", f"{TTFT}_bucket", le="$ttft_slo")
# Of the engines that have the bound: another one's requests would all look slow.
_ASKED = _S.total("sum", f"{_S.applied('rate', f'{TTFT}_bucket', le='+Inf')} and ignoring (le) {_IN_TIME}")
_WITHIN_SLO = when_idle(1, divide(_S.total("sum", _IN_TIME), _ASKED), _S.total("sum", _IN_TIME))

_ENGINE_UP = PODS.raw(ENGINE_UP)
# Known by what they showed within the chosen time, or by the name of their job if none of them can be scraped.
_RUNTIMES = (
    f"({PODS.raw(UP)} and on (job)"
    f" ({PODS.over(RANGE).applied('last_over_time', BUILD_INFO)} or {series(UP, job=RUNTIME_JOB)}))"
)
_WAITING_BY_POD = _S.sum(WAITING, "namespace", "pod")
_WAITING_BY_MODEL = _S.sum(WAITING, "namespace", "pod", "model_name")

_HEALTH = (
    stat(
        "Engines unreachable",
        "none",
        "Runtimes that run but cannot read their engine: it starts, hangs or is gone. Of all models, whichever is "
        "chosen above. The Runtime dashboard says why.",
        when_idle(0, f"count({_ENGINE_UP} == 0)", f"count({_ENGINE_UP})"),
        judge=BAD_IF_ANY,
        empty=_NOBODY,
    ),
    stat(
        "Runtimes down",
        "none",
        "Targets that Prometheus cannot scrape, in those of its jobs that scrape runtimes. Look at the pods, then at "
        "Prometheus' page of targets.",
        when_idle(0, f"count({_RUNTIMES} == 0)", f"count({_RUNTIMES})"),
        judge=BAD_IF_ANY,
        empty=_NOBODY,
    ),
    stat(
        "First token within ${ttft_slo:text}",
        "percentunit",
        "Share of requests whose first token came in time; 100% while there is none. Choose the time above: only bounds "
        "that vLLM's and SGLang's histograms share can be asked for. When it falls, see what rises: waiting requests "
        "want more pods, longer prompts want faster prefill.",
        _WITHIN_SLO,
        judge=SHARE_IS_GOOD,
    ),
    stat(
        "First token, p95",
        "s",
        "95% of requests get their first token within this time; of several engines, the slowest's. It is queueing "
        "plus prefill: compare with Waiting.",
        _S.slowest(0.95, TTFT),
        zero=NO_TRAFFIC,
    ),
    stat(
        "Per output token, p95",
        "s",
        "95% of output tokens follow the one before within this time; of several engines, the slowest's. It grows "
        "with the number of running requests.",
        _S.slowest(0.95, TPOT),
        zero=NO_TRAFFIC,
    ),
    stat(
        "End to end, p95",
        "s",
        "95% of requests are answered whole within this time; of several engines, the slowest's. Long answers take "
        "long: compare with output tokens per request.",
        _S.slowest(0.95, E2E),
        zero=NO_TRAFFIC,
    ),
)

_LOAD = (
    stat("Requests / s", "reqps", "Requests that were answered.", _S.observed(E2E)),
    stat("Output tokens / s", "count:tok/s", "Tokens generated for all requests.", _S.rate(GENERATION_TOKENS)),
    stat("Running", "none", "Requests that are being executed.", _S.sum(RUNNING)),
    stat(
        "Waiting",
        "none",
        "Requests that wait to be scheduled. A queue that does not drain means that there are too few pods, or that "
        "the KV cache is full.",
        _S.sum(WAITING),
    ),
    stat(
        "KV cache, fullest pod",
        "percentunit",
        "Used part of the fullest pod's KV cache. Near 100% requests wait, or are thrown out and computed again.",
        _S.max(KV_USAGE),
        judge=FULL_IS_BAD,
    ),
    stat(
        "Prefix cache hits",
        "percentunit",
        "Share of prompt tokens that were in the prefix cache, when there last were any. Low with prompts that begin "
        "alike means that requests do not reach the pod that has their prefix.",
        _S.ratio(PREFIX_HITS, PREFIX_QUERIES),
    ),
)

_MODELS = table(
    "Models (over the chosen time)",
    "One row for each model and engine. Click on a model to see it alone, or its pods.",
    {"model_name": "Model", "engine": "Engine"},
    (
        Column("Pods", "none", _S.count(WAITING, *_ROW)),
        Column("Requests / s", "reqps", _TABLE.observed(E2E, *_ROW)),
        Column("Output tokens / s", "count:tok/s", _TABLE.rate(GENERATION_TOKENS, *_ROW)),
        Column("First token, p95", "s", _TABLE.quantile(0.95, TTFT, *_ROW)),
        Column("Per token, p95", "s", _TABLE.quantile(0.95, TPOT, *_ROW)),
        Column("End to end, p95", "s", _TABLE.quantile(0.95, E2E, *_ROW)),
        Column("KV cache, fullest", "percentunit", _S.max(KV_USAGE, *_ROW), FULL_IS_BAD),
        Column("Most waiting", "none", _TABLE.total("max", _TABLE.applied("max_over_time", WAITING), *_ROW)),
    ),
    links={
        "Model": {
            "Only this model": drill_down("kthena-overview", model_name="__value.raw"),
            "Its pods": drill_down("kthena-pods", model_name="__value.raw"),
        }
    },
)

_LATENCY = (
    timeseries(
        "Time to first token",
        "s",
        "How long users wait until something appears: queueing and prefill. Rises with waiting requests and with the "
        "length of prompts.",
        _ENGINE.latency(TTFT),
    ),
    timeseries(
        "Time per output token",
        "s",
        "How fast an answer is written. Rises with the number of running requests; jumps when long prompts are "
        "prefilled between the tokens of others.",
        _ENGINE.latency(TPOT),
    ),
    timeseries(
        "End-to-end latency",
        "s",
        "From a request's arrival to its last token. Read it together with the length of answers.",
        _ENGINE.latency(E2E),
    ),
    heatmap(
        "Time to first token, distribution",
        "s",
        "Requests a second in each range of time. Two bands are two kinds of requests, such as cached and new prompts.",
        _ENGINE.buckets(TTFT),
    ),
    heatmap(
        "Time per output token, distribution",
        "s",
        "Tokens a second in each range of time. A second, slower band is decoding that waits for prefill.",
        _ENGINE.buckets(TPOT),
    ),
    heatmap(
        "End-to-end latency, distribution",
        "s",
        "Requests a second in each range of time. It follows the length of answers.",
        _ENGINE.buckets(E2E),
    ),
)

_THROUGHPUT = (
    timeseries(
        "Output tokens / s by model",
        "count:tok/s",
        "Where the work goes. SGLang counts a request's tokens when it ends: its lines are jagged.",
        {"{{model_name}}": _S.rate(GENERATION_TOKENS, "model_name")},
        stacked=True,
    ),
    timeseries(
        "Prompt tokens / s by model",
        "count:tok/s",
        "What is read, cached tokens included. A jump here explains a slower first token.",
        {"{{model_name}}": _S.rate(PROMPT_TOKENS, "model_name")},
        stacked=True,
    ),
    timeseries(
        "Tokens per request",
        "count:tok",
        "Mean length of answers and prompts. Longer ones take longer: look here before blaming the engine.",
        {
            "output": divide(_S.rate(GENERATION_TOKENS), _S.observed(E2E)),
            "prompt": divide(_S.rate(PROMPT_TOKENS), _S.observed(E2E)),
        },
    ),
)

_SATURATION = (
    timeseries(
        "Waiting requests by model",
        "none",
        "Which model is short of pods. A queue that only grows does not end by itself.",
        {"{{model_name}}": _S.sum(WAITING, "model_name")},
        stacked=True,
    ),
    timeseries(
        "Waiting requests, five hottest pods",
        "none",
        "One pod far above the others is a matter of routing, all alike a matter of capacity.",
        {"{{pod}}": f"topk(5, {_WAITING_BY_POD})"},
    ),
    timeseries(
        "Load imbalance",
        "none",
        "Waiting requests of a model's hottest pod, divided by the mean of its pods: 1 is even. High for long means that "
        "the router does not spread what it gets.",
        {
            "{{model_name}}": divide(
                f"max by (model_name) ({_WAITING_BY_MODEL})", f"avg by (model_name) ({_WAITING_BY_MODEL})"
            )
        },
        empty="Nothing waits",
    ),
)

OVERVIEW: Final = Board(
    uid="kthena-overview",
    title="Overview",
    description="Is the service healthy? Latency, load and saturation of all models, whatever engine runs them.",
    variables=(*MODEL_CHAIN, ENGINE, FIRST_TOKEN_SLO),
    rows=(
        Row("", (*_HEALTH, *_LOAD, _MODELS)),
        Row("Latency · $engine", _LATENCY, repeat="engine"),
        Row("Throughput", _THROUGHPUT),
        Row("Saturation", _SATURATION),
    ),
)
