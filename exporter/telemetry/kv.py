"""Metrics of KV events and Redis: the observer of `exporter.kv`.

The protocols here describe what this module needs of `exporter.kv`. Importing
that package would load ZeroMQ and redis-py into every runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from exporter.telemetry import names
from exporter.telemetry.instruments import Histogram, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from exporter.page.family import TextFamily

__all__ = ["KvLabels", "KvTelemetry", "enabled_family"]

_LAG_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)


class Received(Protocol):
    """Sums over a run of event batches (`exporter.kv.tally.Tally`)."""

    @property
    def timestamps(self) -> Iterable[float]:
        """The engine's timestamp of each batch, unix seconds."""

    @property
    def events(self) -> Mapping[str, int]:
        """Number of events by type."""

    @property
    def blocks(self) -> Mapping[str, int]:
        """Number of blocks by event type."""

    @property
    def dropped(self) -> Mapping[Any, int]:
        """Number of dropped messages and events by reason."""

    @property
    def gaps(self) -> int:
        """Number of jumps of the sequence number."""

    @property
    def replayed(self) -> int:
        """Number of batches from the engine's replay socket."""


@dataclass(frozen=True, slots=True)
class KvLabels:
    """All possible label values, so that their series can start at 0.

    Attributes:
        ranks: The DP ranks.
        event_types: Names of the events, as the engines tag them.
        drop_reasons: Reasons for dropping a message or an event.
        undecodable: Those drop reasons that count as decode errors, too.
        resync_reasons: Reasons for a resync.
        operations: Operations on Redis.
        redis_reasons: Reasons for a failed operation.
    """

    ranks: Collection[int]
    event_types: Collection[str]
    drop_reasons: Collection[str]
    undecodable: Collection[str]
    resync_reasons: Collection[str]
    operations: Collection[str]
    redis_reasons: Collection[str]


class Ledger(Protocol):
    """The sizes of `exporter.kv.ledger.Ledger`."""

    @property
    def size(self) -> int:
        """Number of entries: fields of this pod that Redis has or will get."""

    @property
    def pending(self) -> int:
        """Number of entries that differ from Redis and wait for the pump."""


class KvTelemetry:
    """Metrics of KV events and Redis; safe for threads. Every series with known label values starts at 0.

    kthena_runtime_kv_subscriber_connected{dp_rank="0"} 1.0
    kthena_runtime_kv_events_total{type="BlockStored"} 12.0
    kthena_runtime_kv_event_blocks_total{type="BlockStored"} 384.0
    kthena_runtime_kv_events_dropped_total{reason="tier"} 0.0
    kthena_runtime_kv_resyncs_total{reason="start"} 1.0
    kthena_runtime_kv_event_gaps_total 0.0
    kthena_runtime_kv_events_replayed_total 0.0
    kthena_runtime_kv_event_decode_errors_total 0.0
    kthena_runtime_kv_indexed_blocks 384.0
    kthena_runtime_kv_queue_depth 0.0
    kthena_runtime_kv_event_lag_seconds_bucket{le="0.001"} 11.0
    kthena_runtime_kv_last_event_timestamp_seconds 1767225600.0
    kthena_runtime_redis_up 1.0
    kthena_runtime_redis_operation_duration_seconds_bucket{operation="write",le="0.001"} 9.0
    kthena_runtime_redis_errors_total{operation="write",reason="timeout"} 0.0
    """

    def __init__(self, labels: KvLabels, *, now: Callable[[], float] = time) -> None:
        """Start every series of `labels` at 0; `now` returns unix seconds."""
        self._now = now
        self._undecodable = frozenset(labels.undecodable)
        self._connected = Value(names.KV_CONNECTED)
        for rank in labels.ranks:
            self._connected.set(str(rank), value=0.0)
        self._events = _counter(names.KV_EVENTS, labels.event_types)
        self._blocks = _counter(names.KV_EVENT_BLOCKS, labels.event_types)
        self._dropped = _counter(names.KV_DROPPED, labels.drop_reasons)
        self._resyncs = _counter(names.KV_RESYNCS, labels.resync_reasons)
        self._gaps = _counter(names.KV_GAPS)
        self._replayed = _counter(names.KV_REPLAYED)
        self._decode_errors = _counter(names.KV_DECODE_ERRORS)
        self._lag = Histogram(names.KV_LAG, _LAG_BUCKETS)
        self._lag.make()
        self._last_event = Value(names.KV_LAST_EVENT)
        self._last_event.set(value=0.0)
        self._indexed = Value(names.KV_INDEXED_BLOCKS)
        self._queued = Value(names.KV_QUEUE_DEPTH)
        self._redis_up = Value(names.REDIS_UP)
        self._redis_up.set(value=0.0)
        self._duration = Histogram(names.REDIS_DURATION)
        self._errors = Value(names.REDIS_ERRORS)
        for operation in labels.operations:
            self._duration.make(operation)
            for reason in labels.redis_reasons:
                self._errors.add(operation, reason, amount=0)

    def received(self, tally: Received) -> None:
        """Count a run of event batches; the lag is measured from the engine's clock to this pod's."""
        for kind, count in tally.events.items():
            self._events.add(kind, amount=count)
        for kind, count in tally.blocks.items():
            self._blocks.add(kind, amount=count)
        for reason, count in tally.dropped.items():
            self._dropped.add(reason, amount=count)
            if reason in self._undecodable:
                self._decode_errors.add(amount=count)
        self._gaps.add(amount=tally.gaps)
        self._replayed.add(amount=tally.replayed)
        now = self._now()
        for timestamp in tally.timestamps:
            # The engine's clock may be ahead; a negative lag would make the histogram's sum decrease.
            self._lag.observe(value=max(now - timestamp, 0.0))
        if tally.timestamps:
            self._last_event.set(value=now)

    def resynced(self, *, reason: str) -> None:
        """Count a resync of the ledger or of Redis."""
        self._resyncs.add(reason)

    def connection(self, rank: int, *, up: bool) -> None:
        """Set whether the subscriber of a DP rank has a connection."""
        self._connected.set(str(rank), value=float(up))

    def redis_done(self, *, operation: str, seconds: float) -> None:
        """Count a successful operation on Redis, with its duration."""
        self._redis_up.set(value=1.0)
        self._duration.observe(operation, value=seconds)

    def redis_failed(self, *, operation: str, reason: str) -> None:
        """Count a failed operation on Redis."""
        self._redis_up.set(value=0.0)
        self._errors.add(operation, reason)

    def families(self, ledger: Ledger) -> list[TextFamily]:
        """Return the families with their current values, and the current sizes of `ledger`."""
        self._indexed.set(value=float(ledger.size))
        self._queued.set(value=float(ledger.pending))
        kept = (
            self._connected, self._events, self._blocks, self._dropped, self._resyncs, self._gaps, self._replayed,
            self._decode_errors, self._indexed, self._queued, self._lag, self._last_event, self._redis_up, self._duration, self._errors,
        )  # fmt: skip
        return [each.family() for each in kept]


def enabled_family(*, enabled: bool) -> TextFamily:
    """Return the family that every runtime exports, whether or not Redis is configured.

    kthena_runtime_kv_enabled 1.0
    """
    value = Value(names.KV_ENABLED)
    value.set(value=float(enabled))
    return value.family()


def _counter(description: names.Description, values: Iterable[str] | None = None) -> Value:
    counter = Value(description)
    if values is None:
        counter.add(amount=0)
    else:
        for value in values:
            counter.add(value, amount=0)
    return counter
