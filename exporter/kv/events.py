"""KV events as a whole: builds, starts and stops the subscribers, the ledger and the pump."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic, time
from typing import TYPE_CHECKING, Final, Protocol
from uuid import uuid4

import redis
import zmq
from redis.backoff import NoBackoff
from redis.retry import Retry

from exporter.kv.decode import CLEARED, REMOVED, STORED, Drop
from exporter.kv.diagnosis import Finding, diagnose_engine, diagnose_redis
from exporter.kv.index import PodIndex
from exporter.kv.ledger import MOST_BLOCKS, Ledger
from exporter.kv.limits import queue_length
from exporter.kv.pump import OPERATIONS, REASONS, RESYNCS, Pump, PumpObserver
from exporter.kv.replay import Replay
from exporter.kv.replies import BoundedParser
from exporter.kv.stream import ENGINE_RESTART, EventStream, StreamObserver
from exporter.kv.subscriber import Subscriber, SubscriberObserver, endpoint_of_rank

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["LABELS", "KvEvents", "KvObserver", "KvOptions"]

logger: Final = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 5.0
# The time at the end for removing this pod's fields from Redis; `exporter.service` waits longer.
STOP_SECONDS: Final = 5.0
# The time for all subscribers together to end, meanwhile.
_SUBSCRIBERS_SECONDS: Final = 1.0
SWITCH_SECONDS: Final = 0.001
# An engine may take long to start: a failing link is logged only after this time.
PATIENCE_SECONDS: Final = 60.0


# All label values of the metrics (`KvLabels` of `exporter.telemetry.kv`).
LABELS: Final[Mapping[str, Collection[str]]] = {
    "event_types": (STORED, REMOVED, CLEARED),
    "drop_reasons": tuple(Drop),
    "undecodable": (Drop.FRAMES, Drop.PAYLOAD, Drop.INVALID),
    "resync_reasons": (*RESYNCS, ENGINE_RESTART),
    "operations": OPERATIONS,
    "redis_reasons": REASONS,
}


class KvObserver(StreamObserver, SubscriberObserver, PumpObserver, Protocol):
    """Observes everything between the engine and Redis; called from several threads, must not raise."""


@dataclass(frozen=True, slots=True)
class KvOptions:
    """The source and the destination of KV events.

    Attributes:
        engine: `vllm` or `sglang`; used for the hints in findings only.
        model: The base model's name in Redis keys.
        pod: The name of this pod's fields, `name.namespace`.
        redis_url: A `redis://` or `rediss://` URL, with credentials.
        endpoint: ZeroMQ endpoint of rank 0's events.
        topic: The required beginning of a message's topic.
        replay_endpoint: ZeroMQ endpoint of rank 0's replay socket, if there is one.
        ranks: The number of DP ranks.
        max_blocks: The highest number of the engine's blocks in memory.
    """

    engine: str
    model: str
    pod: str
    redis_url: str
    endpoint: str
    topic: str
    replay_endpoint: str | None
    ranks: int
    max_blocks: int = MOST_BLOCKS


class KvEvents:
    """The subscribers, the ledger and the pump of one pod. A part of `exporter.assembly`.

    Attributes:
        ledger: The blocks that the engine holds.
    """

    def __init__(self, options: KvOptions, observer: KvObserver) -> None:
        """Build everything; nothing is connected yet.

        Raises:
            ValueError: An endpoint or the Redis URL cannot be used.
        """
        self._engine = options.engine
        self._stopping = Event()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.ledger = Ledger(options.model, most=options.max_blocks)
        index = PodIndex(_client(options.redis_url), options.pod, uuid4().hex)
        # ADR 8: the router ignores a field that is not later than its container's start. Both are whole seconds, and
        # this container may have started within the current one.
        born = int(time()) + 1.0
        self._pump = Pump(self.ledger, index, observer, now=lambda: max(time(), born))
        self._subscribers = [self._subscriber(options, rank, observer) for rank in range(options.ranks)]
        self._watch = Thread(target=self._watch_links, name="kv-watch", daemon=True)

    def _subscriber(self, options: KvOptions, rank: int, observer: KvObserver) -> Subscriber:
        replay = None
        if options.replay_endpoint:
            replay_endpoint = endpoint_of_rank(options.replay_endpoint, rank)
            replay = Replay(self._context, replay_endpoint, self._stopping, ranks=options.ranks)
        stream = EventStream(rank, self.ledger, observer, replay)
        endpoint = endpoint_of_rank(options.endpoint, rank)
        return Subscriber(
            self._context, stream, rank=rank, endpoint=endpoint, topic=options.topic,
            queue=queue_length(options.ranks), observer=observer, stopping=self._stopping,
        )  # fmt: skip

    def start(self) -> None:
        """Start all threads: the pump, one subscriber for each rank, and the watch that logs failing links."""
        # During a burst of events, a scrape gets the interpreter about ten times, and waits one switch interval for
        # each turn. Python's default is five times as long.
        sys.setswitchinterval(SWITCH_SECONDS)
        self._pump.start()
        for subscriber in self._subscribers:
            subscriber.start()
        self._watch.start()

    def stop(self) -> None:
        """Take no more events, and start to remove this pod's fields from Redis; does not wait."""
        self._stopping.set()
        for subscriber in self._subscribers:
            subscriber.wake()
        self._pump.stop(STOP_SECONDS)

    def join(self) -> None:
        """Wait until all threads have ended, a few seconds at most."""
        deadline = monotonic() + _SUBSCRIBERS_SECONDS
        ended = [subscriber.join(max(deadline - monotonic(), 0.0)) for subscriber in self._subscribers]
        self._pump.join()
        self._watch.join(1.0)
        # ZeroMQ sockets are not thread-safe: a busy subscriber's socket must not be closed here. The process ends soon.
        if all(ended):
            self._context.destroy(linger=0)

    def findings(self) -> dict[str, Finding]:
        """Return the entries `kv_events` and `redis` of `/ready`."""
        return {
            "kv_events": diagnose_engine(self._engine, self._subscribers, self.ledger),
            "redis": diagnose_redis(self._pump),
        }

    def _watch_links(self) -> None:
        """Log a link that fails at a check once a minute, and again only when its finding changes."""
        said: dict[str, str] = {}
        while not self._stopping.wait(PATIENCE_SECONDS):
            for link, finding in self.findings().items():
                if finding.fails and said.get(link) != finding.detail:
                    logger.warning("%s: %s", link, finding.detail)
                said[link] = finding.detail


def _client(url: str) -> redis.Redis:
    """Return a client for `url`; nothing is connected.

    Raises:
        ValueError: The URL cannot be used; the message contains nothing of it.
    """
    try:
        client = redis.Redis.from_url(
            url,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),  # the pump retries, with its own back-off
            protocol=2,  # RESP 3 costs a round trip for each connection and needs Redis 6
            parser_class=BoundedParser,
        )
        # redis-py checks a URL's query parameters only when it makes a connection object.
        client.connection_pool.make_connection()
    except (TypeError, ValueError):
        message = "REDIS_URL has a part that the client does not know"
        raise ValueError(message) from None
    if client.get_encoder().decode_responses:
        # `PodIndex` works with bytes.
        message = "REDIS_URL must not set decode_responses"
        raise ValueError(message)
    return client
