"""The ledger: which blocks the engine holds, and which of them Redis knows.

The engine names a block by a hash of its own; the router by one of the block's
tokens. Several of the engine's blocks may have the same tokens, on one rank or
several: they share one entry, which is there as long as one of them is.

    engine hash --(rank, group)--> Entry(model, block, holders, written) <--(model, block)-- router's key

The engine reports a block that it stores twice twice, and removes it twice, so
holders are counted. Repeats without a further block (`kv_cache_report_mode:
full`) make an entry stay too long rather than go too early.

What is kept is bounded. The engine's blocks come first; of the fields that only
Redis has any more, as many are kept as there is room for. The others are
forgotten and counted: this pod's set in Redis names them, and from there they
are adopted again when there is room.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from threading import Condition, Lock
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from exporter.kv.decode import LONGEST_NAME, Cleared, Removed, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from exporter.kv.decode import EngineHash, Event

__all__ = ["MOST_BLOCKS", "Change", "Entry", "Ledger", "Written"]

# Blocks that are kept at 360 bytes each, and adapters that blocks are of. A repeat counts as a block.
MOST_BLOCKS: Final = 200_000
_MOST_MODELS: Final = 4096

# Beside a full ledger a twentieth of its size is room for fields that have to go from Redis.
_SHARE_OF_LEFTOVERS: Final = 20

# Groups of these kinds hold only part of a prefix: beside a group that holds
# all of it they say nothing about what can be reused.
_PARTIAL_KINDS: Final = frozenset({
    "sliding_window", "sliding_window_mla", "chunked_local_attention", "mamba", "encoder_only_attention",
    "cross_attention",
})  # fmt: skip

# Entries that wait to be written although they are gone again, before they are swept out.
_MOST_DEAD: Final = 1000

_Source: TypeAlias = tuple[int, int]  # rank, group


class Written(IntEnum):
    """What Redis has of an entry."""

    NO = 0
    YES = 1
    UNKNOWN = 2
    UNDERWAY = 3


_WRITTEN: Final = {False: Written.NO, True: Written.YES}


class Entry:
    """One field in Redis: `model@block` of this pod."""

    __slots__ = ("block", "holders", "model", "queued", "written")

    def __init__(self, model: str, block: int, written: Written) -> None:
        """Make an entry that nothing holds."""
        self.model = model
        self.block = block
        self.holders = 0
        self.written = written
        self.queued = False


class _Blocks(dict[int, Entry]):
    """The entries of one model, which share one copy of its name."""

    __slots__ = ("model",)

    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model


class Change(NamedTuple):
    """What has to be done about an entry in Redis."""

    entry: Entry
    present: bool


class Ledger:
    """Thread-safe: subscribers apply events, the pump takes changes and settles them.

    Attributes:
        most: How many of the engine's blocks are kept.
        forgotten: How many fields there was no room for so far, which are in Redis all the same.
    """

    def __init__(self, model: str, *, most: int = MOST_BLOCKS) -> None:
        """Keep the blocks of `model` and of its adapters, which go by their own names; `most` of them."""
        self._model = model
        self.most = most
        self.forgotten = 0
        self._limit = most + max(most // _SHARE_OF_LEFTOVERS, 1)
        self._kept = 0  # names and repeats of the engine
        self._count = 0  # entries
        self._leftovers = 0  # of the entries, those that nothing holds
        self._lock = Lock()
        self._changed = Condition(self._lock)
        self._waiting = False
        self._is_closed = False
        self._entries: dict[str, _Blocks] = {}
        self._held: dict[_Source, dict[EngineHash, Entry]] = {}
        self._repeats: dict[_Source, dict[EngineHash, int]] = {}
        self._partial: dict[_Source, bool] = {}
        self._pending: deque[Entry] = deque()
        self._dead = 0  # of those pending, how many nobody knows any more

    def apply(self, rank: int, events: Iterable[Event]) -> int:
        """Take note of what happened on a rank, in order; return how many blocks there was no room for."""
        refused = 0
        with self._lock:
            for event in () if self._is_closed else events:
                match event:
                    case Stored():
                        refused += self._store(rank, event)
                    case Removed():
                        self._remove((rank, event.group), event.hashes)
                    case Cleared():
                        self._clear(rank)
            self._notify()
        return refused

    def clear(self, rank: int) -> None:
        """Forget all blocks of a rank: its engine restarted."""
        self.apply(rank, (Cleared(),))

    def close(self) -> None:
        """Forget all blocks of all ranks and take no more: the runtime ends."""
        with self._lock:
            self._is_closed = True
            for rank in {rank for rank, _ in self._partial}:
                self._clear(rank)
            self._notify()

    def adopt(self, model: str, block: int) -> None:
        """Take over an entry that Redis has; it goes unless the engine holds it, or there is no room for it."""
        if len(model) > LONGEST_NAME and model != self._model:
            return  # no runtime has written that
        with self._lock:
            known = self._entries.get(model)
            entry = known.get(block) if known else None
            if entry is None:
                if self._is_unknown(model) or self._kept + self._leftovers >= self._limit:
                    self.forgotten += 1
                    return
                blocks = self._blocks(model)
                entry = blocks[block] = Entry(blocks.model, block, Written.NO)
                self._count += 1
                self._leftovers += 1
            if entry.written is Written.NO:
                entry.written = Written.UNKNOWN
                self._queue(entry)
            self._notify()

    def doubt(self) -> None:
        """Write every entry again: Redis may have lost any of them."""
        with self._lock:
            for entries in self._entries.values():
                for entry in entries.values():
                    entry.written = Written.UNKNOWN
                    self._queue(entry)
            self._notify()

    def take(self, limit: int) -> list[Change]:
        """Return up to `limit` entries that differ from what Redis has; each must be settled."""
        changes: list[Change] = []
        with self._lock:
            while self._pending and len(changes) < limit:
                entry = self._pending.popleft()
                entry.queued = False
                present = entry.holders > 0
                if entry.written is not _WRITTEN[present]:
                    entry.written = Written.UNDERWAY  # until it is settled
                    changes.append(Change(entry, present))
                elif not present:
                    self._dead -= 1
        return changes

    def settle(self, changes: Iterable[Change], *, done: bool) -> None:
        """Note that changes are in Redis, or that nobody knows whether they are."""
        with self._lock:
            for entry, present in changes:
                entry.written = _WRITTEN[present] if done else Written.UNKNOWN
                if entry.written is not _WRITTEN[entry.holders > 0]:
                    self._queue(entry)
                elif not entry.holders:
                    self._leftovers -= 1
                    self._drop(entry)

    def wait(self, timeout: float, *, unless: Callable[[], bool]) -> None:
        """Wait until there is something to take, or `unless` is true after a `wake`."""
        with self._lock:
            self._waiting = True
            self._changed.wait_for(lambda: self.pending > 0 or unless(), timeout)
            self._waiting = False

    def wake(self) -> None:
        """Let those who wait look again."""
        with self._lock:
            self._notify()

    @property
    def pending(self) -> int:
        """Entries that wait to be written."""
        return len(self._pending) - self._dead

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another block."""
        return self._kept >= self.most

    @property
    def size(self) -> int:
        """Entries there are."""
        return self._count

    def held(self) -> set[tuple[str, int]]:
        """Return the model and block of every entry that is held."""
        with self._lock:
            return {
                (model, entry.block)
                for model, entries in self._entries.items()
                for entry in entries.values()
                if entry.holders
            }

    def _notify(self) -> None:
        if self._waiting:  # seldom; telling nobody costs as much as a block
            self._changed.notify_all()

    def _store(self, rank: int, event: Stored) -> int:
        """Take blocks; return how many there was no room for."""
        source = (rank, event.group)
        if self._partial.get(source, True) and self._ignores(source, event.kind):
            return 0
        model = self._model if event.adapter is None else event.adapter
        return len(event.hashes) if self._is_unknown(model) else self._hold(source, model, event)

    def _hold(self, source: _Source, model: str, event: Stored) -> int:  # noqa: C901 - a call per block costs a tenth
        if self._leftovers and self._kept + self._leftovers + len(event.hashes) > self._limit:
            self._forget_leftovers()
        refused = 0
        held = self._held.setdefault(source, {})
        repeats = self._repeats.setdefault(source, {})
        entries = self._blocks(model)
        model = entries.model
        for name, block in zip(event.hashes, event.blocks, strict=True):
            before = held.get(name)
            if before is None:
                if self._kept >= self.most:
                    refused += 1
                    continue
                self._kept += 1
            entry = entries.get(block)
            if entry is None:
                entry = entries[block] = Entry(model, block, Written.NO)
                self._count += 1
            elif before is entry:
                count = repeats.get(name, 0)
                if count or self._kept < self.most:
                    self._kept += not count
                    repeats[name] = count + 1
                else:
                    refused += 1
                continue
            elif not entry.holders:
                self._leftovers -= 1
            held[name] = entry
            entry.holders += 1
            if entry.holders == 1:
                self._queue(entry)
            if before is not None:  # the engine uses the name for other tokens now
                self._release(before)
                self._kept -= repeats.pop(name, 0) > 0
        if not entries:
            del self._entries[model]
        return refused

    def _is_unknown(self, model: str) -> bool:
        """Whether there are blocks of as many adapters as can be, and this one has none."""
        return len(self._entries) >= _MOST_MODELS and model not in self._entries

    def _remove(self, source: _Source, names: Iterable[EngineHash]) -> None:
        held = self._held.get(source)
        if held is None:
            return
        repeats = self._repeats.get(source)
        for name in names:
            if repeats and name in repeats:
                repeats[name] -= 1
                if not repeats[name]:
                    del repeats[name]
                    self._kept -= 1
            elif (entry := held.pop(name, None)) is not None:
                self._kept -= 1
                self._release(entry)

    def _clear(self, rank: int) -> None:
        for source in [source for source in self._partial if source[0] == rank]:
            self._forget(source)
            del self._partial[source]

    def _forget(self, source: _Source) -> None:
        self._kept -= len(self._repeats.pop(source, ()))
        for entry in self._held.pop(source, {}).values():
            self._kept -= 1
            self._release(entry)

    def _ignores(self, source: _Source, kind: str | None) -> bool:
        """Tell whether a group counts for nothing beside the others of its rank."""
        if source not in self._partial:
            self._partial[source] = kind in _PARTIAL_KINDS
            if not self._partial[source]:
                for other, partial in self._partial.items():
                    if partial and other[0] == source[0]:
                        self._forget(other)
        return self._partial[source] and any(
            not partial for other, partial in self._partial.items() if other[0] == source[0]
        )

    def _blocks(self, model: str) -> _Blocks:
        blocks = self._entries.get(model)
        if blocks is None:
            blocks = self._entries[model] = _Blocks(model)
        return blocks

    def _queue(self, entry: Entry) -> None:
        if not entry.queued:
            entry.queued = True
            self._pending.append(entry)

    def _release(self, entry: Entry) -> None:
        entry.holders -= 1
        if entry.holders:
            return
        if entry.written is Written.NO:
            self._drop(entry)  # an outage of Redis must not keep all that the engine ever had
        else:
            self._leftovers += 1
            self._queue(entry)

    def _drop(self, entry: Entry) -> None:
        """Forget an entry that nothing holds and Redis does not have."""
        entries = self._entries[entry.model]
        del entries[entry.block]
        self._count -= 1
        if not entries:
            del self._entries[entry.model]
        if entry.queued:
            self._dead += 1
            if self._dead > max(_MOST_DEAD, len(self._pending) // 2):
                self._pending = deque(each for each in self._pending if each.holders or each.written is not Written.NO)
                self._dead = 0

    def _forget_leftovers(self) -> None:
        """Make room: forget what only Redis has any more, but for what is underway."""
        kept: deque[Entry] = deque()
        for entry in self._pending:
            if entry.holders or entry.written is Written.UNDERWAY:
                kept.append(entry)
            elif entry.written is not Written.NO:
                entry.queued = False
                self._drop(entry)
                self._leftovers -= 1
                self.forgotten += 1
        self._pending = kept
        self._dead = 0
