"""Diagnose which link from the engine to Redis does not work, in sentences that say what to do.

KV events usually fail silently: the configuration is valid, and no event arrives.
`/ready` shows these findings, and the log has a line when a failure begins or changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from exporter.kv.limits import MAX_PAYLOAD

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from exporter.kv.ledger import Ledger
    from exporter.kv.pump import Pump
    from exporter.kv.subscriber import Subscriber

__all__ = ["Finding", "diagnose_engine", "diagnose_redis"]

OK: Final = "ok"
WAITING: Final = "waiting"
FAILING: Final = "failing"

# The flag with which each engine publishes its events; its endpoint matches the default KV_EVENTS_ENDPOINT.
_FLAGS: Final[Mapping[str, str]] = {
    "vllm": """--kv-events-config '{"enable_kv_cache_events": true, "publisher": "zmq", "endpoint": "tcp://*:5557"}'""",
    "sglang": """--kv-events-config '{"publisher": "zmq", "endpoint": "tcp://*:5557"}' --page-size 16""",
}

_REDIS: Final[Mapping[str, str]] = {
    "auth": "Redis refuses the credentials: check REDIS_PASSWORD and REDIS_USERNAME, and the user's rights",
    "connection": "no connection to Redis: check REDIS_HOST, REDIS_PORT or REDIS_URL",
    "timeout": "Redis does not answer in time",
    "loading": "Redis is still loading its data",
    "read_only": "this Redis is a replica: point REDIS_HOST at the primary",
    "out_of_memory": "Redis is out of memory (maxmemory)",
    "invalid_reply": "what answers is not Redis, or announces a reply of a size that no command of the runtime has",
}


class Finding(NamedTuple):
    """The state of one link: the status (`ok`, `waiting` or `failing`), and a sentence for people."""

    status: str
    detail: str

    @property
    def fails(self) -> bool:
        """Whether an operator must act."""
        return self.status == FAILING


def diagnose_engine(engine: str, subscribers: Iterable[Subscriber], ledger: Ledger) -> Finding:
    """Return the worst finding of all ranks' subscriptions and the ledger."""
    findings = [_diagnose_rank(engine, subscriber) for subscriber in subscribers]
    if ledger.is_full:
        detail = (
            f"the engine holds more than {ledger.most} blocks, and the index lacks the rest: raise KV_EVENTS_MAX_BLOCKS"
        )
        findings.append(Finding(FAILING, f"{detail} and the container's memory limit"))
    return max(findings, key=lambda finding: (OK, WAITING, FAILING).index(finding.status))


def _diagnose_rank(engine: str, subscriber: Subscriber) -> Finding:
    rank, endpoint = subscriber.rank, subscriber.endpoint
    if subscriber.refused:
        return Finding(
            FAILING,
            f"{endpoint} (dp_rank {rank}) sent a message of more than {MAX_PAYLOAD} bytes, or one that is not "
            "ZeroMQ's: it was left out, and the index lacks what it said",
        )
    if not subscriber.connected:
        return Finding(
            FAILING, f"no connection to {endpoint} (dp_rank {rank}): start the engine with {_FLAGS.get(engine, '')}"
        )
    return _diagnose_stream(subscriber)


def _diagnose_stream(subscriber: Subscriber) -> Finding:
    """Return the finding for a rank that is connected."""
    rank, endpoint, stream = subscriber.rank, subscriber.endpoint, subscriber.stream
    if stream.is_shared:
        return Finding(
            FAILING,
            f"several publishers seem to share {endpoint} (dp_rank {rank}): its numbers start over again and again; "
            "each engine and each rank needs an address of its own",
        )
    if not stream.received and subscriber.filtered:
        return Finding(
            FAILING, f"{subscriber.filtered} messages came, all of another topic: check KV_EVENTS_TOPIC_FILTER"
        )
    if stream.replay_failure:
        return Finding(
            FAILING,
            f"the replay socket gives nothing ({stream.replay_failure}): set the engine's replay_endpoint to match "
            "KV_EVENTS_REPLAY_ENDPOINT, or leave that unset",
        )
    if not stream.received:
        return Finding(
            WAITING,
            f"connected to {endpoint} (dp_rank {rank}), no event yet: the first comes when a request fills a block; "
            "prefix caching must be on",
        )
    return Finding(OK, "events come")


def diagnose_redis(pump: Pump) -> Finding:
    """Return whether Redis accepts the pump's operations."""
    if pump.failure is None:
        return Finding(OK, "Redis takes the index")
    return Finding(FAILING, _REDIS.get(pump.failure, f"Redis does not take the index: {pump.failure}"))
