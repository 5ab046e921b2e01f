"""KV events and parts of them while a ``with`` block runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from exporter.kv.events import KvEvents, KvOptions
from exporter.kv.index import PodIndex
from exporter.kv.pump import Pump
from exporter.kv.replies import BoundedParser
from simulators.waiting import PATIENCE
from tests.kv.observer import KvRecorder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.kv.ledger import Ledger
    from simulators.kv.publisher import KvPublisher

__all__ = ["MODEL", "POD", "connect", "kv_events", "pumping"]

MODEL = "base-model"
POD = "engine-0.default"


def connect(url: str, *, answer_seconds: float = 5.0) -> redis.Redis:
    """Return a client as the runtime has it."""
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=2,
        socket_timeout=answer_seconds,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        parser_class=BoundedParser,
    )


@contextmanager
def kv_events(
    publisher: KvPublisher, redis_url: str, *, topic: str = "", replay: bool = True, ranks: int = 1, wait: bool = True
) -> Iterator[tuple[KvEvents, KvRecorder]]:
    """Run everything beside an engine; it ends cleanly."""
    recorder = KvRecorder()
    options = KvOptions(
        engine=publisher.form.engine, model=MODEL, pod=POD, redis_url=redis_url, endpoint=publisher.endpoint,
        topic=topic, replay_endpoint=publisher.replay_endpoint if replay else None, ranks=ranks,
    )  # fmt: skip
    events = KvEvents(options, recorder)
    events.start()
    try:
        for rank in range(ranks if wait else 0):
            publisher.wait_for_subscriber(rank)
        yield events, recorder
    finally:
        events.stop()
        events.join()


@contextmanager
def pumping(
    ledger: Ledger,
    url: str,
    *,
    refresh_every: float = 3600.0,
    stop_seconds: float = PATIENCE,
    answer_seconds: float = PATIENCE,
) -> Iterator[tuple[Pump, KvRecorder]]:
    """Run a pump that looks at Redis often and rests shortly; it ends cleanly."""
    recorder = KvRecorder()
    index = PodIndex(connect(url, answer_seconds=answer_seconds), POD, uuid4().hex)
    pump = Pump(ledger, index, recorder, check_every=0.05, refresh_every=refresh_every, pauses=(0.02, 0.1))
    pump.start()
    try:
        yield pump, recorder
    finally:
        pump.stop(stop_seconds)
        pump.join()
        pump._thread.join(PATIENCE)
        assert not pump._thread.is_alive()
