"""Kthena / KV-cache events: does the router know what the engines have in their caches?"""

from __future__ import annotations

from typing import Final

from exporter.telemetry.names import (
    KV_CONNECTED,
    KV_DECODE_ERRORS,
    KV_DROPPED,
    KV_ENABLED,
    KV_EVENT_BLOCKS,
    KV_EVENTS,
    KV_GAPS,
    KV_INDEXED_BLOCKS,
    KV_LAG,
    KV_LAST_EVENT,
    KV_QUEUE_DEPTH,
    KV_REPLAYED,
    KV_RESYNCS,
    REDIS_DURATION,
    REDIS_ERRORS,
    REDIS_UP,
)
from grafana.board import Board
from grafana.layout import Row
from grafana.panels import stat, timeseries
from grafana.promql import PODS, RANGE, Promql, divide, when_idle
from grafana.series import Regex, one_of
from grafana.style import BAD_IF_ANY, SHARE_IS_GOOD
from grafana.variables import POD_CHAIN

__all__ = ["KV_EVENTS_BOARD", "ROUTER"]

# The router's name for what it found in Redis; it has a page of its own, with jobs and pods of its own.
ROUTER: Final = {"matched": "kthena_router_kvcache_aware_match_ratio"}

_R = PODS
_CHOSEN = PODS.over(RANGE)
# The router is scraped by a job of its own.
_ANY = Promql({"job": Regex(".+")})
_ZERO: Final = one_of("0", "0.0")  # Go writes 0, and Prometheus 3 makes 0.0 of it
_POD = ("namespace", "pod")
_OFF: Final = "KV events are off"
_QUIET: Final = "No events"

_LAG_NOW = when_idle(0, _R.quantile(0.99, KV_LAG), _R.observed(KV_LAG))

_NOW = (
    stat(
        "Pods with KV events",
        "none",
        "Runtimes that bring KV events into Redis: with REDIS_HOST set and an engine that publishes them.",
        _R.sum(KV_ENABLED),
        empty=_OFF,
    ),
    stat(
        "Subscribers connected",
        "percentunit",
        "Share of the engines' event streams that there is a connection to. Below 100%: see that the engine publishes, at "
        "this endpoint. /ready of the pod says what is missing.",
        _R.mean_of(KV_CONNECTED),
        judge=SHARE_IS_GOOD,
        empty=_OFF,
    ),
    stat(
        "Redis reachable",
        "percentunit",
        "Share of runtimes whose last operation on Redis succeeded. Events are kept meanwhile, and what differs is "
        "written when Redis is back.",
        _R.mean_of(REDIS_UP),
        judge=SHARE_IS_GOOD,
        empty=_OFF,
    ),
    stat(
        "Event lag, p99",
        "s",
        "From a batch's making, by the engine's clock, to its entry in the ledger. Seconds are clocks that differ, or a "
        "replay after a start.",
        _LAG_NOW,
        zero=_QUIET,
        empty=_OFF,
    ),
    stat(
        "Gaps",
        "none",
        "Jumps of the sequence number in the chosen time. With a replay socket they are filled.",
        _CHOSEN.increase(KV_GAPS),
        empty=_OFF,
        instant=True,
    ),
    stat(
        "Lost for good",
        "none",
        "Messages that were lost and could not be replayed in the chosen time: the index is not exact until the engine "
        "clears its cache or restarts. Give it a replay endpoint.",
        _CHOSEN.increase(KV_DROPPED, reason="lost"),
        judge=BAD_IF_ANY,
        empty=_OFF,
        instant=True,
    ),
)

_FLOW = (
    timeseries(
        "Events / s by type",
        "suffix:/s",
        "What the engines tell. Many BlockRemoved: the caches are full, and entries live shortly.",
        {"{{type}}": _R.rate(KV_EVENTS, "type")},
        stacked=True,
        empty=_OFF,
    ),
    timeseries(
        "Blocks / s by type",
        "suffix:/s",
        "Blocks in those events: the work for Redis.",
        {"{{type}}": _R.rate(KV_EVENT_BLOCKS, "type")},
        stacked=True,
        empty=_OFF,
    ),
    timeseries(
        "Indexed blocks",
        "short",
        "Blocks of each pod that the router can find. 0 under load: the events do not come.",
        {"{{pod}}": _R.sum(KV_INDEXED_BLOCKS, *_POD)},
        stacked=True,
        empty=_OFF,
    ),
)

