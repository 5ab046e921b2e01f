"""Every metric name of the runtime, in one table.

Code, dashboards and the tests of the docs take names from here. The runtime's own
metrics are named `kthena_runtime_*`, and the standard ones `kthena:*`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, TypeAlias

# The required standard families.
STANDARD: Final = (
    "kthena:generation_tokens_total",
    "kthena:num_requests_waiting",
    "kthena:time_to_first_token_seconds",
    "kthena:time_per_output_token_seconds",
    "kthena:e2e_request_latency_seconds",
)

# Further standard families, for engines that have a source for them.
EXTENDED: Final = (
    "kthena:num_requests_running",
    "kthena:prompt_tokens_total",
    "kthena:kv_cache_usage_ratio",
    "kthena:prefix_cache_queries_total",
    "kthena:prefix_cache_hits_total",
    "kthena:request_success_total",
)


# The part of the runtime that must be in use for a metric to be on the page.
Part: TypeAlias = Literal["always", "kv", "lora", "storage"]


@dataclass(frozen=True, slots=True)
class Description:
    """One row of the table: a metric's name, type, help text and label names, and the part that exports it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    part: Part = "always"


_kv: Final = partial(Description, part="kv")
_lora: Final = partial(Description, part="lora")
_storage: Final = partial(Description, part="storage")


BUILD_INFO: Final = Description(
    "kthena_runtime_build_info", "gauge", "Version of the runtime, always 1.", ("version", "python")
)
ENGINE_INFO: Final = Description(
    "kthena_runtime_engine_info", "gauge", "The engine whose rules are in use, always 1.", ("engine",)
)
ENGINE_UP: Final = Description(
    "kthena_runtime_engine_up", "gauge", "Whether this scrape could read the engine's metrics: 1 or 0."
)
ENGINE_SCRAPE_DURATION: Final = Description(
    "kthena_runtime_engine_scrape_duration_seconds", "gauge", "How long this scrape's fetch and check took."
)
ENGINE_SCRAPE_SIZE: Final = Description(
    "kthena_runtime_engine_scrape_size_bytes", "gauge", "Size of the engine's page, decoded, in this scrape."
)
ENGINE_SCRAPE_SAMPLES: Final = Description(
    "kthena_runtime_engine_scrape_samples", "gauge", "Samples on the engine's page in this scrape."
)
ENGINE_SCRAPE_ERRORS: Final = Description(
    "kthena_runtime_engine_scrape_errors_total",
    "counter",
    "Fetches of the engine's metrics that failed, by reason.",
    ("reason",),
)
ENGINE_PAGE_REPAIRS: Final = Description(
    "kthena_runtime_engine_page_repairs_total",
    "counter",
    "Flaws mended or left out so that the engine's page stays valid, by kind.",
    ("kind",),
)
STANDARD_METRIC_PRESENT: Final = Description(
    "kthena_runtime_standard_metric_present",
    "gauge",
    "Whether this scrape has the standard metric: 1 or 0.",
    ("metric",),
)
HTTP_REQUESTS: Final = Description(
    "kthena_runtime_http_requests_total",
    "counter",
    "HTTP requests answered, by route, method and status.",
    ("route", "method", "status"),
)
HTTP_REQUEST_DURATION: Final = Description(
    "kthena_runtime_http_request_duration_seconds",
    "histogram",
    "Time from a request's arrival to its answer, by route.",
    ("route",),
)

KV_ENABLED: Final = Description(
    "kthena_runtime_kv_enabled", "gauge", "Whether KV events are brought into Redis: 1, or 0 when none is configured."
)
KV_CONNECTED: Final = _kv(
    "kthena_runtime_kv_subscriber_connected",
    "gauge",
    "Whether there is a connection to the engine's KV events: 1 or 0.",
    ("dp_rank",),
)
KV_EVENTS: Final = _kv(
    "kthena_runtime_kv_events_total", "counter", "KV events taken into the ledger, by type.", ("type",)
)
KV_EVENT_BLOCKS: Final = _kv(
    "kthena_runtime_kv_event_blocks_total", "counter", "Blocks in those events, by type of event.", ("type",)
)
KV_INDEXED_BLOCKS: Final = _kv(
    "kthena_runtime_kv_indexed_blocks", "gauge", "Fields of this pod that Redis has or is about to get."
)
KV_QUEUE_DEPTH: Final = _kv(
    "kthena_runtime_kv_queue_depth", "gauge", "Fields that wait to be written to Redis or removed from it."
)
KV_GAPS: Final = _kv(
    "kthena_runtime_kv_event_gaps_total", "counter", "Jumps of the events' sequence number, replayed or not."
)
KV_REPLAYED: Final = _kv(
    "kthena_runtime_kv_events_replayed_total", "counter", "Event batches that came from the engine's replay socket."
)
KV_DROPPED: Final = _kv(
    "kthena_runtime_kv_events_dropped_total",
    "counter",
    "Messages and events that were left out or lost, by reason.",
    ("reason",),
)
KV_DECODE_ERRORS: Final = _kv(
    "kthena_runtime_kv_event_decode_errors_total", "counter", "Messages and events that could not be decoded."
)
KV_LAG: Final = _kv(
    "kthena_runtime_kv_event_lag_seconds", "histogram", "Time from an event batch's making to its entry in the ledger."
)
KV_LAST_EVENT: Final = _kv(
    "kthena_runtime_kv_last_event_timestamp_seconds", "gauge", "When the last event batch came, unix seconds; 0: never."
)
KV_RESYNCS: Final = _kv(
    "kthena_runtime_kv_resyncs_total",
    "counter",
    "Times that the ledger or everything in Redis was made anew, by reason.",
    ("reason",),
)
REDIS_UP: Final = _kv("kthena_runtime_redis_up", "gauge", "Whether the last operation on Redis succeeded: 1 or 0.")
REDIS_DURATION: Final = _kv(
    "kthena_runtime_redis_operation_duration_seconds",
    "histogram",
    "Time of the operations on Redis that succeeded, each a pipeline, by operation.",
    ("operation",),
)
REDIS_ERRORS: Final = _kv(
    "kthena_runtime_redis_errors_total",
    "counter",
    "Operations on Redis that failed, by operation and reason.",
    ("operation", "reason"),
)

