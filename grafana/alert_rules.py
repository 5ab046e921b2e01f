"""The alerts, in groups: when each fires, how bad that is, and what it says.

Expressions keep the labels of the target (job, instance, namespace, pod and
what else a Prometheus adds), so that alerts can be routed by them. Series of a
feature that is off do not exist, and no alert needs them to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.telemetry import names
from grafana.names import E2E, GENERATION_TOKENS, RUNTIME_JOB, START_TIME, TPOT, TTFT, UP, WAITING
from grafana.recording_rules import SLOW_SECONDS, TTFT_REQUESTS, WAITING_PER_POD, slow_share
from grafana.series import ON_TARGET, one_of, series

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ALERTS", "DASHBOARDS", "SEVERITIES", "Alert"]

# Page somebody; look at it today; know of it.
SEVERITIES: Final = ("critical", "warning", "info")

_UP: Final = series(UP, job=RUNTIME_JOB)
_ENGINE_IS_UP: Final = f"and {ON_TARGET} {names.ENGINE_UP.name} == 1"

# How long an engine may load its model: the startupProbe of deploy/sidecar.yaml.
_STARTUP_MINUTES: Final = 30

# It shows this from its start; SGLang and others may wait for a first request.
_SHOWN_FROM_THE_START: Final = "vllm"
# Of 1 % of requests that may be slow in 30 days: this many times as fast, and the budget is gone in 2 or 5 days.
_BUDGET: Final = 0.01
_FAST_BURN: Final = f"{14.4 * _BUDGET:.3f}"
_SLOW_BURN: Final = f"{6 * _BUDGET:.2f}"

# What leaves the index wrong. Nothing is lost with the other reasons.
_LOSSES: Final = one_of("lost", "too_large", "frames", "sequence", "payload", "invalid", "full")
_RESYNCS: Final = one_of("emptied", "restarted", "engine_restart")

_POD: Final = "var-namespace={{ $labels.namespace | urlquery }}&var-pod={{ $labels.pod | urlquery }}"
_MODEL: Final = "var-namespace={{ $labels.namespace | urlquery }}&var-model_name={{ $labels.model_name | urlquery }}"
# Where an alert leads, by the dashboard's uid; the path begins below Grafana's own address.
DASHBOARDS: Final = {
    "kthena-overview": f"/d/kthena-overview?{_MODEL}",
    "kthena-pods": f"/d/kthena-pods?{_POD}",
    "kthena-runtime": f"/d/kthena-runtime?{_POD}",
    "kthena-adapters": f"/d/kthena-adapters?{_POD}",
    "kthena-kv-events": f"/d/kthena-kv-events?{_POD}",
}


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert.

    Attributes:
        name: `Kthena...`; its runbook is docs/runbooks/NAME.md.
        expr: Fires for each series that there is.
        wait: How long that must last; at once with `0m`.
        severity: One of `SEVERITIES`.
        summary: One line, without the value.
        description: What is wrong, with the value.
        dashboard: The uid of the dashboard to look at, or none.
    """

    name: str
    expr: str
    wait: str
    severity: str
    summary: str
    description: str
    dashboard: str | None = None


_RUNTIME: Final = (
    Alert(
        "KthenaRuntimeDown",
        f"{_UP} == 0",
        "5m",
        "critical",
        "Runtime {{ $labels.namespace }}/{{ $labels.pod }} cannot be scraped.",
        "Prometheus has no metrics from {{ $labels.instance }}: neither the engine's nor the runtime's. "
        "Other alerts of this pod cannot fire, and what reads these metrics is blind.",
        "kthena-pods",
    ),
    Alert(
        "KthenaRuntimesGone",
        f"group by (job) (max_over_time({_UP}[6h])) unless on (job) {_UP}",
        "15m",
        "info",
        "Prometheus finds no runtime of job {{ $labels.job }} any more.",
        "There were targets within the last six hours. Unless everything was scaled to zero on purpose, "
        "the scrape configuration no longer finds the pods, and no other alert of this job can fire.",
    ),
    Alert(
        "KthenaRuntimeRestarting",
        f"changes({START_TIME}[30m]) >= 3",
        "0m",
        "warning",
        "Runtime {{ $labels.namespace }}/{{ $labels.pod }} keeps restarting.",
        "It was started anew {{ $value }} times within 30 minutes. Most often it is killed for memory.",
        "kthena-runtime",
    ),
)