_HEALTH = (
    timeseries(
        "Event lag",
        "s",
        "How old the router's knowledge is, as to this half of the way. Seconds for long: the pod lacks CPU.",
        {name: _R.quantile(which, KV_LAG) for name, which in (("p50", 0.5), ("p99", 0.99))},
        empty=_QUIET,
    ),
    timeseries(
        "Queue depth",
        "short",
        "What waits to be written to Redis. It should come back to 0 again and again: if not, Redis is too slow.",
        {"{{pod}}": _R.max(KV_QUEUE_DEPTH, *_POD)},
        empty=_OFF,
    ),
    timeseries(
        "Time since the last event",
        "s",
        "Grows while an engine is idle. Growing under load: the events do not come.",
        {"{{pod}}": f"time() - (max by (namespace, pod) ({_R.raw(KV_LAST_EVENT)}) > 0)"},
        empty=_QUIET,
    ),
    timeseries(
        "Gaps and replays / s",
        "suffix:/s",
        "Jumps of the sequence number, and batches that the engine's replay socket gave again.",
        {"gaps": _R.rate(KV_GAPS), "replayed": _R.rate(KV_REPLAYED)},
        empty=_OFF,
    ),
    timeseries(
        "Left out / s by reason",
        "suffix:/s",
        "lost is missing for good; the others were left out on purpose, or could not be read: docs/kv-events.md has "
        "them all.",
        {
            "{{reason}}": f"{_R.rate(KV_DROPPED, 'reason')} > 0",
            "could not be decoded": f"{_R.rate(KV_DECODE_ERRORS)} > 0",
        },
        empty="Nothing left out",
    ),
    timeseries(
        "Made anew / s by reason",
        "suffix:/s",
        "Times that a ledger or all of a pod in Redis was made anew. Often: the engine or Redis restarts.",
        {"{{reason}}": f"{_R.rate(KV_RESYNCS, 'reason')} > 0"},
        empty="Nothing made anew",
    ),
)

_REDIS = (
    timeseries(
        "Redis latency by operation, p95",
        "s",
        "A write is one round trip of up to 1,000 fields. Slow for all pods: look at Redis; for one: at its network.",
        {"{{operation}}": _R.quantile(0.95, REDIS_DURATION, "operation")},
        empty=_OFF,
        width=12,
    ),
    timeseries(
        "Redis errors / s",
        "suffix:/s",
        "Operations that failed. out_of_memory: maxmemory is reached; auth: the password; read_only: a replica.",
        {"{{operation}} {{reason}}": f"{_R.rate(REDIS_ERRORS, 'operation', 'reason')} > 0"},
        empty="No errors",
        width=12,
    ),
)

_ROUTER = (
    timeseries(
        "Requests that found cached blocks",
        "percentunit",
        "Share of the router's requests for which some pod had blocks. Low with prompts that begin alike: the index is "
        "empty, or block sizes and tokenizers differ.",
        {
            "{{model}}": "1 - "
            + divide(
                _ANY.rate(f"{ROUTER['matched']}_bucket", "model", le=_ZERO),
                _ANY.observed(ROUTER["matched"], "model"),
            )
        },
        share=True,
        empty="No metrics of a router",
        width=12,
    ),
)

KV_EVENTS_BOARD: Final = Board(
    uid="kthena-kv-events",
    title="KV-cache events",
    description="Does the router know what the engines have in their caches? Events on their way into Redis.",
    variables=POD_CHAIN,
    rows=(
        Row("", _NOW),
        Row("Flow", _FLOW),
        Row("Health", _HEALTH),
        Row("Redis", _REDIS),
        Row("Router (needs the metrics of kthena-router)", _ROUTER, collapsed=True),
    ),
)
