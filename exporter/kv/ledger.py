"""The ledger: which blocks the engine holds, and which of them Redis has (docs/adr/0006).

The engine identifies a block by its own hash, and the router by a hash of the block's
tokens. Several engine blocks may have the same tokens, on one rank or on several. They
share one entry, which exists as long as one of them does.

    engine hash --(rank, group)--> Entry(model, block, holders, written) <--(model, block)-- router's key

The engine reports a block that it stores twice two times, and removes it two times.
The ledger therefore counts. An engine that repeats events without storing another block
(`kv_cache_report_mode: full`) makes an entry stay too long, rather than go too early.

Memory is limited (docs/adr/0019). The engine's blocks take precedence. Leftovers, the
fields that Redis has and the engine no longer holds, are kept while there is room. The
others are forgotten and counted. This pod's set in Redis still names them, and the pump
adopts them again when there is room.
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

# The default number of blocks, each of which takes 360 bytes, and the number of models and adapters with blocks.
# A repeated block counts as another block.
MOST_BLOCKS: Final = 200_000
_MOST_MODELS: Final = 4096

# Even when the ledger is full, there is room for leftovers: a twentieth of its size.
_SHARE_OF_LEFTOVERS: Final = 20

# Groups of these kinds hold only a part of a prefix. Next to a group that holds all
# of it, they say nothing about what can be reused.
_PARTIAL_KINDS: Final = frozenset({
    "sliding_window", "sliding_window_mla", "chunked_local_attention", "mamba", "encoder_only_attention",
    "cross_attention",
})  # fmt: skip

# The number of dropped entries in the queue of pending ones before the queue is cleaned.
_MOST_DEAD: Final = 1000

_Source: TypeAlias = tuple[int, int]  # rank, group


class Written(IntEnum):
    """Whether Redis has an entry's field."""

    NO = 0
    YES = 1
    UNKNOWN = 2  # a write failed, or Redis may have lost data: write or remove it again
    UNDERWAY = 3  # taken by the pump and not settled yet


_WRITTEN: Final = {False: Written.NO, True: Written.YES}


class Entry:
    """One field in Redis: this pod's field of the key `model@block`.

    Attributes:
        model: The base model's or adapter's name.
        block: The router's hash.
        holders: How many of the engine's hashes refer to it. Without any, the field must go.
        written: Whether Redis has the field.
        queued: Whether the entry is in the queue of pending ones.
    """

    __slots__ = ("block", "holders", "model", "queued", "written")

    def __init__(self, model: str, block: int, written: Written) -> None:
        self.model = model
        self.block = block
        self.holders = 0
        self.written = written
        self.queued = False


class _Blocks(dict[int, Entry]):
    """The entries of one model by block; they share one copy of the model's name, to save memory."""

    __slots__ = ("model",)

    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model


class Change(NamedTuple):
    """A change for Redis: write the entry's field (`present`), or remove it."""

    entry: Entry
    present: bool


