"""Kthena / Engine internals: what only one engine tells, under its own names."""

from __future__ import annotations

from typing import Final

from exporter.telemetry.names import BUILD_INFO, ENGINE_UP
from grafana.board import Board
from grafana.layout import Row
from grafana.names import GENERATION_TOKENS, RUNNING, WAITING
from grafana.panels import CHART_HEIGHT, timeseries
from grafana.promql import PODS, SERIES
from grafana.series import TARGET
from grafana.tables import Column, table
from grafana.variables import ENGINE_CHAIN

__all__ = ["ENGINE_BOARD", "SGLANG", "VLLM"]

# The engines' names, of vLLM 0.33 and SGLang 0.5.23; the tests look for them on pages of these versions.
VLLM: Final = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "kv_usage": "vllm:kv_cache_usage_perc",
    "preemptions": "vllm:num_preemptions_total",
    "prefix_hits": "vllm:prefix_cache_hits_total",
    "prefix_queries": "vllm:prefix_cache_queries_total",
    "queue": "vllm:request_queue_time_seconds",
    "prefill": "vllm:request_prefill_time_seconds",
    "decode": "vllm:request_decode_time_seconds",
    "finished": "vllm:request_success_total",
    "step_tokens": "vllm:iteration_tokens_total",
    "prompt_length": "vllm:request_prompt_tokens",
    "output_length": "vllm:request_generation_tokens",
    "lora": "vllm:lora_requests_info",
}
SGLANG: Final = {
    "running": "sglang:num_running_reqs",
    "waiting": "sglang:num_queue_reqs",
    "usage": "sglang:token_usage",
    "hit_rate": "sglang:cache_hit_rate",
    "throughput": "sglang:gen_throughput",
    "queue": "sglang:queue_time_seconds",
    "requests": "sglang:num_requests_total",
    "aborted": "sglang:num_aborted_requests_total",
}

_S = SERIES
_POD = ("namespace", "pod")
_NO_VLLM: Final = "No vLLM, or no traffic"
_NO_SGLANG: Final = "No SGLang, or no traffic"


def _schedulers(gauge: str) -> str:
    """Return a gauge of SGLang, once for each group of ranks that have the same requests, without its priorities."""
    return f"max by ({', '.join(TARGET)}, dp_rank) ({_S.raw(gauge, priority='')})"


_ENGINES = (
    table(
        "Engines",
        "Pods by engine, as their runtimes are told by --engine. Open the row of an engine below.",
        {"engine": "Engine"},
        (
            Column("Pods", "none", PODS.count(BUILD_INFO, "engine")),
            Column("Reachable", "none", PODS.sum(ENGINE_UP, "engine")),
            Column("Running", "none", _S.sum(RUNNING, "engine")),
            Column("Waiting", "none", _S.sum(WAITING, "engine")),
        ),
        width=8,
        height=CHART_HEIGHT,
    ),
    timeseries(
        "Requests by engine",
        "none",
        "Requests being executed, whatever engine does it.",
        {"{{engine}}": _S.sum(RUNNING, "engine")},
        stacked=True,
    ),
    timeseries(
        "Output tokens / s by engine",
        "count:tok/s",
        "What each engine gets done. SGLang counts a request's tokens when it ends.",
        {"{{engine}}": _S.rate(GENERATION_TOKENS, "engine")},
        stacked=True,
    ),
)

