"""The end of a burst: what the engine's queue lost there shows only when somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exporter.kv.stream import EventStream
from tests.kv.stream_bench import Bench, store

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.kv.engine import KvEngine

pytestmark = pytest.mark.unit

BURST = 200


class CutShort:
    """A replay socket that loses the last replies of its first answer, but not its end."""

    def __init__(self, engine: KvEngine) -> None:
        self._engine = engine

    def since(self, start: int, *, missing: int = 0) -> Generator[tuple[int, bytes], None, None]:  # noqa: ARG002 - as `Replays` has it
        replies = list(self._engine.since(start))
        yield from replies[:-2] if len(self._engine.asked) == 1 else replies


def burst(bench: Bench) -> None:
    for number in range(BURST):
        bench.live(store(number))


def test_a_lost_end_of_a_burst_is_asked_for_in_the_pause() -> None:
    """No message follows that would show a gap, and all the same nothing is missing."""
    bench = Bench()
    burst(bench)
    for number in range(BURST, BURST + 5):
        bench.engine.emit(store(number))

    assert bench.stream.is_in_burst
    bench.stream.pause()

    bench.check()
    assert bench.engine.asked == [BURST]
    assert bench.told.tally["replayed"] == 5


def test_a_pause_after_a_few_messages_asks_nothing() -> None:
    """No queue of an engine is so short that these could have filled it."""
    bench = Bench()

    bench.live(store(0))

    assert not bench.stream.is_in_burst


def test_one_pause_ends_a_burst() -> None:
    """The engine is asked once, and again only after the next burst."""
    bench = Bench()
    burst(bench)

    bench.stream.pause()

    assert not bench.stream.is_in_burst


def test_a_pause_without_a_replay_socket_asks_nothing() -> None:
    """There is nobody to ask, and nothing that fails."""
    bench = Bench(replay=False)
    burst(bench)

    bench.stream.pause()

    assert bench.engine.asked == []
    assert bench.told.faults == {}


def test_a_dead_replay_socket_is_not_asked_after_each_burst() -> None:
    """Each question would cost seconds in which nothing is read."""
    bench = Bench()
    bench.engine.dead = True
    bench.stream.connected()
    asked = len(bench.engine.asked)
    burst(bench)

    bench.stream.pause()

    assert len(bench.engine.asked) == asked


def test_the_end_of_a_replay_may_be_lost_too() -> None:
    """Up to the message that showed the gap the engine has everything: it is asked until it is there."""
    bench = Bench()
    bench.stream = EventStream(0, bench.ledger, bench.recorder, CutShort(bench.engine))
    bench.live(store(0))
    for number in range(1, 4):
        bench.engine.emit(store(number))

    bench.live(store(4))

    bench.check()
    assert bench.told.dropped == {}