class Ledger:
    """The blocks of one pod; safe for threads. Subscribers apply events; the pump takes changes and settles them.

    Attributes:
        most: The highest number of the engine's blocks.
        forgotten: How many leftovers there was no room for so far. Their fields may still be in Redis.
    """

    def __init__(self, model: str, *, most: int = MOST_BLOCKS) -> None:
        """Start empty.

        Args:
            model: The base model's name. Blocks of an adapter are kept under the adapter's name.
            most: The highest number of the engine's blocks.
        """
        self._model = model
        self.most = most
        self.forgotten = 0
        self._limit = most + max(most // _SHARE_OF_LEFTOVERS, 1)
        self._kept = 0  # engine hashes, and those of them that are repeated: what `most` limits
        self._count = 0  # entries
        self._leftovers = 0  # entries without holders
        self._lock = Lock()
        self._changed = Condition(self._lock)
        self._waiting = False
        self._is_closed = False
        self._entries: dict[str, _Blocks] = {}
        self._held: dict[_Source, dict[EngineHash, Entry]] = {}
        self._repeats: dict[_Source, dict[EngineHash, int]] = {}
        self._partial: dict[_Source, bool] = {}
        self._pending: deque[Entry] = deque()
        self._dead = 0  # dropped entries that are still in `_pending`

    def apply(self, rank: int, events: Iterable[Event]) -> int:
        """Apply a rank's events in order; return the number of blocks that were refused for lack of room.

        Never waits for Redis: a slow Redis must not stop the subscribers.
        """
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
        """Forget all blocks of a rank, whose engine restarted."""
        self.apply(rank, (Cleared(),))

    def close(self) -> None:
        """Forget all blocks of all ranks and accept no more: at the end, all of this pod's fields must go."""
        with self._lock:
            self._is_closed = True
            for rank in {rank for rank, _ in self._partial}:
                self._clear(rank)
            self._notify()

    def adopt(self, model: str, block: int) -> None:
        """Add a field that Redis has. The pump removes it, or writes it again if the engine holds the block.

        Without room, the field is counted as forgotten.
        """
        if len(model) > LONGEST_NAME and model != self._model:
            return  # no runtime has written such a field
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
        """Mark every entry as unknown, so that the pump writes or removes it again."""
        with self._lock:
            for entries in self._entries.values():
                for entry in entries.values():
                    entry.written = Written.UNKNOWN
                    self._queue(entry)
            self._notify()

    def take(self, limit: int) -> list[Change]:
        """Return up to `limit` changes for entries that differ from Redis; `settle` must follow for each."""
        changes: list[Change] = []
        with self._lock:
            while self._pending and len(changes) < limit:
                entry = self._pending.popleft()
                entry.queued = False
                present = entry.holders > 0
                if entry.written is not _WRITTEN[present]:
                    # An event may change the entry before it is settled; `settle` then queues it again.
                    entry.written = Written.UNDERWAY
                    changes.append(Change(entry, present))
                elif not present:
                    self._dead -= 1
        return changes

    def settle(self, changes: Iterable[Change], *, done: bool) -> None:
        """Note that changes are in Redis (`done`), or that it is unknown whether they are."""
        with self._lock:
            for entry, present in changes:
                entry.written = _WRITTEN[present] if done else Written.UNKNOWN
                if entry.written is not _WRITTEN[entry.holders > 0]:
                    self._queue(entry)
                elif not entry.holders:
                    self._leftovers -= 1
                    self._drop(entry)

    def wait(self, timeout: float, *, unless: Callable[[], bool]) -> None:
        """Wait until an entry is pending, `unless` is true after a `wake`, or `timeout` seconds have passed."""
        with self._lock:
            self._waiting = True
            self._changed.wait_for(lambda: self.pending > 0 or unless(), timeout)
            self._waiting = False

    def wake(self) -> None:
        """Let a waiting pump check its condition again."""
        with self._lock:
            self._notify()

    @property
    def pending(self) -> int:
        """Number of entries that differ from Redis and wait for the pump."""
        return len(self._pending) - self._dead

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another of the engine's blocks."""
        return self._kept >= self.most

    @property
    def size(self) -> int:
        """Number of entries: fields of this pod that Redis has or will get."""
        return self._count

    def held(self) -> set[tuple[str, int]]:
        """Return the model and block of every entry that the engine holds."""
        with self._lock:
            return {
                (model, entry.block)
                for model, entries in self._entries.items()
                for entry in entries.values()
                if entry.holders
            }

    def _notify(self) -> None:
        if self._waiting:  # rarely; a notification without a waiter costs as much as a block
            self._changed.notify_all()

    def _store(self, rank: int, event: Stored) -> int:
        """Store blocks; return how many were refused for lack of room."""
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
            if before is not None:  # the engine now uses this hash for other tokens
                self._release(before)
                self._kept -= repeats.pop(name, 0) > 0
        if not entries:
            del self._entries[model]
        return refused

    def _is_unknown(self, model: str) -> bool:
        """Tell whether a model is new, and there are already blocks of the highest number of models."""
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
        """Tell whether a group is ignored because another group of its rank holds whole prefixes.

        The first such group also drops the blocks of partial groups that were counted until then.
        """
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
            # Redis never had it. Otherwise, an outage of Redis would keep every block that the engine ever held.
            self._drop(entry)
        else:
            self._leftovers += 1
            self._queue(entry)

    def _drop(self, entry: Entry) -> None:
        """Forget an entry without holders. It stays in the queue for now, because a deque cannot remove it cheaply."""
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
        """Make room: forget all leftovers, except those that the pump is removing now."""
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
