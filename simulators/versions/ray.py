"""vLLM under Ray Serve LLM: vLLM's families with Ray's names and labels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from simulators.versions.families import (
    E2E,
    REASONS,
    TOKENS,
    TPOT,
    TTFT,
    counter,
    expected,
    gauge,
    histogram,
    labelled,
    renamed,
)
from simulators.versions.rendering import python_page
from simulators.versions.table import VersionPage

if TYPE_CHECKING:
    from simulators.versions.rendering import Labels

__all__ = ["RAY_PAGES"]

_LABELS: Labels = {
    "Component": "core_worker",
    "NodeAddress": "10.0.0.7",
    "ReplicaId": "a1b2c3d4",
    "SessionName": "session_2026-11-20_09-00-00_000000_1",
    "Version": "2.51.0",
    "WorkerId": "0f0e0d0c",
    "engine": "0",
    "model_name": "llama",
}
_COMMON = labelled(
    _LABELS,
    gauge("ray_vllm_num_requests_running"),
    gauge("ray_vllm_num_requests_waiting"),
    counter("ray_vllm_prompt_tokens_total"),
    counter("ray_vllm_generation_tokens_total"),
    counter("ray_vllm_request_success_total", *REASONS),
    histogram("ray_vllm_iteration_tokens_total", TOKENS),
    histogram("ray_vllm_time_to_first_token_seconds", TTFT),
    histogram("ray_vllm_e2e_request_latency_seconds", E2E),
)
_PER_REQUEST = (
    *_COMMON,
    *labelled(
        _LABELS,
        gauge("ray_vllm_kv_cache_usage_perc"),
        counter("ray_vllm_prefix_cache_queries_total"),
        counter("ray_vllm_prefix_cache_hits_total"),
        histogram("ray_vllm_request_time_per_output_token_seconds", TPOT),
    ),
)
_NEW = (*_PER_REQUEST, *labelled(_LABELS, histogram("ray_vllm_inter_token_latency_seconds", TPOT)))
_OLD = (
    *_COMMON,
    *labelled(
        _LABELS,
        gauge("ray_vllm_gpu_cache_usage_perc"),
        counter("ray_vllm_gpu_prefix_cache_queries_total"),
        counter("ray_vllm_gpu_prefix_cache_hits_total"),
        histogram("ray_vllm_time_per_output_token_seconds", TPOT),
    ),
)
_GAUGE_TWINS = tuple(
    replace(family, name=family.name.removesuffix("_total"), kind="gauge")
    for family in _NEW
    if family.kind == "counter"
)

_NEW_SOURCES = expected(
    generation_tokens_total="ray_vllm_generation_tokens_total",
    num_requests_waiting="ray_vllm_num_requests_waiting",
    time_to_first_token_seconds="ray_vllm_time_to_first_token_seconds",
    time_per_output_token_seconds="ray_vllm_inter_token_latency_seconds",
    e2e_request_latency_seconds="ray_vllm_e2e_request_latency_seconds",
    num_requests_running="ray_vllm_num_requests_running",
    prompt_tokens_total="ray_vllm_prompt_tokens_total",
    kv_cache_usage_ratio="ray_vllm_kv_cache_usage_perc",
    prefix_cache_queries_total="ray_vllm_prefix_cache_queries_total",
    prefix_cache_hits_total="ray_vllm_prefix_cache_hits_total",
    request_success_total="ray_vllm_request_success_total",
)
_OLD_SOURCES = expected(
    generation_tokens_total="ray_vllm_generation_tokens_total",
    num_requests_waiting="ray_vllm_num_requests_waiting",
    time_to_first_token_seconds="ray_vllm_time_to_first_token_seconds",
    time_per_output_token_seconds="ray_vllm_time_per_output_token_seconds",
    e2e_request_latency_seconds="ray_vllm_e2e_request_latency_seconds",
    num_requests_running="ray_vllm_num_requests_running",
    prompt_tokens_total="ray_vllm_prompt_tokens_total",
    kv_cache_usage_ratio="ray_vllm_gpu_cache_usage_perc",
    request_success_total="ray_vllm_request_success_total",
)


def _with_colon(name: str) -> str:
    return name.replace("ray_vllm_", "ray_vllm:")


def _colon_page(page: VersionPage, families_text: bytes) -> VersionPage:
    """Make the page of an older vLLM, whose colon Ray left in the names."""
    sources = {name: source and _with_colon(source) for name, source in page.expected.items()}
    return replace(page, version=f"{page.version}, with a colon", text=families_text, expected=sources)


_NEW_PAGE = VersionPage("ray", "new vLLM names", python_page(_NEW), _NEW_SOURCES)
_OLD_PAGE = VersionPage("ray", "old vLLM names", python_page(_OLD), _OLD_SOURCES)

RAY_PAGES = (
    _NEW_PAGE,
    # Ray writes the deprecated gauge before the counter that it doubles.
    VersionPage("ray", "with gauge twins", python_page([*_GAUGE_TWINS, *_NEW]), _NEW_SOURCES),
    VersionPage(
        *("ray", "without inter-token latency", python_page(_PER_REQUEST)),
        _NEW_SOURCES | {"kthena:time_per_output_token_seconds": "ray_vllm_request_time_per_output_token_seconds"},
    ),
    _OLD_PAGE,
    _colon_page(_NEW_PAGE, python_page(renamed(_with_colon, _NEW))),
    _colon_page(_OLD_PAGE, python_page(renamed(_with_colon, _OLD))),
)