MODEL_CONFIG_VALID: Final = _lora(
    "kthena_runtime_model_config_valid", "gauge", "Whether the Model file as it is now is followed: 1 or 0."
)
LORA_ADAPTERS: Final = _lora(
    "kthena_runtime_lora_adapters", "gauge", "Adapters that this runtime was asked for, by state.", ("state",)
)
LORA_ADAPTER_INFO: Final = _lora(
    "kthena_runtime_lora_adapter_info",
    "gauge",
    "An adapter that this runtime was asked for, always 1.",
    ("lora_name", "source_scheme", "state"),
)
LORA_OPERATIONS: Final = _lora(
    "kthena_runtime_lora_operations_total", "counter", "Loads and unloads, by outcome.", ("operation", "outcome")
)
LORA_OPERATION_DURATION: Final = _lora(
    "kthena_runtime_lora_operation_duration_seconds",
    "histogram",
    "Time of loads, their downloads included, and unloads.",
    ("operation",),
)
LORA_RECONCILES: Final = _lora(
    "kthena_runtime_lora_reconciles_total",
    "counter",
    "Comparisons of the engine with the desired adapters, by outcome.",
    ("outcome",),
)
LORA_POSSIBLY_STALE: Final = _lora(
    "kthena_runtime_lora_adapters_possibly_stale",
    "gauge",
    "Adapters whose answers may come from weights that had their name before.",
)
LORA_CACHE_RESETS: Final = _lora(
    "kthena_runtime_lora_cache_resets_total",
    "counter",
    "Attempts to reset the engine's prefix cache because an adapter has new content, by outcome.",
    ("outcome",),
)

DOWNLOADS_IN_PROGRESS: Final = _storage(
    "kthena_runtime_downloads_in_progress", "gauge", "Downloads that run.", ("scheme",)
)
DOWNLOADS: Final = _storage(
    "kthena_runtime_downloads_total", "counter", "Downloads that ended, by outcome.", ("scheme", "outcome")
)
DOWNLOAD_BYTES: Final = _storage(
    "kthena_runtime_download_bytes_total", "counter", "Bytes fetched or copied.", ("scheme",)
)
DOWNLOAD_DURATION: Final = _storage(
    "kthena_runtime_download_duration_seconds", "histogram", "Time of downloads from start to end.", ("scheme",)
)
DOWNLOAD_RETRIES: Final = _storage(
    "kthena_runtime_download_retries_total",
    "counter",
    "Requests made again and workers started again, by reason.",
    ("scheme", "reason"),
)
DOWNLOAD_EXPECTED_BYTES: Final = _storage(
    "kthena_runtime_download_expected_bytes", "gauge", "Bytes of a running download's copy.", ("download",)
)
DOWNLOAD_COMPLETED_BYTES: Final = _storage(
    "kthena_runtime_download_completed_bytes", "gauge", "Bytes of it that are there.", ("download",)
)
STORAGE_FREE: Final = _storage(
    "kthena_runtime_storage_free_bytes", "gauge", "Free space of a write root in use.", ("root",)
)
STORAGE_SIZE: Final = _storage(
    "kthena_runtime_storage_size_bytes", "gauge", "Size of a write root's file system.", ("root",)
)

PROCESS: Final = (
    Description("kthena_runtime_process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes."),
    Description("kthena_runtime_process_resident_memory_bytes", "gauge", "Resident memory size in bytes."),
    Description("kthena_runtime_process_start_time_seconds", "gauge", "Start time of the process, unix seconds."),
    Description("kthena_runtime_process_cpu_seconds_total", "counter", "User and system CPU time spent in seconds."),
    Description("kthena_runtime_process_open_fds", "gauge", "Number of open file descriptors."),
    Description("kthena_runtime_process_max_fds", "gauge", "Maximum number of open file descriptors."),
)


def _of(part: Part) -> tuple[Description, ...]:
    """Return the metrics of one part, in the order in which they are defined above."""
    return tuple(one for one in globals().values() if isinstance(one, Description) and one.part == part)


KV: Final = _of("kv")
LORA: Final = _of("lora")
STORAGE: Final = _of("storage")
# The metrics that do not depend on the engine.
OWN: Final = (*_of("always"), *KV, *PROCESS)
