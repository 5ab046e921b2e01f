"""The families on the metrics page of vLLM 0.32, in page order, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram, Summary

from simulators.engine.families import Family
from simulators.engine.traffic import BLOCK_TOKENS, MAX_MODEL_LEN

if TYPE_CHECKING:
    from collections.abc import Sequence

_BASE = ("model_name", "engine")

_TTFT = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_TOKEN_LATENCY = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_REQUEST_LATENCY = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_TOKENS = tuple(
    float(digit * 10**power) for power in range(4) for digit in (1, 2, 5) if digit * 10**power <= MAX_MODEL_LEN
)
_STEP_TOKENS = (1.0, *(float(2**power) for power in range(3, 15)))
_FEW = (1.0, 2.0, 5.0, 10.0, 20.0)
_PREEMPTIONS = (1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0)
_HTTP_FINE = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5),
    *(3.0, 3.5, 4.0, 4.5, 5.0, 7.5, 10.0, 30.0, 60.0),
)
_HTTP_COARSE = (0.1, 0.5, 1.0)


def _counter(name: str, text: str, label: str = "", presets: Sequence[str] = ()) -> Family:
    labels = (*_BASE, label) if label else _BASE
    return Family(Counter, f"vllm:{name}", text, labels, presets=tuple((one,) for one in presets))


def _gauge(name: str, text: str, label: str = "", presets: Sequence[str] = ()) -> Family:
    labels = (*_BASE, label) if label else _BASE
    return Family(Gauge, f"vllm:{name}", text, labels, presets=tuple((one,) for one in presets))


def _histogram(name: str, text: str, buckets: tuple[float, ...]) -> Family:
    return Family(Histogram, f"vllm:{name}", text, _BASE, buckets)


_FLOPS_NOTE = "(for Model Flops Utilization calculations)."
_NO_PERCENTILE = "Only value of header is respected. Otherwise ignored. No percentile calculated. "

_SCHEDULER = (
    _counter(
        "estimated_flops_per_gpu",
        f"Estimated number of floating point operations per GPU {_FLOPS_NOTE}",
    ),
    _counter(
        "estimated_read_bytes_per_gpu",
        f"Estimated number of bytes read from memory per GPU {_FLOPS_NOTE}",
    ),
    _counter(
        "estimated_write_bytes_per_gpu",
        f"Estimated number of bytes written to memory per GPU {_FLOPS_NOTE}",
    ),
    _gauge("num_requests_running", "Number of requests in model execution batches."),
    _gauge("num_requests_waiting", "Number of requests waiting to be processed."),
    _gauge(
        "num_requests_waiting_by_reason",
        "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling"
        " capacity; 'deferred' = deferred by transient constraints (LoRA budget, KV transfer,"
        " blocked status). Sum of all reasons equals vllm:num_requests_waiting.",
        "reason",
        ("capacity", "deferred"),
    ),
    _gauge(
        "engine_sleep_state",
        "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake;"
        " weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2.",
        "sleep_state",
        ("awake", "weights_offloaded", "discard_all"),
    ),
    _gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage."),
)

_TOKEN_COUNTERS = (
    _counter("prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens."),
    _counter("prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens."),
    _counter(
        "external_prefix_cache_queries",
        "External prefix cache queries from KV connector cross-instance cache sharing,"
        " in terms of number of queried tokens.",
    ),
    _counter(
        "external_prefix_cache_hits",
        "External prefix cache hits from KV connector cross-instance cache sharing,"
        " in terms of number of cached tokens.",
    ),
    _counter("mm_cache_queries", "Multi-modal cache queries, in terms of number of queried items."),
    _counter("mm_cache_hits", "Multi-modal cache hits, in terms of number of cached items."),
    _counter("num_preemptions", "Cumulative number of preemption from the engine."),
    _counter("prompt_tokens", "Number of prefill tokens processed."),
    _counter(
        "prompt_tokens_by_source",
        "Number of prompt tokens by source.",
        "source",
        ("local_compute", "local_cache_hit", "external_kv_transfer"),
    ),
    _counter("prompt_tokens_cached", "Number of cached prompt tokens (local + external)."),
    _counter(
        "prompt_tokens_cached_by_source",
        "Prefix-cache hit tokens by the cache tier that supplied them: device (local HBM), host"
        " (offloaded to DRAM), disk, p2p (transferred from another vLLM instance) or"
        " external_unspecified. Counted at admission; sums to vllm:prefix_cache_hits +"
        " vllm:external_prefix_cache_hits.",
        "source",
        ("device", "host", "p2p", "disk", "external_unspecified"),
    ),
    _counter("generation_tokens", "Number of generation tokens processed."),
    _counter(
        "request_success",
        "Count of successfully processed requests.",
        "finished_reason",
        ("stop", "length", "abort", "error", "repetition"),
    ),
    Family(
        Counter,
        "vllm:admission_rejections",
        "Number of admission attempts rejected by a queue limit, by reason.",
        ("model_name", "reason"),
        presets=(("max_num_queued_reqs",), ("max_num_queued_tokens",)),
    ),
)

_REQUESTS = (
    _histogram("request_prompt_tokens", "Number of prefill tokens processed.", _TOKENS),
    _histogram("request_generation_tokens", "Number of generation tokens processed.", _TOKENS),
    _histogram("iteration_tokens_total", "Histogram of number of tokens per engine_step.", _STEP_TOKENS),
    _histogram(
        "request_max_num_generation_tokens",
        "Histogram of maximum number of requested generation tokens.",
        _TOKENS,
    ),
    _histogram("request_params_n", "Histogram of the n request parameter.", _FEW),
    _histogram("request_params_max_tokens", "Histogram of the max_tokens request parameter.", _TOKENS),
    _histogram("time_to_first_token_seconds", "Histogram of time to first token in seconds.", _TTFT),
    _histogram(
        "inter_token_latency_seconds",
        "Histogram of inter-token latency in seconds.",
        _TOKEN_LATENCY,
    ),
    _histogram(
        "request_time_per_output_token_seconds",
        "Histogram of time_per_output_token_seconds per request.",
        _TOKEN_LATENCY,
    ),
    _histogram(
        "e2e_request_latency_seconds",
        "Histogram of e2e request latency in seconds.",
        _REQUEST_LATENCY,
    ),
    *(
        _histogram(
            f"request_{phase}_time_seconds",
            f"Histogram of time spent in {state} phase for request.",
            _REQUEST_LATENCY,
        )
        for phase, state in (
            ("queue", "WAITING"),
            ("inference", "RUNNING"),
            ("prefill", "PREFILL"),
            ("decode", "DECODE"),
        )
    ),
    _histogram(
        "request_num_preemptions",
        "Histogram of the number of times a request was preempted.",
        _PREEMPTIONS,
    ),
    _histogram(
        "request_prefill_kv_computed_tokens",
        "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
        _TOKENS,
    ),
    Family(
        Gauge,
        "vllm:lora_requests_info",
        "Running stats on lora requests.",
        ("max_lora", "waiting_lora_adapters", "running_lora_adapters"),
    ),
)

CACHE_CONFIG = {
    "_block_size_resolved": "True",
    "block_size": str(BLOCK_TOKENS),
    "cache_dtype": "auto",
    "cache_hit_alignment_tokens": "None",
    "effective_attention_block_size": str(BLOCK_TOKENS),
    "enable_mamba_shared_prefix_checkpoint": "False",
    "enable_prefix_caching": "True",
    "gpu_memory_utilization": "0.92",
    "hash_block_size": "None",
    "is_attention_free": "False",
    "kv_cache_dtype_skip_layers": "[]",
    "kv_cache_layout": "None",
    "kv_cache_memory_bytes": "None",
    "kv_offloading_backend": "native",
    "kv_offloading_size": "None",
    "kv_sharing_fast_prefill": "False",
    "mamba_block_size": "None",
    "mamba_cache_dtype": "auto",
    "mamba_cache_mode": "none",
    "mamba_page_size_padded": "None",
    "mamba_ssm_cache_dtype": "float32",
    "num_cpu_blocks": "None",
    "num_gpu_blocks_override": "None",
    "prefix_cache_retention_interval": "0",
    "prefix_caching_hash_algo": "sha256",
    "prefix_match_unit": "None",
    "replayssm_buffer_len": "16",
    "skip_page_size_padded": "None",
    "sliding_window": "None",
    "swa_bounded_replay": "True",
    "use_kda_recoverssm": "False",
    "use_replayssm": "False",
    "user_specified_block_size": "False",
}
CACHE_SIZES = ("kv_cache_max_concurrency", "kv_cache_size_tokens", "num_gpu_blocks")

ENGINE = (
    *_SCHEDULER,
    *_TOKEN_COUNTERS,
    *_REQUESTS,
    Family(
        Gauge,
        "vllm:cache_config_info",
        "Information of the LLMEngine CacheConfig",
        (*CACHE_CONFIG, "engine", *CACHE_SIZES),
    ),
)

HTTP = (
    Family(
        Counter,
        "http_requests",
        "Total number of requests by method, status and handler.",
        ("method", "status", "handler"),
    ),
    Family(
        Summary,
        "http_request_size_bytes",
        f"Content length of incoming requests by handler. {_NO_PERCENTILE}",
        ("handler",),
    ),
    Family(
        Summary,
        "http_response_size_bytes",
        f"Content length of outgoing responses by handler. {_NO_PERCENTILE}",
        ("handler",),
    ),
    Family(
        Histogram,
        "http_request_duration_highr_seconds",
        "Latency with many buckets but no API specific labels. Made for more accurate percentile calculations. ",
        buckets=_HTTP_FINE,
    ),
    Family(
        Histogram,
        "http_request_duration_seconds",
        "Latency with only few buckets by handler. Made to be only used if aggregation by handler is important. ",
        ("method", "handler"),
        _HTTP_COARSE,
    ),
)