_ENGINE: Final = (
    Alert(
        "KthenaEngineUnreachable",
        f"""\
{names.ENGINE_UP.name} == 0
and {ON_TARGET} (
    max_over_time({names.ENGINE_UP.name}[{_STARTUP_MINUTES}m]) == 1
  or
    time() - {START_TIME} > {_STARTUP_MINUTES * 60}
)""",
        "2m",
        "critical",
        "The engine of {{ $labels.namespace }}/{{ $labels.pod }} cannot be read.",
        "The runtime at {{ $labels.instance }} is well, but does not get the engine's metrics page. "
        "The engine was there before, or has had half an hour to start.",
        "kthena-runtime",
    ),
    Alert(
        "KthenaStandardMetricMissing",
        f"""\
(
    {series(names.STANDARD_METRIC_PRESENT, metric=WAITING)} == 0
    and {ON_TARGET} {series(names.ENGINE_INFO, engine=_SHOWN_FROM_THE_START)}
  or
    {series(names.STANDARD_METRIC_PRESENT, metric=one_of(WAITING, GENERATION_TOKENS, TTFT, TPOT, E2E))} == 0
    and {ON_TARGET} ({GENERATION_TOKENS} > 0 or {TTFT}_count > 0 or {TPOT}_count > 0 or {E2E}_count > 0)
)
{_ENGINE_IS_UP}""",
        "15m",
        "warning",
        "{{ $labels.metric }} is missing in {{ $labels.namespace }}/{{ $labels.pod }}.",
        "The engine at {{ $labels.instance }} answers and has served requests, but nothing on its page feeds "
        "{{ $labels.metric }}: an upgrade renamed the source, or the runtime has the wrong engine.",
        "kthena-runtime",
    ),
    Alert(
        "KthenaRequestsQueueing",
        f"{WAITING_PER_POD} > 10",
        "10m",
        "warning",
        "Requests for {{ $labels.model_name }} in {{ $labels.namespace }} wait.",
        "On average {{ $value | humanize }} requests wait at each pod, for ten minutes now: "
        "the model gets more than its pods can serve.",
        "kthena-overview",
    ),
    Alert(
        "KthenaTTFTBudgetBurn",
        f"""\
(
    {slow_share("1h")} > {_FAST_BURN} and {slow_share("5m")} > {_FAST_BURN}
  or
    {slow_share("6h")} > {_SLOW_BURN} and {slow_share("30m")} > {_SLOW_BURN}
)
and {TTFT_REQUESTS} >= 60""",
        "2m",
        "critical",
        "First tokens of {{ $labels.model_name }} in {{ $labels.namespace }} are slow.",
        f"{{{{ $value | humanizePercentage }}}} of the requests waited longer than {SLOW_SECONDS} s for their first "
        "token, over the last hour or the last six. 1% may: at this rate a month's budget is gone within days.",
        "kthena-overview",
    ),
)

_ADAPTERS: Final = (
    Alert(
        "KthenaLoraLoadFailing",
        f"increase({series(names.LORA_OPERATIONS, operation='load', outcome='failed')}[30m]) >= 3",
        "0m",
        "warning",
        "Loads of LoRA adapters fail in {{ $labels.namespace }}/{{ $labels.pod }}.",
        "{{ $value | humanize }} loads failed within 30 minutes. The engine itself was reachable.",
        "kthena-adapters",
    ),
    Alert(
        "KthenaLoraAdapterFailed",
        f"""\
max_over_time({series(names.LORA_ADAPTER_INFO, state="failed")}[10m])
unless ignoring (state, source_scheme) {series(names.LORA_ADAPTER_INFO, state="loaded")}""",
        "15m",
        "warning",
        "Adapter {{ $labels.lora_name }} cannot be loaded in {{ $labels.namespace }}/{{ $labels.pod }}.",
        "It is wanted and has failed each time for 15 minutes. Requests for {{ $labels.lora_name }} fail at this pod.",
        "kthena-adapters",
    ),
    Alert(
        "KthenaLoraAdapterStuck",
        f"""\
{series(names.LORA_ADAPTER_INFO, state=one_of("pending", "downloading", "loading", "unloading"))} == 1
{_ENGINE_IS_UP}""",
        "30m",
        "warning",
        "Adapter {{ $labels.lora_name }} is stuck in {{ $labels.namespace }}/{{ $labels.pod }}.",
        "It has been {{ $labels.state }} for 30 minutes, and the engine is there.",
        "kthena-adapters",
    ),
    Alert(
        "KthenaModelConfigInvalid",
        f"{names.MODEL_CONFIG_VALID.name} == 0",
        "5m",
        "warning",
        "The Model file of {{ $labels.namespace }}/{{ $labels.pod }} is not followed.",
        "The file of --model-config as it is now cannot be used. Adapters stay as the last good one had them.",
        "kthena-adapters",
    ),
)

