"""The names of metrics, for queries: those of the runtime come from where the code has them."""

from __future__ import annotations

from typing import Final

from exporter.telemetry.names import EXTENDED, PROCESS, STANDARD
from grafana.series import Regex

__all__ = [
    "ALERTS",
    "CPU",
    "E2E",
    "GENERATION_TOKENS",
    "KV_USAGE",
    "MAX_FDS",
    "OPEN_FDS",
    "PREFIX_HITS",
    "PREFIX_QUERIES",
    "PROMPT_TOKENS",
    "RESIDENT_MEMORY",
    "RUNNING",
    "RUNTIME_JOB",
    "START_TIME",
    "SUCCESS",
    "TPOT",
    "TTFT",
    "UP",
    "WAITING",
]

(GENERATION_TOKENS, WAITING, TTFT, TPOT, E2E) = STANDARD
(RUNNING, PROMPT_TOKENS, KV_USAGE, PREFIX_QUERIES, PREFIX_HITS, SUCCESS) = EXTENDED
(_, RESIDENT_MEMORY, START_TIME, CPU, OPEN_FDS, MAX_FDS) = (metric.name for metric in PROCESS)

# Prometheus's own.
UP: Final = "up"
ALERTS: Final = "ALERTS"

# The job of deploy/prometheus.yml, and that which the operator makes of deploy/podmonitor.yaml.
RUNTIME_JOB: Final = Regex("(.+/)?kthena-runtime")
