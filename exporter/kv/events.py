"""KV events as a whole: what is built, started and stopped together."""

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
# As long fields may be taken out of Redis at the end; `exporter.service` waits longer.
STOP_SECONDS: Final = 5.0
# All subscribers together, meanwhile.
_SUBSCRIBERS_SECONDS: Final = 1.0
SWITCH_SECONDS: Final = 0.001
# An engine may take its time to start: only then is a missing link news.
PATIENCE_SECONDS: Final = 60.0


# The label values of the metrics that there can be (KvLabels in exporter.telemetry.kv).
LABELS: Final[Mapping[str, Collection[str]]] = {
    "event_types": (STORED, REMOVED, CLEARED),
    "drop_reasons": tuple(Drop),
    "undecodable": (Drop.FRAMES, Drop.PAYLOAD, Drop.INVALID),
    "resync_reasons": (*RESYNCS, ENGINE_RESTART),
    "operations": OPERATIONS,
    "redis_reasons": REASONS,
}


class KvObserver(StreamObserver, SubscriberObserver, PumpObserver, Protocol):
    """Told of everything that happens between the engine and Redis."""


@dataclass(frozen=True, slots=True)
class KvOptions:
    """Where events come from and where they go.

    Attributes:
        engine: `vllm` or `sglang`, for hints.
        model: The base model's name in keys.
        pod: This pod's field, `name.namespace`.
        redis_url: `redis://` or `rediss://`, with credentials.
        endpoint: Rank 0's events.
        topic: What a message's topic must begin with.
        replay_endpoint: Rank 0's replay socket, if it has one.
        ranks: How many DP ranks there are.
        max_blocks: How many of the engine's blocks are kept in memory at most.
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
    """The subscribers, the ledger and the pump of one pod."""

    def __init__(self, options: KvOptions, observer: KvObserver) -> None:
        """Build everything; nothing is connected yet.

        Raises:
            ValueError: An endpoint or the URL cannot be used.
        """
        self._engine = options.engine
        self._stopping = Event()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.ledger = Ledger(options.model, most=options.max_blocks)
        index = PodIndex(_client(options.redis_url), options.pod, uuid4().hex)
        # The router passes over fields as old as the container, which started within this second.
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
        """Start all threads."""
        # A scrape takes its turn ten times; in a burst each of them would be five times as long.
        sys.setswitchinterval(SWITCH_SECONDS)
        self._pump.start()
        for subscriber in self._subscribers:
            subscriber.start()
        self._watch.start()

    def stop(self) -> None:
        """Take no more events, and begin to take this pod's fields out of Redis; waits for nothing."""
        self._stopping.set()
        for subscriber in self._subscribers:
            subscriber.wake()
        self._pump.stop(STOP_SECONDS)

    def join(self) -> None:
        """Wait until all has ended, a few seconds at most."""
        deadline = monotonic() + _SUBSCRIBERS_SECONDS
        ended = [subscriber.join(max(deadline - monotonic(), 0.0)) for subscriber in self._subscribers]
        self._pump.join()
        self._watch.join(1.0)
        # Sockets are not thread-safe: those of a subscriber that is still busy go with the process.
        if all(ended):
            self._context.destroy(linger=0)

    def findings(self) -> dict[str, Finding]:
        """Return how each link fares."""
        return {
            "kv_events": diagnose_engine(self._engine, self._subscribers, self.ledger),
            "redis": diagnose_redis(self._pump),
        }

    def _watch_links(self) -> None:
        """Say what is missing once it has been missing for a while, and again when that changes."""
        said: dict[str, str] = {}
        while not self._stopping.wait(PATIENCE_SECONDS):
            for link, finding in self.findings().items():
                if finding.fails and said.get(link) != finding.detail:
                    logger.warning("%s: %s", link, finding.detail)
                said[link] = finding.detail


def _client(url: str) -> redis.Redis:
    """Make a client, and a connection that is not connected, so that a bad URL shows now.

    Raises:
        ValueError: The URL cannot be used; the message shows nothing of it.
    """
    try:
        client = redis.Redis.from_url(
            url,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            protocol=2,  # 3 costs a round trip at each connect and asks for Redis 6
            parser_class=BoundedParser,
        )
        client.connection_pool.make_connection()
    except (TypeError, ValueError):
        message = "REDIS_URL has a part that the client does not know"
        raise ValueError(message) from None
    if client.get_encoder().decode_responses:
        message = "REDIS_URL must not set decode_responses"
        raise ValueError(message)
    return client
