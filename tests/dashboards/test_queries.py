"""What the dashboards' queries make of series that a cluster has in bad hours, by the real promtool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.dashboards.promtool_cases import run
from tests.dashboards.targets import substitute, targets

if TYPE_CHECKING:
    from pathlib import Path

TTFT: Final = "kthena:time_to_first_token_seconds"
REQUESTS: Final = "kthena:e2e_request_latency_seconds_count"
WAITING: Final = "kthena:num_requests_waiting"
MATCHED: Final = "kthena_router_kvcache_aware_match_ratio"
ADDRESS: Final = "10.0.0.1:8900"
MINUTES: Final = 20


@dataclass(frozen=True, slots=True)
class Case:
    """What the query of a panel gives for some series after 20 minutes, by its labels.

    Attributes:
        query: Dashboard, panel and query.
        series: Their values at each minute, by name and labels.
        expected: What comes of them.
    """

    query: str
    series: dict[str, str]
    expected: dict[str, float]


def of(name: str, pod: str, labels: str = "", *, address: str = ADDRESS) -> str:
    """Return the name of a pod's series."""
    own = f'job="kthena-runtime", namespace="models", pod="{pod}", instance="{address}"'
    return f"{name}{{{own}{labels and ', ' + labels}}}"


CASES: Final = {
    "a pod of another engine at the address of one that is gone": Case(
        "kthena-overview:Models (over the chosen time):B",
        {  # a rate reaches half an interval beyond its last sample
            of("kthena_runtime_engine_info", "llama-0", 'engine="vllm"'): "1x10 stale",
            of(REQUESTS, "llama-0", 'model_name="llama"'): "0+60x10 stale",
            of("kthena_runtime_engine_info", "llama-1", 'engine="sglang"'): "_x10 1x10",
            of(REQUESTS, "llama-1", 'model_name="llama"'): "_x10 0+60x10",
        },
        {'{model_name="llama", engine="vllm"}': 0.53, '{model_name="llama", engine="sglang"}': 0.5},
    ),
    "two clusters with the same addresses": Case(
        "kthena-pods:Pods (last 5 minutes):A",
        {
            of(name, "llama-0", f'cluster="{cluster}"{engine}'): "1x20"
            for cluster, kind in (("east", "vllm"), ("west", "sglang"))
            for name, engine in (
                ("kthena_runtime_engine_up", ""),
                ("kthena_runtime_engine_info", f', engine="{kind}"'),
            )
        },
        {
            '{namespace="models", pod="llama-0", engine="vllm"}': 1,
            '{namespace="models", pod="llama-0", engine="sglang"}': 1,
        },
    ),
    "no runtime can be scraped for longer than the chosen time": Case(
        "kthena-overview:Runtimes down:A",
        {of("up", "llama-0"): "1x2 0x18", of("kthena_runtime_build_info", "llama-0"): "1x2 stale"},
        {"{}": 1},
    ),
    "targets of others that are down": Case(
        "kthena-overview:Runtimes down:A",
        {of("up", "llama-0"): "1x20", 'up{job="node"}': "0x20"},
        {"{}": 0},
    ),
    "nothing is scraped: not a good zero": Case(
        "kthena-overview:Engines unreachable:A", {'up{job="node"}': "1x20"}, {}
    ),
    "an engine without the bound is not slow": Case(
        "kthena-overview:First token within ${ttft_slo:text}:A",
        {
            of(f"{TTFT}_bucket", pod, f'model_name="llama", le="{bound}"', address=pod): f"0+{fast}x20"
            for pod, bound, fast in (("a", "1.0", 54), ("a", "+Inf", 60), ("b", "2.0", 60), ("b", "+Inf", 60))
        },
        {"{}": 0.9},
    ),
    "one model that waits, evenly, and one that does not": Case(
        "kthena-overview:Load imbalance:A",
        {
            of(WAITING, f"{model}-{number}", f'model_name="{model}"', address=f"{model}{number}"): f"{waiting}x20"
            for model, waiting in (("llama", 10), ("qwen", 0))
            for number in range(2)
        },
        {'{model_name="llama"}': 1},
    ),
    "a router in Go, which writes whole bounds without a point": Case(
        "kthena-kv-events:Requests that found cached blocks:A",
        {
            f'{MATCHED}_bucket{{job="router", model="llama", le="0"}}': "0+12x20",
            f'{MATCHED}_count{{job="router", model="llama"}}': "0+60x20",
        },
        {'{model="llama"}': 0.8},
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_query_gives(case: Case, tmp_path: Path) -> None:
    """Neither an error nor a number that misleads."""
    (expression,) = (target.expr for target in targets() if target.name == case.query)
    check: dict[str, Any] = {
        "expr": f"round({substitute(expression, rate_interval='4m', range='20m')}, 0.01)",
        "eval_time": f"{MINUTES}m",
        "exp_samples": [{"labels": labels, "value": value} for labels, value in case.expected.items()],
    }
    series = [{"series": name, "values": values} for name, values in case.series.items()]

    status, said = run([{"interval": "1m", "input_series": series, "promql_expr_test": [check]}], tmp_path)

    assert status == 0, said
