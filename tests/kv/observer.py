"""An observer of KV events that writes down what it is told."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from exporter.kv.decode import Drop

if TYPE_CHECKING:
    from exporter.kv.tally import Tally

__all__ = ["KvRecorder"]


class KvRecorder:
    """Keeps everything.

    Attributes:
        tally: Totals of what was received, by name.
        dropped: What was left out, by reason; `faults` is without what came twice, which depends on timing.
        resyncs: The reasons, in order.
        connections: Rank and whether it came or went, in order.
        done: Operations on Redis that succeeded, counted.
        failed: Operation and reason of those that failed, counted.
    """

    def __init__(self) -> None:
        self.tally: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.resyncs: list[str] = []
        self.connections: list[tuple[int, bool]] = []
        self.done: Counter[str] = Counter()
        self.failed: Counter[tuple[str, str]] = Counter()

    def received(self, tally: Tally) -> None:
        self.dropped.update(tally.dropped)
        self.tally.update(tally.events)
        self.tally.update(batches=len(tally.timestamps), gaps=tally.gaps, replayed=tally.replayed)

    def resynced(self, *, reason: str) -> None:
        self.resyncs.append(reason)

    def connection(self, rank: int, *, up: bool) -> None:
        self.connections.append((rank, up))

    def redis_done(self, *, operation: str, seconds: float) -> None:
        assert seconds >= 0
        self.done[operation] += 1

    def redis_failed(self, *, operation: str, reason: str) -> None:
        self.failed[operation, reason] += 1

    @property
    def faults(self) -> dict[str, int]:
        """What was left out and should not have come."""
        return {reason: count for reason, count in self.dropped.items() if reason != Drop.DUPLICATE}

    @property
    def reasons(self) -> set[str]:
        """Why Redis failed, ever."""
        return {reason for _, reason in self.failed}