_VLLM = (
    timeseries(
        "vLLM scheduler",
        "none",
        "Requests that run and that wait. Waiting with room in the KV cache means that --max-num-seqs is the limit.",
        {"running": _S.sum(VLLM["running"]), "waiting": _S.sum(VLLM["waiting"])},
        empty=_NO_VLLM,
    ),
    timeseries(
        "KV cache usage",
        "percentunit",
        "Used part of each pod's KV cache. At 100% requests are preempted.",
        {"{{pod}}": _S.max(VLLM["kv_usage"], *_POD)},
        share=True,
        empty=_NO_VLLM,
    ),
    timeseries(
        "Preemptions / s",
        "suffix:/s",
        "Requests thrown out of the KV cache, to be computed again. More than a few: fewer requests at once, shorter "
        "contexts, or more memory.",
        {"{{pod}}": _S.rate(VLLM["preemptions"], *_POD)},
        empty=_NO_VLLM,
    ),
    timeseries(
        "Prefix cache hits",
        "percentunit",
        "Share of prompt tokens that were cached. Near 0 with prompts that begin alike: see that prefix caching is on and "
        "that routing keeps prefixes together.",
        {"hits": _S.ratio(VLLM["prefix_hits"], VLLM["prefix_queries"])},
        share=True,
        empty=_NO_VLLM,
    ),
    timeseries(
        "Mean time per phase",
        "s",
        "Where a request's time goes. Queueing asks for more pods, prefill for shorter or cached prompts, decoding "
        "for fewer requests at once.",
        {phase: _S.mean(VLLM[phase]) for phase in ("queue", "prefill", "decode")},
        stacked=True,
        empty=_NO_VLLM,
    ),
    timeseries(
        "Finished requests by reason",
        "reqps",
        "stop: the model ended; length: the limit was reached; abort: the client left; error: the engine failed.",
        {"{{finished_reason}}": _S.rate(VLLM["finished"], "finished_reason")},
        stacked=True,
        empty=_NO_VLLM,
    ),
    timeseries(
        "Tokens per engine step",
        "count:tok",
        "How full the batches are. Low under load means that something but the accelerator is the limit.",
        {"tokens": _S.mean(VLLM["step_tokens"])},
        empty=_NO_VLLM,
    ),
    timeseries(
        "Tokens per request",
        "count:tok",
        "Mean length of finished requests. It explains latency that changes without load.",
        {"prompt": _S.mean(VLLM["prompt_length"]), "output": _S.mean(VLLM["output_length"])},
        empty=_NO_VLLM,
    ),
    table(
        "LoRA adapters in use",
        "Adapters that run or wait in each pod. The engine makes a series for each combination; this is the latest.",
        {
            "pod": "Pod",
            "namespace": "Namespace",
            "running_lora_adapters": "Running",
            "waiting_lora_adapters": "Waiting",
        },
        (
            Column(
                "",
                "none",
                f"topk by (namespace, pod) (1, max by (namespace, pod, running_lora_adapters, waiting_lora_adapters) "
                f"({PODS.raw(VLLM['lora'])}))",
            ),
        ),
        empty="No adapter is used",
        width=8,
        height=CHART_HEIGHT,
    ),
)

_SGLANG = (
    timeseries(
        "SGLang scheduler",
        "none",
        "Requests that run and that wait. Waiting with token usage below 100% means that --max-running-requests is "
        "the limit.",
        {
            "running": f"sum({_schedulers(SGLANG['running'])})",
            "waiting": f"sum({_schedulers(SGLANG['waiting'])})",
        },
        empty=_NO_SGLANG,
    ),
    timeseries(
        "Token usage",
        "percentunit",
        "Used part of each pod's KV cache. At 100% requests are retracted.",
        {"{{pod}}": _S.max(SGLANG["usage"], *_POD)},
        share=True,
        empty=_NO_SGLANG,
    ),
    timeseries(
        "Cache hit rate",
        "percentunit",
        "Share of the last prefill batch that was in the radix cache, mean over pods.",
        {"hits": _S.mean_of(SGLANG["hit_rate"])},
        share=True,
        empty=_NO_SGLANG,
    ),
    timeseries(
        "Generation throughput",
        "count:tok/s",
        "Tokens that the scheduler saw generated, by its own clock: without the jumps of counters that move when "
        "requests end.",
        {"{{pod}}": f"sum by (namespace, pod) ({_schedulers(SGLANG['throughput'])})"},
        stacked=True,
        empty=_NO_SGLANG,
    ),
    timeseries(
        "Mean time in queue",
        "s",
        "From a request's arrival to its first batch. It asks for more pods.",
        {"queue": _S.mean(SGLANG["queue"])},
        empty=_NO_SGLANG,
    ),
    timeseries(
        "Aborted requests",
        "percentunit",
        "Share of requests that were given up by their clients. Rises when first tokens come late.",
        {"aborted": _S.ratio(SGLANG["aborted"], SGLANG["requests"])},
        empty=_NO_SGLANG,
    ),
)

ENGINE_BOARD: Final = Board(
    uid="kthena-engine",
    title="Engine internals",
    description="What does the engine do inside? The engines' own metrics, a row for each engine.",
    variables=ENGINE_CHAIN,
    rows=(
        Row("", _ENGINES),
        Row("vLLM (--engine vllm)", _VLLM),
        Row("SGLang (--engine sglang, started with --enable-metrics)", _SGLANG, collapsed=True),
    ),
)
