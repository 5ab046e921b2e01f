"""The families on the metrics page of SGLang 0.5.23 without parallelism, as tables."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from simulators.engine.families import Family

_SCHEDULER = ("model_name", "engine_type", "tp_rank", "pp_rank", "moe_ep_rank")
_TOKENIZER = ("model_name", "engine_type")

_TTFT = (
    *(0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0),
    *(10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0, 400.0),
)
_E2E = (*_TTFT, 600.0, 1200.0, 1800.0, 2400.0)
_TOKEN_LATENCY = (
    *(0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08),
    *(0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0),
)
_QUEUE_TIME = (
    *(0.0, 0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0),
    *(10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0),
    *(100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0, 900.0),
    *(1000.0, 1200.0, 1400.0, 1600.0, 1800.0, 2000.0, 2500.0, 3000.0),
)
_STAGE = tuple(0.001 * 1.62**power for power in range(30))
_TOKENS = (
    *(100.0, 300.0, 500.0, 700.0, 1000.0, 1500.0, 2000.0, 3000.0, 4000.0, 5000.0),
    *(6000.0, 7000.0, 8000.0, 9000.0, 10000.0, 12500.0, 15000.0, 17500.0, 20000.0),
    *(22500.0, 25000.0, 27500.0, 30000.0, 35000.0, 40000.0, 60000.0, 80000.0),
    *(100000.0, 200000.0, 300000.0, 400000.0, 600000.0, 800000.0, 1000000.0, 1100000.0),
)


def _gauge(name: str, text: str, *extra: str) -> Family:
    return Family(Gauge, f"sglang:{name}", text, (*_SCHEDULER, *extra))


STATE = (
    _gauge("num_running_reqs", "The number of running requests."),
    _gauge("num_queue_reqs", "The number of requests in the waiting queue."),
    _gauge("gen_throughput", "The generation throughput (token/s)."),
    _gauge("cache_hit_rate", "The prefix cache hit rate."),
    _gauge("decode_sum_seq_lens", "The sum of all sequence lengths in decode."),
    _gauge("token_usage", "The token usage."),
    _gauge("full_token_usage", "The token usage for full attention layers."),
    _gauge("num_used_tokens", "The number of used tokens."),
    _gauge("kv_available_tokens", "Number of free token slots in the KV cache pool."),
    _gauge("kv_used_tokens", "Number of actively used token slots in the KV cache pool."),
    _gauge("lora_pool_slots_used", "Number of LoRA adapter slots currently occupied in GPU memory."),
    _gauge(
        "lora_pool_slots_total",
        "Total number of LoRA adapter slots available (max_loras_per_batch).",
    ),
    _gauge("lora_pool_utilization", "LoRA pool utilization ratio (used/total). 1.0 means pool is full."),
    # These two are merged in mode "all", so each process gives its own series.
    _gauge("num_retracted_reqs", "The number of retracted requests.", "pid"),
    _gauge("num_paused_reqs", "The number of paused requests by async weight sync.", "pid"),
)

# Published with the state, and zero in an engine without the feature they belong to.
UNUSED = (
    _gauge("num_grammar_queue_reqs", "The number of requests in the grammar waiting queue."),
    _gauge("swa_token_usage", "The token usage for SWA layers."),
    _gauge("mamba_usage", "The token usage for Mamba layers."),
    _gauge(
        "spec_accept_length",
        "Mean acceptance length of speculative decoding (accepted drafts + bonus token per forward).",
    ),
    _gauge(
        "spec_accept_rate",
        "Speculative acceptance rate (`accepted drafts / proposed drafts` in batch).",
    ),
    _gauge(
        "num_prefill_bootstrap_queue_reqs",
        "The number of requests in the prefill bootstrap queue.",
    ),
    _gauge("num_prefill_inflight_queue_reqs", "The number of requests in the prefill inflight queue."),
    _gauge("num_decode_prealloc_queue_reqs", "The number of requests in the decode prealloc queue."),
    _gauge("num_decode_transfer_queue_reqs", "The number of requests in the decode transfer queue."),
    _gauge("utilization", "The utilization."),
)

CONSTANTS = (
    _gauge("max_total_num_tokens", "Maximum total number of tokens in the KV cache pool."),
    _gauge("page_size", "KV cache page size in tokens."),
    _gauge("num_pages", "Number of KV cache pages."),
    _gauge("context_len", "Maximum context length."),
)

COUNTERS = (
    Family(
        Counter,
        "sglang:realtime_tokens",
        "Total number of tokens processed (updated on each log interval). "
        "mode: prefill_compute, prefill_cache, decode.",
        (*_SCHEDULER, "mode"),
    ),
    Family(
        Counter,
        "sglang:prefill_effective_tokens",
        "Effective prefill tokens with retracted-request re-counts excluded, updated on each log"
        " interval. mode: device_hit, host_hit, storage_hit, input. Windowed prefix cache hit rate"
        " = rate(sum of *_hit) / rate(sum of all modes); per-tier rate uses a single *_hit mode in"
        " the numerator.",
        (*_SCHEDULER, "mode"),
        presets=(("input",), ("device_hit",), ("host_hit",), ("storage_hit",)),
    ),
    Family(
        Counter,
        "sglang:num_retracted_requests",
        "Total number of retracted requests.",
        _SCHEDULER,
    ),
)

REQUESTS = (
    Family(
        Counter,
        "sglang:prompt_tokens",
        "Number of prefill tokens processed.",
        (*_TOKENIZER, "is_streaming"),
    ),
    Family(
        Counter,
        "sglang:generation_tokens",
        "Number of generation tokens processed.",
        (*_TOKENIZER, "is_streaming"),
    ),
    Family(
        Counter,
        "sglang:cached_tokens",
        "Number of cached prompt tokens by source (device/host/storage).",
        (*_TOKENIZER, "cache_source"),
    ),
    Family(
        Counter,
        "sglang:num_requests",
        "Number of requests processed.",
        (*_TOKENIZER, "is_streaming"),
    ),
    Family(Counter, "sglang:num_aborted_requests", "Number of requests aborted.", _TOKENIZER),
    Family(
        Histogram,
        "sglang:prompt_tokens_histogram",
        "Histogram of prompt token length.",
        _TOKENIZER,
        _TOKENS,
    ),
    Family(
        Histogram,
        "sglang:uncached_prompt_tokens_histogram",
        "Histogram of uncached (compute) prompt token length.",
        _TOKENIZER,
        _TOKENS,
    ),
    Family(
        Histogram,
        "sglang:generation_tokens_histogram",
        "Histogram of generation token length.",
        _TOKENIZER,
        _TOKENS,
    ),
    Family(
        Histogram,
        "sglang:time_to_first_token_seconds",
        "Histogram of time to first token in seconds.",
        (*_TOKENIZER, "is_streaming"),
        _TTFT,
    ),
    Family(
        Histogram,
        "sglang:inter_token_latency_seconds",
        "Histogram of inter-token latency in seconds.",
        _TOKENIZER,
        _TOKEN_LATENCY,
    ),
    Family(
        Histogram,
        "sglang:request_time_per_output_token_seconds",
        "Per-request TPOT in seconds: (finished_time - first_token_time) / (completion_tokens - 1).",
        (*_TOKENIZER, "is_streaming"),
        _TOKEN_LATENCY,
    ),
    Family(
        Histogram,
        "sglang:e2e_request_latency_seconds",
        "Histogram of End-to-end request latency in seconds",
        (*_TOKENIZER, "is_streaming"),
        _E2E,
    ),
    Family(
        Histogram,
        "sglang:queue_time_seconds",
        "Histogram of queueing time in seconds.",
        _SCHEDULER,
        _QUEUE_TIME,
    ),
    Family(
        Histogram,
        "sglang:per_stage_req_latency_seconds",
        "The latency of each stage of requests.",
        (*_SCHEDULER, "stage"),
        _STAGE,
    ),
)

ENGINE = (*CONSTANTS, *STATE, *UNUSED, *COUNTERS, *REQUESTS)