_DOWNLOADS: Final = (
    Alert(
        "KthenaDownloadFailing",
        f"increase({series(names.DOWNLOADS, outcome='failed')}[30m]) >= 3",
        "0m",
        "warning",
        "Downloads from {{ $labels.scheme }} fail in {{ $labels.namespace }}/{{ $labels.pod }}.",
        "{{ $value | humanize }} downloads failed within 30 minutes, each after its own retries.",
        "kthena-adapters",
    ),
    Alert(
        "KthenaDownloadStalled",
        f"""\
changes({names.DOWNLOAD_COMPLETED_BYTES.name}[5m]) == 0
and {names.DOWNLOAD_COMPLETED_BYTES.name} < {names.DOWNLOAD_EXPECTED_BYTES.name}""",
        "10m",
        "warning",
        "Download {{ $labels.download }} in {{ $labels.namespace }}/{{ $labels.pod }} stands still.",
        "No byte has come for more than ten minutes, and there are some to come.",
        "kthena-adapters",
    ),
    Alert(
        "KthenaModelDiskFilling",
        f"{names.STORAGE_FREE.name} / {names.STORAGE_SIZE.name} < 0.05",
        "5m",
        "critical",
        "The volume at {{ $labels.root }} of {{ $labels.namespace }}/{{ $labels.pod }} is nearly full.",
        "{{ $value | humanizePercentage }} of it is free. Downloads that do not fit are refused, and who else "
        "writes there fails.",
        "kthena-adapters",
    ),
)

_KV_EVENTS: Final = (
    Alert(
        "KthenaKVSubscriberDisconnected",
        f"""\
{names.KV_CONNECTED.name} == 0
{_ENGINE_IS_UP}""",
        "5m",
        "warning",
        "KV events of {{ $labels.namespace }}/{{ $labels.pod }} do not come.",
        "There is no connection to the events of DP rank {{ $labels.dp_rank }}, and the engine is there. "
        "The router works with what it knew before.",
        "kthena-kv-events",
    ),
    Alert(
        "KthenaKVEventsLost",
        f"increase({series(names.KV_DROPPED, reason=_LOSSES)}[15m]) > 0",
        "0m",
        "warning",
        "KV events of {{ $labels.namespace }}/{{ $labels.pod }} are lost.",
        "{{ $value | humanize }} within 15 minutes, reason {{ $labels.reason }}. The router's index of this pod is "
        "no longer exact, and requests may be sent to a cold cache.",
        "kthena-kv-events",
    ),
    Alert(
        "KthenaKVEventsLagging",
        f"histogram_quantile(0.99, rate({names.KV_LAG.name}_bucket[5m])) > 5",
        "10m",
        "warning",
        "KV events of {{ $labels.namespace }}/{{ $labels.pod }} come late.",
        "Of the last five minutes' events one in a hundred took {{ $value | humanizeDuration }} or more from the "
        "engine to the runtime. The router knows the past.",
        "kthena-kv-events",
    ),
    Alert(
        "KthenaRedisUnreachable",
        f"{names.REDIS_UP.name} == 0",
        "5m",
        "warning",
        "Redis does not take the KV index of {{ $labels.namespace }}/{{ $labels.pod }}.",
        "The last operation failed, for five minutes now. Events are kept, and written when Redis is back.",
        "kthena-kv-events",
    ),
    Alert(
        "KthenaKVResyncLoop",
        f"increase({series(names.KV_RESYNCS, reason=_RESYNCS)}[1h]) >= 3",
        "0m",
        "warning",
        "The KV index of {{ $labels.namespace }}/{{ $labels.pod }} is made anew again and again.",
        "{{ $value | humanize }} times within an hour, reason {{ $labels.reason }}. Each time the router misses "
        "this pod's blocks for a while.",
        "kthena-kv-events",
    ),
)

ALERTS: Final[Mapping[str, tuple[Alert, ...]]] = {
    "kthena-runtime": _RUNTIME,
    "kthena-engine": _ENGINE,
    "kthena-adapters": _ADAPTERS,
    "kthena-downloads": _DOWNLOADS,
    "kthena-kv-events": _KV_EVENTS,
}
