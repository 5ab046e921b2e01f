"""vLLM 0.3.3 to 0.33.0: engine V0 until 0.11.0, V1 from 0.7.3."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from simulators.versions.rendering import Family, python_page
from simulators.versions.table import Table, VersionPage, at

if TYPE_CHECKING:
    from simulators.versions.rendering import Labels

__all__ = ["VLLM_PAGES"]

_V0 = (
    *("0.3.3", "0.4.3", "0.5.0", "0.5.5", "0.6.3", "0.6.4", "0.6.6.post1", "0.7.0", "0.7.3", "0.8.0", "0.8.4"),
    *("0.8.5.post1", "0.9.0", "0.9.1", "0.9.2", "0.10.0", "0.10.1.1", "0.10.2", "0.11.0"),
)
_V1 = (
    *("0.7.3", "0.8.0", "0.8.4", "0.8.5.post1", "0.9.0", "0.9.1", "0.9.2", "0.10.0", "0.10.1.1", "0.10.2"),
    *("0.11.0", "0.11.1", "0.11.2", "0.12.0", "0.13.0", "0.14.1", "0.16.0", "0.18.1", "0.19.0", "0.20.2"),
    *("0.22.0", "0.22.1", "0.23.0", "0.24.0", "0.26.0", "0.28.0", "0.30.0", "0.32.0", "0.33.0"),
)
_OLD, _NEW = "0.3.3", "0.33.0"
_END = "0.11.0"  # of V0

_MODEL: Labels = {"model_name": "meta-llama/Llama-3.1-8B-Instruct"}
_ENGINE: Labels = {"engine": "0", **_MODEL}
_REASONS = tuple({"finished_reason": reason} for reason in ("stop", "length", "abort", "error", "repetition"))
_STATES = tuple({"sleep_state": state} for state in ("awake", "weights_offloaded", "discard_all"))
_TOKEN_SOURCES = tuple({"source": source} for source in ("local_compute", "local_cache_hit", "external_kv_transfer"))

_TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_TTFT_LONG = (*_TTFT, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)
_TPOT = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TPOT_LONG = (*_TPOT, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
_E2E_OLD = (1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0)
_E2E = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0)
_E2E_LONG = (*_E2E, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0)
_TOKENS = (1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0)

_V0_TABLE = Table(
    versions=_V0,
    families=(
        ("vllm:num_requests_running", "gauge", "engine", _OLD, _END),
        ("vllm:num_requests_swapped", "gauge", "engine", _OLD, "0.8.4"),
        ("vllm:num_requests_waiting", "gauge", "engine", _OLD, _END),
        ("vllm:gpu_cache_usage_perc", "gauge", "engine", _OLD, _END),
        ("vllm:cpu_cache_usage_perc", "gauge", "engine", _OLD, "0.8.4"),
        ("vllm:gpu_prefix_cache_hit_rate", "gauge", "engine", "0.6.3", "0.8.4"),
        ("vllm:num_preemptions_total", "counter", "engine", "0.4.3", _END),
        ("vllm:prompt_tokens_total", "counter", "engine", _OLD, _END),
        ("vllm:generation_tokens_total", "counter", "engine", _OLD, _END),
        ("vllm:iteration_tokens_total", "histogram", "engine", "0.6.4", _END),
        ("vllm:time_to_first_token_seconds", "histogram", "engine", _OLD, _END),
        ("vllm:time_per_output_token_seconds", "histogram", "engine", _OLD, _END),
        ("vllm:inter_token_latency_seconds", "histogram", "engine", "0.10.2", _END),
        ("vllm:e2e_request_latency_seconds", "histogram", "engine", _OLD, _END),
        ("vllm:request_queue_time_seconds", "histogram", "engine", "0.6.4", _END),
        ("vllm:request_success_total", "counter", "engine", _OLD, _END),
        ("vllm:avg_prompt_throughput_toks_per_s", "gauge", "engine", _OLD, "0.6.6.post1"),
        ("vllm:avg_generation_throughput_toks_per_s", "gauge", "engine", _OLD, "0.6.6.post1"),
    ),
    labels={"engine": ((_OLD, _END, (_MODEL,)),)},
    variants={"vllm:request_success_total": ((_OLD, _END, _REASONS[:3]),)},
    bounds={
        "vllm:time_to_first_token_seconds": ((_OLD, "0.8.0", _TTFT), ("0.8.4", _END, _TTFT_LONG)),
        "vllm:time_per_output_token_seconds": ((_OLD, "0.8.0", _TPOT), ("0.8.4", _END, _TPOT_LONG)),
        "vllm:inter_token_latency_seconds": (("0.10.2", _END, _TPOT_LONG),),
        "vllm:iteration_tokens_total": (("0.6.4", _END, _TOKENS),),
        "other": ((_OLD, "0.6.3", _E2E_OLD), ("0.6.4", "0.8.0", _E2E), ("0.8.4", _END, _E2E_LONG)),
    },
    expected={
        "kthena:generation_tokens_total": ((_OLD, _END, "vllm:generation_tokens_total"),),
        "kthena:num_requests_waiting": ((_OLD, _END, "vllm:num_requests_waiting"),),
        "kthena:time_to_first_token_seconds": ((_OLD, _END, "vllm:time_to_first_token_seconds"),),
        "kthena:time_per_output_token_seconds": ((_OLD, _END, "vllm:time_per_output_token_seconds"),),
        "kthena:e2e_request_latency_seconds": ((_OLD, _END, "vllm:e2e_request_latency_seconds"),),
        "kthena:num_requests_running": ((_OLD, _END, "vllm:num_requests_running"),),
        "kthena:prompt_tokens_total": ((_OLD, _END, "vllm:prompt_tokens_total"),),
        "kthena:kv_cache_usage_ratio": ((_OLD, _END, "vllm:gpu_cache_usage_perc"),),
        "kthena:prefix_cache_queries_total": (),
        "kthena:prefix_cache_hits_total": (),
        "kthena:request_success_total": ((_OLD, _END, "vllm:request_success_total"),),
    },
)

_V1_TABLE = Table(
    versions=_V1,
    families=(
        ("process_start_time_seconds", "gauge", "process", "0.7.3", _NEW),
        ("process_cpu_seconds_total", "counter", "process", "0.7.3", _NEW),
        ("vllm:num_requests_running", "gauge", "engine", "0.7.3", _NEW),
        ("vllm:num_requests_waiting", "gauge", "engine", "0.7.3", _NEW),
        ("vllm:num_requests_waiting_by_reason", "gauge", "engine", "0.20.2", _NEW),
        ("vllm:engine_sleep_state", "gauge", "engine", "0.11.1", _NEW),
        ("vllm:kv_cache_usage_perc", "gauge", "engine", "0.9.2", _NEW),
        ("vllm:gpu_cache_usage_perc", "gauge", "engine", "0.7.3", "0.10.2"),
        ("vllm:gpu_prefix_cache_queries_total", "counter", "engine", "0.7.3", "0.10.2"),
        ("vllm:gpu_prefix_cache_hits_total", "counter", "engine", "0.7.3", "0.10.2"),
        ("vllm:prefix_cache_queries_total", "counter", "engine", "0.9.2", _NEW),
        ("vllm:prefix_cache_hits_total", "counter", "engine", "0.9.2", _NEW),
        ("vllm:external_prefix_cache_queries_total", "counter", "engine", "0.11.2", _NEW),
        ("vllm:external_prefix_cache_hits_total", "counter", "engine", "0.11.2", _NEW),
        ("vllm:num_preemptions_total", "counter", "engine", "0.8.0", _NEW),
        ("vllm:prompt_tokens_total", "counter", "engine", "0.7.3", _NEW),
        ("vllm:prompt_tokens_by_source_total", "counter", "engine", "0.16.0", _NEW),
        ("vllm:prompt_tokens_cached_total", "counter", "engine", "0.16.0", _NEW),
        ("vllm:generation_tokens_total", "counter", "engine", "0.7.3", _NEW),
        ("vllm:request_success_total", "counter", "engine", "0.7.3", _NEW),
        ("vllm:iteration_tokens_total", "histogram", "engine", "0.7.3", _NEW),
        ("vllm:time_to_first_token_seconds", "histogram", "engine", "0.7.3", _NEW),
        ("vllm:time_per_output_token_seconds", "histogram", "engine", "0.7.3", "0.11.2"),
        ("vllm:inter_token_latency_seconds", "histogram", "engine", "0.10.2", _NEW),
        ("vllm:request_time_per_output_token_seconds", "histogram", "engine", "0.11.0", _NEW),
        ("vllm:e2e_request_latency_seconds", "histogram", "engine", "0.7.3", _NEW),
        ("vllm:request_queue_time_seconds", "histogram", "engine", "0.7.3", _NEW),
        ("vllm:request_prefill_time_seconds", "histogram", "engine", "0.7.3", _NEW),
        ("vllm:request_prefill_kv_computed_tokens", "histogram", "engine", "0.13.0", _NEW),
    ),
    labels={
        "process": (("0.7.3", _NEW, ({},)),),
        "engine": (("0.7.3", "0.8.0", (_MODEL,)), ("0.8.4", _NEW, (_ENGINE,))),
    },
    variants={
        "vllm:num_requests_waiting_by_reason": (("0.20.2", _NEW, ({"reason": "capacity"}, {"reason": "deferred"})),),
        "vllm:engine_sleep_state": (("0.11.1", _NEW, _STATES),),
        "vllm:prompt_tokens_by_source_total": (("0.16.0", _NEW, _TOKEN_SOURCES),),
        "vllm:request_success_total": (
            ("0.7.3", "0.12.0", _REASONS[:3]),
            ("0.13.0", "0.16.0", _REASONS[:4]),
            ("0.18.1", _NEW, _REASONS),
        ),
    },
    bounds={
        "vllm:time_to_first_token_seconds": (("0.7.3", "0.8.0", _TTFT), ("0.8.4", _NEW, _TTFT_LONG)),
        "vllm:time_per_output_token_seconds": (("0.7.3", "0.8.0", _TPOT), ("0.8.4", _NEW, _TPOT_LONG)),
        "vllm:inter_token_latency_seconds": (("0.10.2", _NEW, _TPOT_LONG),),
        "vllm:request_time_per_output_token_seconds": (("0.11.0", _NEW, _TPOT_LONG),),
        "vllm:iteration_tokens_total": (("0.7.3", _NEW, _TOKENS),),
        "other": (("0.7.3", "0.8.0", _E2E), ("0.8.4", _NEW, _E2E_LONG)),
    },
    expected={
        "kthena:generation_tokens_total": (("0.7.3", _NEW, "vllm:generation_tokens_total"),),
        "kthena:num_requests_waiting": (("0.7.3", _NEW, "vllm:num_requests_waiting"),),
        "kthena:time_to_first_token_seconds": (("0.7.3", _NEW, "vllm:time_to_first_token_seconds"),),
        "kthena:time_per_output_token_seconds": (
            ("0.7.3", "0.11.2", "vllm:time_per_output_token_seconds"),
            ("0.12.0", _NEW, "vllm:inter_token_latency_seconds"),
        ),
        "kthena:e2e_request_latency_seconds": (("0.7.3", _NEW, "vllm:e2e_request_latency_seconds"),),
        "kthena:num_requests_running": (("0.7.3", _NEW, "vllm:num_requests_running"),),
        "kthena:prompt_tokens_total": (("0.7.3", _NEW, "vllm:prompt_tokens_total"),),
        "kthena:kv_cache_usage_ratio": (
            ("0.7.3", "0.9.1", "vllm:gpu_cache_usage_perc"),
            ("0.9.2", _NEW, "vllm:kv_cache_usage_perc"),
        ),
        "kthena:prefix_cache_queries_total": (("0.9.2", _NEW, "vllm:prefix_cache_queries_total"),),
        "kthena:prefix_cache_hits_total": (("0.9.2", _NEW, "vllm:prefix_cache_hits_total"),),
        "kthena:request_success_total": (("0.7.3", _NEW, "vllm:request_success_total"),),
    },
)

# The _created gauges were switched off as long as V0's metrics were there.
_HAS_CREATED = (("0.11.1", _NEW, True),)

_TWO_ENGINES = replace(
    _V1_TABLE,
    labels={**_V1_TABLE.labels, "engine": (("0.8.4", _NEW, (_ENGINE, {**_ENGINE, "engine": "1"})),)},
)
_OWN_BUCKETS = replace(_V1_TABLE, bounds={"other": ((_NEW, _NEW, (0.05, 0.5, 5.0)),)})
_HIDDEN_TPOT = Family("vllm:time_per_output_token_seconds", "histogram", (_ENGINE,), _TPOT_LONG)
_HIDDEN_KV = (
    Family("vllm:gpu_cache_usage_perc", "gauge", (_ENGINE,)),
    Family("vllm:gpu_prefix_cache_queries_total", "counter", (_ENGINE,)),
    Family("vllm:gpu_prefix_cache_hits_total", "counter", (_ENGINE,)),
)


def _page(table: Table, version: str, name: str, *shown: Family) -> VersionPage:
    created = bool(at(_V1, _HAS_CREATED, version)) if version in _V1 else False
    text = python_page([*table.page(version), *shown], created=created)
    return VersionPage("vllm", name, text, table.sources(version))


def _several_api_servers(version: str) -> VersionPage:
    """Prometheus's multiprocess mode: no process_* families, no _created."""
    families = [family for family in _V1_TABLE.page(version) if family.name.startswith("vllm:")]
    text = python_page(families, multiprocess=True)
    return VersionPage("vllm", f"{version} --api-server-count=2", text, _V1_TABLE.sources(version))


def _shows_hidden(version: str, option: str, *shown: Family, **sources: str) -> VersionPage:
    page = _page(_V1_TABLE, version, f"{version} --show-hidden-metrics-for-version={option}", *shown)
    expected = {**page.expected, **{f"kthena:{name}": source for name, source in sources.items()}}
    return replace(page, expected=expected)


VLLM_PAGES = (
    *(_page(_V0_TABLE, version, f"{version} V0") for version in _V0),
    *(_page(_V1_TABLE, version, version) for version in _V1),
    _page(_TWO_ENGINES, "0.8.4", "0.8.4 --data-parallel-size=2"),
    _page(_TWO_ENGINES, _NEW, "0.33.0 --data-parallel-size=2"),
    _page(_OWN_BUCKETS, _NEW, "0.33.0 custom_histogram_buckets"),
    _several_api_servers(_NEW),
    _shows_hidden("0.11.2", "0.10", *_HIDDEN_KV, kv_cache_usage_ratio="vllm:kv_cache_usage_perc"),
    *(
        _shows_hidden(version, "0.11", _HIDDEN_TPOT, time_per_output_token_seconds="vllm:time_per_output_token_seconds")
        for version in ("0.12.0", "0.13.0", "0.14.1")
    ),
)
