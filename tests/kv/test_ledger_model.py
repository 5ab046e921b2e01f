"""The ledger against a naive model: a dictionary of names, counted."""

from __future__ import annotations

from typing import TypeAlias

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from exporter.kv.decode import Cleared, Removed, Stored
from exporter.kv.ledger import Change, Ledger

pytestmark = pytest.mark.unit

Key: TypeAlias = tuple[str, int]

sources = st.tuples(st.integers(0, 1), st.integers(0, 1))
names = st.integers(0, 5)
blocks = st.integers(10, 13)
adapters = st.sampled_from([None, None, "lora-a"])
MOST = 6
LIMIT = MOST + 1


class LedgerMachine(RuleBasedStateMachine):
    """Any order of events, writes that fail, doubts and leftovers, with little room."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger("base", most=MOST)
        self.engine: dict[tuple[int, int], dict[int, list[Key]]] = {}
        self.redis: set[Key] = set()
        self.flying: list[Change] = []
        self.collected = 0

    @property
    def has_room(self) -> bool:
        """Each name takes one place, and one more when it repeats."""
        return sum(min(len(copies), 2) for named in self.engine.values() for copies in named.values()) < MOST

    def collect(self) -> None:
        self.collected = self.ledger.forgotten
        for model, block in self.redis:
            self.ledger.adopt(model, block)

    @rule(source=sources, name=names, block=blocks, adapter=adapters)
    def store(self, source: tuple[int, int], name: int, block: int, adapter: str | None) -> None:
        refused = self.ledger.apply(source[0], [Stored([name], [block], adapter, source[1])])
        key = (adapter or "base", block)
        copies = self.engine.setdefault(source, {}).setdefault(name, [])
        takes_room = not copies or copies == [key]
        assert refused == (takes_room and not self.has_room)
        if not refused:
            copies[:] = [copy for copy in copies if copy == key] + [key]

    @rule(source=sources, some=st.lists(names, max_size=3))
    def remove(self, source: tuple[int, int], some: list[int]) -> None:
        self.ledger.apply(source[0], [Removed(some, source[1])])
        for name in some:
            if copies := self.engine.get(source, {}).get(name):
                copies.pop()

    @rule(rank=st.integers(0, 1))
    def clear(self, rank: int) -> None:
        self.ledger.apply(rank, [Cleared()])
        for source in list(self.engine):
            if source[0] == rank:
                del self.engine[source]

    @rule(limit=st.integers(1, 3))
    def take(self, limit: int) -> None:
        if not self.flying:
            self.flying = self.ledger.take(limit)

    @rule(done=st.booleans(), arrives=st.booleans())
    def settle(self, *, done: bool, arrives: bool) -> None:
        if done or arrives:
            for entry, present in self.flying:
                (self.redis.add if present else self.redis.discard)((entry.model, entry.block))
        self.ledger.settle(self.flying, done=done)
        self.flying = []

    @rule(kept=st.booleans())
    def lose_redis(self, *, kept: bool) -> None:
        if self.flying:
            return
        if not kept:
            self.redis.clear()
        self.ledger.doubt()
        self.collect()

    @rule()
    def collect_forgotten(self) -> None:
        if not self.flying:
            self.collect()

    @invariant()
    def holds_what_the_engine_holds(self) -> None:
        assert self.ledger.held() == {
            copy for named in self.engine.values() for copies in named.values() for copy in copies
        }

    @invariant()
    def remembers_no_more_than_it_needs(self) -> None:
        assert self.ledger.size <= len(self.ledger.held() | self.redis) + len(self.ledger._pending) + len(self.flying)
        assert 0 <= self.ledger.pending <= self.ledger.size <= LIMIT + len(self.flying)

    def teardown(self) -> None:
        """In the end Redis has exactly what the engine holds, and the ledger no more than that."""
        self.ledger.settle(self.flying, done=False)
        self.drain()
        while self.collected != self.ledger.forgotten:
            self.collect()
            self.drain()
        assert self.redis == self.ledger.held()
        assert self.ledger.size == len(self.redis)
        assert self.ledger.pending == 0

    def drain(self) -> None:
        while changes := self.ledger.take(2):
            for entry, present in changes:
                (self.redis.add if present else self.redis.discard)((entry.model, entry.block))
            self.ledger.settle(changes, done=True)


TestLedger = LedgerMachine.TestCase
TestLedger.__doc__ = "Law: whatever happens, the ledger is what the engine holds, and Redis becomes it."
