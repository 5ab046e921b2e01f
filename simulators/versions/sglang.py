"""SGLang 0.3.6 to 0.5.23: pages written in Prometheus's multiprocess mode."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from simulators.versions.rendering import python_page
from simulators.versions.table import EXTENDED, ORDERED, Table, VersionPage

if TYPE_CHECKING:
    from simulators.versions.rendering import Labels

__all__ = ["SGLANG_PAGES"]

_VERSIONS = (
    *("0.3.6", "0.4.3", "0.4.3.post4", "0.4.4", "0.4.4.post2", "0.4.5", "0.4.6", "0.4.9", "0.4.10", "0.5.1"),
    *("0.5.3", "0.5.6", "0.5.9", "0.5.11", "0.5.13", "0.5.18", "0.5.19", "0.5.20", "0.5.21", "0.5.22", "0.5.23"),
)
_OLD, _NEW = "0.3.6", "0.5.23"

_MODEL: Labels = {"model_name": "Qwen/Qwen3-8B"}
_TYPED: Labels = {**_MODEL, "engine_type": "unified"}
_RANKED: Labels = {**_TYPED, "pp_rank": "0", "tp_rank": "0"}
_EXPERT: Labels = {**_RANKED, "moe_ep_rank": "0"}
_SCHEDULER = (
    (_OLD, "0.4.5", (_MODEL,)),
    ("0.4.6", "0.4.9", (_TYPED,)),
    ("0.4.10", "0.5.6", (_RANKED,)),
    ("0.5.9", _NEW, (_EXPERT,)),
)
_STREAMED = ({**_TYPED, "is_streaming": "true"}, {**_TYPED, "is_streaming": "false"})

_TTFT_OLD = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # The bounds of these two versions are not known.
_TTFT = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0, 400.0)
_ITL = (
    *(0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08, 0.1),
    *(0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0),
)

_TABLE = Table(
    versions=_VERSIONS,
    families=(
        ("sglang:num_running_reqs", "gauge", "queue", _OLD, _NEW),
        ("sglang:num_used_tokens", "gauge", "scheduler", _OLD, _NEW),
        ("sglang:token_usage", "gauge", "scheduler", _OLD, _NEW),
        ("sglang:gen_throughput", "gauge", "scheduler", _OLD, _NEW),
        ("sglang:num_queue_reqs", "gauge", "queue", _OLD, _NEW),
        ("sglang:num_grammar_queue_reqs", "gauge", "scheduler", "0.4.9", _NEW),
        ("sglang:cache_hit_rate", "gauge", "scheduler", _OLD, _NEW),
        ("sglang:spec_accept_length", "gauge", "scheduler", "0.4.3", _NEW),
        ("sglang:num_retracted_reqs", "gauge", "pid", "0.5.3", _NEW),
        ("sglang:num_paused_reqs", "gauge", "pid", "0.5.3", _NEW),
        ("sglang:queue_time_seconds", "histogram", "scheduler", "0.5.3", _NEW),
        ("sglang:realtime_tokens_total", "counter", "scheduler", "0.5.9", _NEW),
        ("sglang:prompt_tokens_total", "counter", "streamed", _OLD, _NEW),
        ("sglang:generation_tokens_total", "counter", "streamed", _OLD, _NEW),
        ("sglang:cached_tokens_total", "counter", "tokenizer", "0.4.6", _NEW),
        ("sglang:num_requests_total", "counter", "streamed", "0.4.3", _NEW),
        ("sglang:num_aborted_requests_total", "counter", "tokenizer", "0.5.3", _NEW),
        ("sglang:time_to_first_token_seconds", "histogram", "streamed", _OLD, _NEW),
        ("sglang:time_per_output_token_seconds", "histogram", "tokenizer", _OLD, "0.4.4.post2"),
        ("sglang:inter_token_latency_seconds", "histogram", "tokenizer", "0.4.3.post4", _NEW),
        ("sglang:request_time_per_output_token_seconds", "histogram", "streamed", "0.5.22", _NEW),
        ("sglang:e2e_request_latency_seconds", "histogram", "streamed", _OLD, _NEW),
    ),
    labels={
        "scheduler": _SCHEDULER,
        "queue": _SCHEDULER,
        "pid": (("0.5.3", "0.5.6", ({**_RANKED, "pid": "203"},)), ("0.5.9", _NEW, ({**_EXPERT, "pid": "203"},))),
        "tokenizer": ((_OLD, "0.5.9", (_MODEL,)), ("0.5.11", _NEW, (_TYPED,))),
        "streamed": ((_OLD, "0.5.9", (_MODEL,)), ("0.5.11", "0.5.13", (_TYPED,)), ("0.5.18", _NEW, _STREAMED)),
    },
    variants={
        "sglang:cached_tokens_total": (("0.4.6", _NEW, ({"cache_source": "device"}, {"cache_source": "host"})),),
        "sglang:realtime_tokens_total": (("0.5.9", _NEW, ({"mode": "prefill_compute"}, {"mode": "decode"})),),
    },
    bounds={
        "sglang:time_to_first_token_seconds": ((_OLD, "0.4.3", _TTFT_OLD), ("0.4.3.post4", _NEW, _TTFT)),
        "sglang:inter_token_latency_seconds": (("0.4.3.post4", _NEW, _ITL),),
        "sglang:time_per_output_token_seconds": ((_OLD, "0.4.4.post2", _ITL),),
        "sglang:request_time_per_output_token_seconds": (("0.5.22", _NEW, _ITL),),
        "other": (
            (_OLD, "0.4.3", _TTFT_OLD),
            ("0.4.3.post4", "0.4.9", _TTFT),
            ("0.4.10", "0.5.1", (*_TTFT, 800.0)),
            ("0.5.3", _NEW, (*_TTFT, 600.0, 1200.0, 1800.0, 2400.0)),
        ),
    },
    expected={
        "kthena:generation_tokens_total": ((_OLD, _NEW, "sglang:generation_tokens_total"),),
        "kthena:num_requests_waiting": ((_OLD, _NEW, "sglang:num_queue_reqs"),),
        "kthena:time_to_first_token_seconds": ((_OLD, _NEW, "sglang:time_to_first_token_seconds"),),
        "kthena:time_per_output_token_seconds": (
            (_OLD, "0.4.4.post2", "sglang:time_per_output_token_seconds"),
            ("0.4.5", _NEW, "sglang:inter_token_latency_seconds"),
        ),
        "kthena:e2e_request_latency_seconds": ((_OLD, _NEW, "sglang:e2e_request_latency_seconds"),),
        "kthena:num_requests_running": ((_OLD, _NEW, "sglang:num_running_reqs"),),
        "kthena:prompt_tokens_total": ((_OLD, _NEW, "sglang:prompt_tokens_total"),),
        "kthena:kv_cache_usage_ratio": ((_OLD, _NEW, "sglang:token_usage"),),
        "kthena:prefix_cache_queries_total": ((_OLD, _NEW, "sglang:prompt_tokens_total"),),
        "kthena:prefix_cache_hits_total": (("0.4.6", _NEW, "sglang:cached_tokens_total"),),
        "kthena:request_success_total": (),
    },
)

_GAUGES = ("kthena:num_requests_waiting", "kthena:num_requests_running", "kthena:kv_cache_usage_ratio")


def _page(version: str) -> VersionPage:
    return VersionPage("sglang", version, python_page(_TABLE.page(version), multiprocess=True), _TABLE.sources(version))


def _ranks(version: str, option: str, ranks: tuple[Labels, ...], dropped: tuple[Labels, ...]) -> VersionPage:
    """Make a page with scheduler gauges of several ranks, some of them copies."""
    series = tuple({**_EXPERT, **rank} for rank in ranks)
    spans = ((version, version, series),)
    table = replace(_TABLE, labels={**_TABLE.labels, "scheduler": spans, "queue": spans})
    text = python_page(table.page(version), multiprocess=True)
    return VersionPage(
        "sglang", f"{version} {option}", text, table.sources(version), dropped=dict.fromkeys(_GAUGES, dropped)
    )


def _priorities(version: str) -> VersionPage:
    """Make a page whose queues are broken down by priority; the empty one is the total."""
    queue = tuple({**_EXPERT, "priority": priority} for priority in ("", "1", "5"))
    labels = {
        **_TABLE.labels,
        "scheduler": ((version, version, queue[:1]),),
        "queue": ((version, version, queue),),
    }
    table = replace(_TABLE, labels=labels)
    text = python_page(table.page(version), multiprocess=True)
    return VersionPage(
        *("sglang", f"{version} --enable-priority-scheduling", text, table.sources(version)),
        dropped=dict.fromkeys(_GAUGES[:2], ({"priority": "1"}, {"priority": "5"})),
    )


def _before_traffic(version: str) -> VersionPage:
    """Make the page of a server that has had no request: families appear with their first observation."""
    families = [family for family in _TABLE.page(version) if family.kind == "gauge"]
    expected: dict[str, str | None] = dict.fromkeys(ORDERED + EXTENDED)
    expected["kthena:num_requests_waiting"] = "sglang:num_queue_reqs"
    expected["kthena:num_requests_running"] = "sglang:num_running_reqs"
    expected["kthena:kv_cache_usage_ratio"] = "sglang:token_usage"
    return VersionPage("sglang", f"{version} before traffic", python_page(families, multiprocess=True), expected)


def _rank(tp: int, pp: int = 0, ep: int = 0, **dp: str) -> Labels:
    return {"tp_rank": str(tp), "pp_rank": str(pp), "moe_ep_rank": str(ep), **dp}


SGLANG_PAGES = (
    *map(_page, _VERSIONS),
    _before_traffic(_NEW),
    _priorities(_NEW),
    _ranks(
        *(_NEW, "--tp=2 --pp=2 --enable-metrics-for-all-schedulers"),
        (_rank(1, 1), _rank(0, 1), _rank(1, 0), _rank(0, 0)),
        dropped=({"tp_rank": "1"}, {"pp_rank": "1"}),
    ),
    _ranks(
        *(_NEW, "--tp=4 --dp=2 --enable-dp-attention"),
        (_rank(0, dp_rank="0"), _rank(2, dp_rank="1")),
        dropped=(),
    ),
    _ranks(
        *(_NEW, "--tp=4 --dp=2 --ep=4 --enable-dp-attention --enable-metrics-for-all-schedulers"),
        (
            *(_rank(0, ep=0, dp_rank="0"), _rank(1, ep=1, dp_rank="0")),
            *(_rank(2, ep=2, dp_rank="1"), _rank(3, ep=3, dp_rank="1")),
        ),
        dropped=({"tp_rank": "1"}, {"tp_rank": "3"}),
    ),
)
