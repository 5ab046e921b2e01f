"""The promise as a law: whatever happens, Redis ends up with exactly what the engine holds."""

from __future__ import annotations

from contextlib import ExitStack
from time import time
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from exporter.kv.ledger import Ledger
from exporter.kv.stream import EventStream
from simulators.kv.frames import FORMS, Clear, Form, Remove, Store
from simulators.kv.router import block_key
from simulators.redis import RedisServer
from simulators.waiting import wait_until
from tests.kv.engine import KvEngine
from tests.kv.running import MODEL, POD, pumping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulators.kv.frames import Happening

OTHER: Final = "engine-9.default"
SIZE: Final = 4

# Bigrams and adapters' names are not in every form: what each form can say is tested by itself.
wires = st.sampled_from([wire for wire in FORMS if not wire.bigram])
ranks = st.integers(0, 1)
# Ten names for six contents: some of the engine's blocks have the same tokens.
names = st.lists(st.integers(1, 10), min_size=1, max_size=3)
sent = st.sampled_from([True, True, True, False])


def tokens_of(name: int) -> list[int]:
    return [name % 6 * 10 + place for place in range(SIZE)]


class KvMachine(RuleBasedStateMachine):
    """An engine of two ranks, the streams, the ledger and the pump, beside a real Redis."""

    server: RedisServer

    def __init__(self) -> None:
        super().__init__()
        self.running = ExitStack()
        self.is_up = self.is_kept = True
        self.server.client.flushall()

    @initialize(wire=wires, buffer=st.sampled_from([10_000, 200]), lose_every=st.sampled_from([0, 2, 5]))
    def begin(self, wire: Form, buffer: int, lose_every: int) -> None:
        self.server.client.hset(f"matrix:kv:block:{MODEL}@1", OTHER, 1)
        self.ledger = Ledger(MODEL)
        _, self.recorder = self.running.enter_context(pumping(self.ledger, self.server.url))
        self.engines = [KvEngine(MODEL, wire=wire, buffer=buffer) for _ in range(2)]
        self.streams = [
            EventStream(rank, self.ledger, self.recorder, engine) for rank, engine in enumerate(self.engines)
        ]
        for engine in self.engines:
            engine.lose_every = lose_every
        for stream in self.streams:
            stream.connected()

    @rule(rank=ranks, some=names, send=sent)
    def store(self, rank: int, some: list[int], *, send: bool) -> None:
        self._happen(rank, Store(some, [token for name in some for token in tokens_of(name)], SIZE), send=send)

    @rule(rank=ranks, some=names, send=sent)
    def remove(self, rank: int, some: list[int], *, send: bool) -> None:
        self._happen(rank, Remove(some), send=send)

    @rule(rank=ranks, some=names, send=sent)
    def clear_and_store(self, rank: int, some: list[int], *, send: bool) -> None:
        tokens = [token for name in some for token in tokens_of(name)]
        self._happen(rank, Clear(), Store(some, tokens, SIZE), send=send)

    @rule(rank=ranks, missed=st.integers(0, 3))
    def restart_engine(self, rank: int, missed: int) -> None:
        self.engines[rank].restart()
        for name in range(1, missed + 1):
            self.engines[rank].emit(Store([name], tokens_of(name), SIZE))
        self.streams[rank].connected()

    @rule(rank=ranks)
    def reconnect(self, rank: int) -> None:
        self.streams[rank].connected()

    @rule()
    def lose_redis(self) -> None:
        self.server.kill()
        self.is_up = self.is_kept = False

    @rule()
    def empty_redis(self) -> None:
        if self.is_up:
            self.server.client.flushall()
            self.is_kept = False

    @rule()
    def bring_redis_back(self) -> None:
        if not self.is_up:
            self.server.start()
            self.is_up = True

    @rule()
    def settle(self) -> None:
        self.bring_redis_back()
        for rank in range(2):
            self._happen(rank, send=True)
        held = self.engines[0].held() | self.engines[1].held()
        wait_until(lambda: self._is_settled(held), "Redis has what the engine holds")

    def teardown(self) -> None:
        """Settle, and end: nothing of this pod is left."""
        try:
            if hasattr(self, "engines"):
                self.settle()
                assert self.recorder.faults == {}
        finally:
            self.bring_redis_back()
            self.running.close()
        assert self.server.keys_of(POD) == set()
        assert not self.server.client.exists(f"kthena:kv:pod:{POD}")

    def _happen(self, rank: int, *happenings: Happening, send: bool) -> None:
        message = self.engines[rank].emit(*happenings)
        if send:
            self.streams[rank].take(*message)
        self.streams[rank].report()

    def _is_settled(self, held: set[str]) -> bool:
        index = self.server.index()
        assert not self.is_kept or index[f"matrix:kv:block:{MODEL}@1"] == {OTHER: 1}
        ours = {key: fields[POD] for key, fields in index.items() if POD in fields}
        members = {member.decode() for member in self.server.members(f"kthena:kv:pod:{POD}")}
        named = {f"matrix:kv:block:{member}" for member in members if not member.startswith("!")}
        return set(ours) == held == named and len(members) == len(named) + 1 and max(ours.values(), default=0) <= time()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server of this test's own: it is killed and emptied."""
    with RedisServer() as one:
        yield one


def test_redis_holds_what_the_engine_holds(server: RedisServer, thorough: bool) -> None:
    """Law: after stores, removals, clears, gaps, restarts and outages in any order, Redis equals the engine."""
    KvMachine.server = server
    quick = settings(
        max_examples=500 if thorough else 25,
        stateful_step_count=25,
        phases=[Phase.explicit, Phase.generate],  # a failure takes its deadline each time: shrinking would take an hour
    )
    run_state_machine_as_test(KvMachine, settings=quick)


def test_the_machine_tells_a_missing_block(server: RedisServer) -> None:
    """The comparison is not empty: a field that is taken away is missed."""
    KvMachine.server = server
    machine = KvMachine()
    machine.begin(FORMS[0], 100, 0)
    machine.store(0, [1, 2], send=True)
    machine.settle()
    held = machine.engines[0].held()

    server.client.hdel(block_key(MODEL, tokens_of(1)), POD)

    assert len(held) == 2
    assert not machine._is_settled(held)
    machine.running.close()
