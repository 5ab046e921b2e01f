"""NVIDIA's engines: TensorRT-LLM by itself, in Triton and in Dynamo, and Dynamo's frontend."""

from __future__ import annotations

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
from simulators.versions.rendering import plain_page, python_page
from simulators.versions.table import VersionPage

if TYPE_CHECKING:
    from simulators.versions.rendering import Labels

__all__ = ["NVIDIA_PAGES"]

_TRTLLM_LABELS: Labels = {"engine_type": "trtllm", "model_name": "nemotron-nano-3"}
_TRTLLM_OLD = labelled(
    _TRTLLM_LABELS,
    counter("request_success_total", *REASONS),
    histogram("e2e_request_latency_seconds", E2E),
    histogram("time_to_first_token_seconds", TTFT),
    histogram("time_per_output_token_seconds", TPOT),
    histogram("request_queue_time_seconds", E2E),
)
_TRTLLM = (
    *renamed("trtllm_{}".format, _TRTLLM_OLD),
    *labelled(
        _TRTLLM_LABELS,
        counter("trtllm_prompt_tokens_total"),
        counter("trtllm_generation_tokens_total"),
        counter("trtllm_prompt_cached_tokens_total"),
        counter("trtllm_kv_cache_reused_blocks_total"),
        counter("trtllm_kv_cache_missed_blocks_total"),
        gauge("trtllm_kv_cache_hit_rate"),
        gauge("trtllm_kv_cache_utilization"),
        gauge("trtllm_num_requests_running"),
        gauge("trtllm_num_requests_waiting"),
        counter("trtllm_num_requests_completed_total"),
        histogram("trtllm_request_prefill_time_seconds", TTFT),
    ),
)
_TRITON_LABELS: Labels = {"model": "tensorrt_llm", "version": "1"}
_TRITON_REQUESTS = tuple({"request_type": kind} for kind in ("active", "max", "scheduled", "context", "waiting"))
_TRITON_BLOCKS = tuple({"kv_cache_block_type": kind} for kind in ("max", "free", "used", "fraction"))
_TRITON = labelled(
    _TRITON_LABELS,
    counter("nv_inference_request_success"),
    counter("nv_inference_request_duration_us"),
    histogram("nv_inference_first_response_histogram_ms", (100.0, 500.0, 2000.0, 5000.0)),
    gauge("nv_trt_llm_request_metrics", *_TRITON_REQUESTS),
    gauge("nv_trt_llm_kv_cache_block_metrics", *_TRITON_BLOCKS),
    histogram("nv_llm_input_token_len", TOKENS, {"response_metric_type": "total_input_tokens"}),
    histogram("nv_llm_output_token_len", TOKENS, {"response_metric_type": "total_output_tokens"}),
)
_TRITON_SOURCES = expected(
    generation_tokens_total="nv_llm_output_token_len_sum",
    num_requests_waiting="nv_trt_llm_request_metrics",
    num_requests_running="nv_trt_llm_request_metrics",
    prompt_tokens_total="nv_llm_input_token_len_sum",
    kv_cache_usage_ratio="nv_trt_llm_kv_cache_block_metrics",
)
_TRITON_PAGE = VersionPage(
    *("trtllm", "Triton backend", plain_page(_TRITON)),
    _TRITON_SOURCES | {"kthena:time_to_first_token_seconds": "nv_inference_first_response_histogram_ms"},
    dropped={
        "kthena:num_requests_waiting": _TRITON_REQUESTS[:4],
        "kthena:num_requests_running": (*_TRITON_REQUESTS[:2], *_TRITON_REQUESTS[3:]),
        "kthena:kv_cache_usage_ratio": _TRITON_BLOCKS[:3],
    },
    scale={"kthena:time_to_first_token_seconds": 0.001},
)
_TRTLLM_PAGES = (
    VersionPage(
        *("trtllm", "trtllm-serve", python_page(_TRTLLM, created=True)),
        expected(
            generation_tokens_total="trtllm_generation_tokens_total",
            num_requests_waiting="trtllm_num_requests_waiting",
            time_to_first_token_seconds="trtllm_time_to_first_token_seconds",
            time_per_output_token_seconds="trtllm_time_per_output_token_seconds",
            e2e_request_latency_seconds="trtllm_e2e_request_latency_seconds",
            num_requests_running="trtllm_num_requests_running",
            prompt_tokens_total="trtllm_prompt_tokens_total",
            kv_cache_usage_ratio="trtllm_kv_cache_utilization",
            prefix_cache_queries_total="trtllm_prompt_tokens_total",
            prefix_cache_hits_total="trtllm_prompt_cached_tokens_total",
            request_success_total="trtllm_request_success_total",
        ),
    ),
    VersionPage(
        *("trtllm", "trtllm-serve 1.1.0rc", python_page(_TRTLLM_OLD, created=True)),
        expected(
            time_to_first_token_seconds="time_to_first_token_seconds",
            time_per_output_token_seconds="time_per_output_token_seconds",
            e2e_request_latency_seconds="e2e_request_latency_seconds",
            request_success_total="request_success_total",
        ),
    ),
    VersionPage(
        *("trtllm", "1.1.0rc in a Dynamo worker", python_page(renamed("trtllm:{}".format, _TRTLLM_OLD), created=True)),
        expected(
            time_to_first_token_seconds="trtllm:time_to_first_token_seconds",
            time_per_output_token_seconds="trtllm:time_per_output_token_seconds",
            e2e_request_latency_seconds="trtllm:e2e_request_latency_seconds",
            request_success_total="trtllm:request_success_total",
        ),
    ),
    _TRITON_PAGE,
)

_DYNAMO_OUTCOMES = tuple(
    {"endpoint": "chat_completions", "error_type": error, "request_type": "stream", "status": status}
    for error, status in (("", "success"), ("validation", "error"), ("overload", "error"))
)
_DYNAMO = labelled(
    {"model": "deepseek-r1"},
    gauge("dynamo_frontend_disconnected_clients"),
    gauge("dynamo_frontend_inflight_requests"),
    gauge("dynamo_frontend_queued_requests"),
    histogram("dynamo_frontend_cached_tokens", TOKENS),
    histogram("dynamo_frontend_input_sequence_tokens", TOKENS),
    histogram("dynamo_frontend_output_sequence_tokens", TOKENS),
    histogram("dynamo_frontend_inter_token_latency_seconds", TPOT),
    counter("dynamo_frontend_output_tokens_total"),
    histogram("dynamo_frontend_request_duration_seconds", E2E),
    counter("dynamo_frontend_requests_total", *_DYNAMO_OUTCOMES),
    histogram("dynamo_frontend_time_to_first_token_seconds", TTFT),
)
_DYNAMO_PAGE = VersionPage(
    *("dynamo", "frontend", plain_page(_DYNAMO)),
    expected(
        generation_tokens_total="dynamo_frontend_output_tokens_total",
        num_requests_waiting="dynamo_frontend_queued_requests",
        time_to_first_token_seconds="dynamo_frontend_time_to_first_token_seconds",
        time_per_output_token_seconds="dynamo_frontend_inter_token_latency_seconds",
        e2e_request_latency_seconds="dynamo_frontend_request_duration_seconds",
        prompt_tokens_total="dynamo_frontend_input_sequence_tokens_sum",
        request_success_total="dynamo_frontend_requests_total",
    ),
    dropped={"kthena:request_success_total": ({"status": "error"},)},
)

NVIDIA_PAGES = (*_TRTLLM_PAGES, _DYNAMO_PAGE)
