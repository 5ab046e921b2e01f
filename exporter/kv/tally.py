"""Sums over a run of event batches, so that counters are updated once per run instead of once per event."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from exporter.kv.decode import CLEARED, REMOVED, STORED, Drop, Removed, Stored

if TYPE_CHECKING:
    from exporter.kv.decode import Batch

__all__ = ["Tally"]


@dataclass(slots=True)
class Tally:
    """Sums since the last report.

    Attributes:
        timestamps: When the engine made each batch, unix seconds.
        events: Number of events by type.
        blocks: Number of blocks in those events, by type.
        dropped: Number of dropped messages and events by reason.
        gaps: Number of jumps of the sequence number.
        replayed: Number of batches from the replay socket.
    """

    timestamps: list[float] = field(default_factory=list)
    events: dict[str, int] = field(default_factory=dict)
    blocks: dict[str, int] = field(default_factory=dict)
    dropped: dict[Drop, int] = field(default_factory=dict)
    gaps: int = 0
    replayed: int = 0

    def add(self, batch: Batch) -> None:
        """Add a batch that was applied, with its dropped events."""
        self.timestamps.append(batch.timestamp)
        for event in batch.events:
            if isinstance(event, Stored):
                kind, count = STORED, len(event.hashes)
            elif isinstance(event, Removed):
                kind, count = REMOVED, len(event.hashes)
            else:
                kind, count = CLEARED, 0
            self.events[kind] = self.events.get(kind, 0) + 1
            self.blocks[kind] = self.blocks.get(kind, 0) + count
        for reason, count in batch.dropped.items():
            self.drop(reason, count)

    def drop(self, reason: Drop, count: int = 1) -> None:
        """Count dropped messages or events."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def __bool__(self) -> bool:
        """Tell whether there is anything to report; a replayed batch adds a timestamp or a drop, too."""
        return bool(self.timestamps or self.dropped or self.gaps)
