"""Text Generation Inference, LMDeploy, llama.cpp and MindIE."""

from __future__ import annotations

from dataclasses import replace

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
)
from simulators.versions.rendering import plain_page, python_page
from simulators.versions.table import VersionPage

__all__ = ["OTHER_PAGES"]

_TGI = (
    counter("tgi_request_count"),
    counter("tgi_request_success"),
    counter("tgi_request_failure", {"err": "validation"}, {"err": "overloaded"}),
    gauge("tgi_queue_size"),
    gauge("tgi_batch_current_size"),
    gauge("tgi_batch_current_max_tokens"),
    histogram("tgi_request_duration", TTFT),
    histogram("tgi_request_queue_duration", TTFT),
    histogram("tgi_request_inference_duration", TTFT),
    histogram("tgi_request_mean_time_per_token_duration", TPOT),
    histogram("tgi_batch_forward_duration", TPOT, {"method": "prefill"}, {"method": "decode"}),
    histogram("tgi_request_input_length", TOKENS),
    histogram("tgi_request_generated_tokens", TOKENS),
    histogram("tgi_request_max_new_tokens", TOKENS),
)
_TGI_PAGE = VersionPage(
    *("tgi", "3.3.7", plain_page(_TGI, separator="\n")),
    expected(
        generation_tokens_total="tgi_request_generated_tokens_sum",
        num_requests_waiting="tgi_queue_size",
        time_per_output_token_seconds="tgi_request_mean_time_per_token_duration",
        e2e_request_latency_seconds="tgi_request_duration",
        num_requests_running="tgi_batch_current_size",
        prompt_tokens_total="tgi_request_input_length_sum",
        request_success_total="tgi_request_success",
    ),
)

_LMDEPLOY = labelled(
    {"engine": "0", "model_name": "internlm3-8b"},
    gauge("lmdeploy:num_requests_running"),
    gauge("lmdeploy:num_requests_waiting"),
    gauge("lmdeploy:num_api_requests_waiting"),
    gauge("lmdeploy:gpu_cache_usage_perc"),
    counter("lmdeploy:prompt_tokens_total"),
    counter("lmdeploy:generation_tokens_total"),
    counter("lmdeploy:request_success_total", *REASONS),
    histogram("lmdeploy:iteration_tokens_total", TOKENS),
    histogram("lmdeploy:time_to_first_token_seconds", TTFT),
    histogram("lmdeploy:time_per_output_token_seconds", TPOT),
    histogram("lmdeploy:iter_token_latency", TPOT),
    histogram("lmdeploy:e2e_request_latency_seconds", E2E),
    histogram("lmdeploy:request_queue_time_seconds", E2E),
)
_LMDEPLOY_PAGE = VersionPage(
    *("lmdeploy", "api_server", python_page(_LMDEPLOY)),
    expected(
        generation_tokens_total="lmdeploy:generation_tokens_total",
        num_requests_waiting="lmdeploy:num_requests_waiting",
        time_to_first_token_seconds="lmdeploy:time_to_first_token_seconds",
        time_per_output_token_seconds="lmdeploy:time_per_output_token_seconds",
        e2e_request_latency_seconds="lmdeploy:e2e_request_latency_seconds",
        num_requests_running="lmdeploy:num_requests_running",
        prompt_tokens_total="lmdeploy:prompt_tokens_total",
        kv_cache_usage_ratio="lmdeploy:gpu_cache_usage_perc",
        request_success_total="lmdeploy:request_success_total",
    ),
)

_LLAMACPP = (
    counter("llamacpp:prompt_tokens_total"),
    counter("llamacpp:prompt_seconds_total"),
    counter("llamacpp:tokens_predicted_total"),
    counter("llamacpp:tokens_predicted_seconds_total"),
    counter("llamacpp:n_decode_total"),
    counter("llamacpp:n_tokens_max"),
    counter("llamacpp:n_busy_slots_per_decode"),
    gauge("llamacpp:prompt_tokens_seconds"),
    gauge("llamacpp:predicted_tokens_seconds"),
    gauge("llamacpp:requests_processing"),
    gauge("llamacpp:requests_deferred"),
)
_LLAMACPP_NEW = tuple(
    replace(family, kind="gauge") if family.name == "llamacpp:n_busy_slots_per_decode" else family
    for family in _LLAMACPP
)
_LLAMACPP_SOURCES = expected(
    generation_tokens_total="llamacpp:tokens_predicted_total",
    num_requests_waiting="llamacpp:requests_deferred",
    num_requests_running="llamacpp:requests_processing",
)
_LLAMACPP_PAGES = (
    VersionPage("llamacpp", "b6700", plain_page(_LLAMACPP), _LLAMACPP_SOURCES),
    VersionPage("llamacpp", "b10519", plain_page(_LLAMACPP_NEW), _LLAMACPP_SOURCES),
)

_MINDIE = labelled(
    {"model_name": "Qwen3-8B"},
    counter("request_received_total"),
    counter("request_success_total"),
    counter("request_failed_total"),
    counter("num_preemptions_total"),
    gauge("num_requests_running"),
    gauge("num_requests_waiting"),
    gauge("num_requests_swapped"),
    counter("prompt_tokens_total"),
    counter("generation_tokens_total"),
    gauge("avg_generation_throughput_toks_per_s"),
    gauge("npu_cache_usage_perc"),
    gauge("cpu_cache_usage_perc"),
    gauge("npu_prefix_cache_hit_rate"),
    histogram("time_to_first_token_seconds", TTFT),
    histogram("time_per_output_token_seconds", TPOT),
    histogram("e2e_request_latency_seconds", E2E),
    histogram("request_prompt_tokens", TOKENS),
)
_MINDIE_PAGE = VersionPage(
    *("mindie", "MindIE-Service", plain_page(_MINDIE)),
    expected(
        generation_tokens_total="generation_tokens_total",
        num_requests_waiting="num_requests_waiting",
        time_to_first_token_seconds="time_to_first_token_seconds",
        time_per_output_token_seconds="time_per_output_token_seconds",
        e2e_request_latency_seconds="e2e_request_latency_seconds",
        num_requests_running="num_requests_running",
        prompt_tokens_total="prompt_tokens_total",
        kv_cache_usage_ratio="npu_cache_usage_perc",
        request_success_total="request_success_total",
    ),
)

OTHER_PAGES = (_TGI_PAGE, _LMDEPLOY_PAGE, *_LLAMACPP_PAGES, _MINDIE_PAGE)
