"""Every metric name of the runtime, in one place.

Code, docs and dashboards take names from here; none is typed twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "BUILD_INFO",
    "ENGINE_INFO",
    "ENGINE_PAGE_REPAIRS",
    "ENGINE_SCRAPE_DURATION",
    "ENGINE_SCRAPE_ERRORS",
    "ENGINE_SCRAPE_SAMPLES",
    "ENGINE_SCRAPE_SIZE",
    "ENGINE_UP",
    "EXTENDED",
    "HTTP_REQUESTS",
    "HTTP_REQUEST_DURATION",
    "OWN",
    "OWN_PREFIX",
    "PROCESS",
    "PROCESS_PREFIX",
    "STANDARD",
    "STANDARD_METRIC_PRESENT",
    "Description",
]

OWN_PREFIX: Final = "kthena_runtime_"

STANDARD: Final = (
    "kthena:generation_tokens_total",
    "kthena:num_requests_waiting",
    "kthena:time_to_first_token_seconds",
    "kthena:time_per_output_token_seconds",
    "kthena:e2e_request_latency_seconds",
)

EXTENDED: Final = (
    "kthena:num_requests_running",
    "kthena:prompt_tokens_total",
    "kthena:kv_cache_usage_ratio",
    "kthena:prefix_cache_queries_total",
    "kthena:prefix_cache_hits_total",
    "kthena:request_success_total",
)


@dataclass(frozen=True, slots=True)
class Description:
    """What a metric of the runtime's own is: name, type, help and label names."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


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

PROCESS_PREFIX: Final = "kthena_runtime_process_"
PROCESS: Final = (
    Description("kthena_runtime_process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes."),
    Description("kthena_runtime_process_resident_memory_bytes", "gauge", "Resident memory size in bytes."),
    Description("kthena_runtime_process_start_time_seconds", "gauge", "Start time of the process, unix seconds."),
    Description("kthena_runtime_process_cpu_seconds_total", "counter", "User and system CPU time spent in seconds."),
    Description("kthena_runtime_process_open_fds", "gauge", "Number of open file descriptors."),
    Description("kthena_runtime_process_max_fds", "gauge", "Maximum number of open file descriptors."),
)

OWN: Final = (
    BUILD_INFO,
    ENGINE_INFO,
    ENGINE_UP,
    ENGINE_SCRAPE_DURATION,
    ENGINE_SCRAPE_SIZE,
    ENGINE_SCRAPE_SAMPLES,
    ENGINE_SCRAPE_ERRORS,
    ENGINE_PAGE_REPAIRS,
    STANDARD_METRIC_PRESENT,
    HTTP_REQUESTS,
    HTTP_REQUEST_DURATION,
    *PROCESS,
)
