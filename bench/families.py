"""What vLLM exposes: families, labels and buckets of one model's metrics.

`DEFAULT` is what a vLLM 0.32 shows with its default flags, `OPTIONAL` what
speculative decoding and KV-block sampling add; `PROCESS` comes once a process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["DEFAULT", "OPTIONAL", "PROCESS", "Family", "Kind"]

Kind = Literal["counter", "gauge", "histogram", "constant"]


@dataclass(frozen=True, slots=True)
class Family:
    """One family.

    Attributes:
        kind: How its values move; a constant is a gauge that does not.
        name: As prometheus_client takes it: a counter's without `_total`.
        help: Its HELP text.
        scale: About how much happens between two scrapes; a gauge's ceiling.
        labels: Labels besides model and engine, for each of its series.
        buckets: A histogram's upper bounds, less the infinite one.
    """

    kind: Kind
    name: str
    help: str
    scale: float = 0.0
    labels: tuple[dict[str, str], ...] = ({},)
    buckets: tuple[float, ...] = ()


def _each(label: str, *values: str) -> tuple[dict[str, str], ...]:
    return tuple({label: value} for value in values)


_FIRST_TOKEN: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
_PER_TOKEN: Final = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
_REQUEST: Final = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
    120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
_BLOCK: Final = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0,
    120.0, 300.0, 600.0, 1200.0, 1800.0,
)  # fmt: skip
_STEP_TOKENS: Final = (1.0, *(float(2**power) for power in range(3, 15)))
_TOKENS: Final = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))[:-2]
_COUNTS: Final = (1.0, 2.0, 5.0, 10.0, 20.0)
_PREEMPTIONS: Final = (1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0)

_CACHE_CONFIG: Final = {
    "block_size": "16",
    "cache_dtype": "auto",
    "calculate_kv_scales": "False",
    "cpu_offload_gb": "0",
    "enable_prefix_caching": "True",
    "gpu_memory_utilization": "0.92",
    "is_attention_free": "False",
    "kv_cache_size_tokens": "2097152",
    "kv_sharing_fast_prefill": "False",
    "mamba_cache_dtype": "auto",
    "num_cpu_blocks": "None",
    "num_gpu_blocks": "131072",
    "prefix_caching_hash_algo": "sha256",
    "sliding_window": "None",
    "swap_space": "4",
    "user_specified_block_size": "False",
}

DEFAULT: Final = (
    Family("counter", "vllm:estimated_flops_per_gpu", "Estimated floating point operations of each GPU."),
    Family("counter", "vllm:estimated_read_bytes_per_gpu", "Estimated bytes read from memory by each GPU."),
    Family("counter", "vllm:estimated_write_bytes_per_gpu", "Estimated bytes written to memory by each GPU."),
    Family("gauge", "vllm:num_requests_running", "Number of requests in model execution batches.", 256),
    Family("gauge", "vllm:num_requests_waiting", "Number of requests waiting to be processed.", 64),
    Family(
        "gauge",
        "vllm:num_requests_waiting_by_reason",
        "Number of waiting requests by reason: 'capacity' waits for room, 'deferred' for something else.",
        48,
        _each("reason", "capacity", "deferred"),
    ),
    Family(
        "constant",
        "vllm:engine_sleep_state",
        "Engine sleep state; awake = 0 means the engine is sleeping.",
        1,
        _each("sleep_state", "awake", "weights_offloaded", "discard_all"),
    ),
    Family("gauge", "vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", 1),
    Family("counter", "vllm:prefix_cache_queries", "Prefix cache queries, in number of queried tokens.", 90_000),
    Family("counter", "vllm:prefix_cache_hits", "Prefix cache hits, in number of cached tokens.", 40_000),
    Family("counter", "vllm:external_prefix_cache_queries", "Queries of the external prefix cache, in tokens."),
    Family("counter", "vllm:external_prefix_cache_hits", "Hits in the external prefix cache, in tokens."),
    Family("counter", "vllm:mm_cache_queries", "Multi-modal cache queries, in number of queried items."),
    Family("counter", "vllm:mm_cache_hits", "Multi-modal cache hits, in number of cached items."),
    Family("counter", "vllm:num_preemptions", "Cumulative number of preemptions.", 2),
    Family("counter", "vllm:prompt_tokens", "Number of prefill tokens processed.", 90_000),
    Family(
        "counter",
        "vllm:prompt_tokens_by_source",
        "Number of prompt tokens by source.",
        45_000,
        _each("source", "local_compute", "local_cache_hit", "external_kv_transfer"),
    ),
    Family("counter", "vllm:prompt_tokens_cached", "Number of cached prompt tokens, local and external.", 40_000),
    Family(
        "counter",
        "vllm:prompt_tokens_cached_by_source",
        "Cached prompt tokens by the cache tier that had them.",
        8_000,
        _each("source", "device", "host", "p2p", "disk", "external_unspecified"),
    ),
    Family("counter", "vllm:generation_tokens", "Number of generation tokens processed.", 30_000),
    Family(
        "counter",
        "vllm:request_success",
        "Count of successfully processed requests.",
        20,
        _each("finished_reason", "stop", "length", "abort", "error", "repetition"),
    ),
    Family(
        "counter",
        "vllm:admission_rejections",
        "Number of admission attempts rejected by a queue limit, by reason.",
        0,
        _each("reason", "max_num_queued_reqs", "max_num_queued_tokens"),
    ),
    Family("histogram", "vllm:request_prompt_tokens", "Number of prefill tokens processed.", 40, buckets=_TOKENS),
    Family("histogram", "vllm:request_generation_tokens", "Number of generation tokens.", 40, buckets=_TOKENS),
    Family("histogram", "vllm:iteration_tokens_total", "Tokens per engine_step.", 200, buckets=_STEP_TOKENS),
    Family(
        "histogram",
        "vllm:request_max_num_generation_tokens",
        "Maximum number of requested generation tokens.",
        40,
        buckets=_TOKENS,
    ),
    Family("histogram", "vllm:request_params_n", "The n request parameter.", 40, buckets=_COUNTS),
    Family("histogram", "vllm:request_params_max_tokens", "The max_tokens parameter.", 40, buckets=_TOKENS),
    Family(
        "histogram", "vllm:time_to_first_token_seconds", "Time to first token in seconds.", 40, buckets=_FIRST_TOKEN
    ),
    Family("histogram", "vllm:inter_token_latency_seconds", "Inter-token latency in seconds.", 400, buckets=_PER_TOKEN),
    Family(
        "histogram",
        "vllm:request_time_per_output_token_seconds",
        "Time per output token of each request in seconds.",
        40,
        buckets=_PER_TOKEN,
    ),
    Family("histogram", "vllm:e2e_request_latency_seconds", "Latency of requests in seconds.", 40, buckets=_REQUEST),
    Family("histogram", "vllm:request_queue_time_seconds", "Time in WAITING of requests.", 40, buckets=_REQUEST),
    Family("histogram", "vllm:request_inference_time_seconds", "Time in RUNNING.", 40, buckets=_REQUEST),
    Family("histogram", "vllm:request_prefill_time_seconds", "Time in PREFILL.", 40, buckets=_REQUEST),
    Family("histogram", "vllm:request_decode_time_seconds", "Time in DECODE.", 40, buckets=_REQUEST),
    Family("histogram", "vllm:request_num_preemptions", "Preemptions of a request.", 40, buckets=_PREEMPTIONS),
    Family(
        "histogram",
        "vllm:request_prefill_kv_computed_tokens",
        "New KV tokens computed during prefill, cached ones left out.",
        40,
        buckets=_TOKENS,
    ),
    Family("constant", "vllm:cache_config_info", "Information of the engine's CacheConfig", 1, (_CACHE_CONFIG,)),
)

OPTIONAL: Final = (
    Family("counter", "vllm:spec_decode_num_drafts", "Number of speculative drafts.", 9_000),
    Family("counter", "vllm:spec_decode_num_draft_tokens", "Number of draft tokens.", 45_000),
    Family("counter", "vllm:spec_decode_num_accepted_tokens", "Number of accepted tokens.", 20_000),
    Family(
        "counter",
        "vllm:spec_decode_num_accepted_tokens_per_pos",
        "Accepted tokens per draft position.",
        4_000,
        _each("position", *"01234"),
    ),
    Family("histogram", "vllm:kv_block_lifetime_seconds", "Lifetime of KV blocks.", 300, buckets=_BLOCK),
    Family("histogram", "vllm:kv_block_idle_before_evict_seconds", "Idle time of KV blocks.", 300, buckets=_BLOCK),
    Family("histogram", "vllm:kv_block_reuse_gap_seconds", "Time between reuses.", 300, buckets=_BLOCK),
)

_GENERATIONS: Final = _each("generation", *"012")

PROCESS: Final = (
    Family("counter", "python_gc_objects_collected", "Objects collected during gc", 900, _GENERATIONS),
    Family("counter", "python_gc_objects_uncollectable", "Uncollectable objects found during GC", 0, _GENERATIONS),
    Family("counter", "python_gc_collections", "Number of times this generation was collected", 30, _GENERATIONS),
    Family(
        "constant",
        "python_info",
        "Python platform information",
        1,
        ({"implementation": "CPython", "major": "3", "minor": "12", "patchlevel": "11", "version": "3.12.11"},),
    ),
    Family("constant", "process_virtual_memory_bytes", "Virtual memory size in bytes.", 5.4e10),
    Family("gauge", "process_resident_memory_bytes", "Resident memory size in bytes.", 6.5e9),
    Family("constant", "process_start_time_seconds", "Start time of the process since unix epoch.", 1.79546864145e9),
    Family("counter", "process_cpu_seconds", "Total user and system CPU time spent in seconds.", 20),
    Family("gauge", "process_open_fds", "Number of open file descriptors.", 200),
    Family("constant", "process_max_fds", "Maximum number of open file descriptors.", 1048576.0),
    Family(
        "counter",
        "http_requests",
        "Total number of requests by method, status and handler.",
        40,
        tuple(
            {"handler": handler, "method": "POST", "status": status}
            for handler in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
            for status in ("2xx", "4xx")
        ),
    ),
)
