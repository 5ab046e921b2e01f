"""One rank's messages: in order, without gaps as far as the engine can help, and anew after its restart."""

from __future__ import annotations

import logging

import pytest

from exporter.kv.decode import Drop
from exporter.kv.ledger import Ledger
from exporter.kv.limits import MAX_PAYLOAD
from exporter.kv.stream import EventStream
from simulators.kv.frames import Remove, pack
from tests.kv.engine import KvEngine
from tests.kv.observer import KvRecorder
from tests.kv.stream_bench import Bench, store

pytestmark = pytest.mark.unit


def test_batches_in_order_are_taken() -> None:
    """Nothing is asked for again where nothing is missing."""
    bench = Bench()
    bench.stream.connected()

    for number in range(5):
        bench.live(store(number))

    bench.check()
    assert bench.engine.asked == [0]
    assert bench.told.tally == {"BlockStored": 5, "batches": 5, "gaps": 0, "replayed": 0}
    assert bench.told.dropped == {}


def test_what_came_before_the_runtime_is_replayed() -> None:
    """At the first connection everything that the engine still has is taken."""
    bench = Bench()
    bench.engine.emit(store(1), store(2))
    bench.engine.emit(Remove([1]))

    bench.stream.connected()

    bench.check()
    assert bench.told.tally["replayed"] == 2
    assert bench.told.tally["gaps"] == 0
    assert bench.stream.received


def test_an_engines_first_batches_may_be_missed() -> None:
    """Between the connection and the subscription a new engine may have begun: that is a gap like any other."""
    bench = Bench()
    bench.stream.connected()
    bench.engine.emit(store(0))
    bench.engine.emit(store(1))

    bench.live(store(2))

    bench.check()
    assert bench.told.tally["gaps"] == 1
    assert bench.told.faults == {}


def test_a_restarted_engines_first_batches_may_be_missed() -> None:
    """The same after a restart."""
    bench = Bench()
    bench.live(store(9))
    bench.engine.restart()
    bench.stream.connected()
    bench.engine.emit(store(0))

    bench.live(store(1))

    bench.check()
    assert bench.told.faults == {}


def test_without_a_replay_socket_the_first_number_is_the_beginning() -> None:
    """What came before this runtime is neither a gap nor lost."""
    bench = Bench(replay=False)
    bench.engine.sequence = 500
    bench.stream.connected()

    bench.live(store(1))

    bench.check()
    assert (bench.told.tally["gaps"], bench.told.dropped) == (0, {})


def test_a_gap_is_filled() -> None:
    """What is missing is asked for, counted, and taken in order; what comes twice is taken once."""
    bench = Bench()
    bench.live(store(0))
    bench.engine.emit(store(1))
    bench.engine.emit(Remove([0]), store(2))
    late = [bench.engine.emit(store(number)) for number in (3, 4)]

    for message in late:
        bench.stream.take(*message)
    bench.live(store(5))

    bench.check()
    assert bench.engine.asked == [1]
    assert bench.told.tally == {
        "BlockStored": 6, "BlockRemoved": 1, "batches": 6, "gaps": 1, "replayed": 4,
    }  # fmt: skip
    assert bench.told.dropped == {Drop.DUPLICATE: 1}


def test_a_gap_without_a_replay_socket_stays() -> None:
    """What is lost is counted, and what comes after it is taken."""
    bench = Bench(replay=False)
    bench.live(store(0))
    bench.engine.emit(store(1))
    bench.engine.emit(store(2))

    bench.live(store(3))

    assert len(bench.ledger.held()) == 2
    assert bench.told.tally["gaps"] == 1
    assert bench.told.dropped == {Drop.LOST: 2}


def test_a_gap_older_than_the_engines_buffer_is_lost_in_part() -> None:
    """The engine begins with the oldest it has, without a word: what is before is counted as lost."""
    bench = Bench(buffer=3)
    bench.live(store(0))
    for number in range(1, 9):
        bench.engine.emit(store(number))

    bench.live(store(9))

    assert len(bench.ledger.held()) == 4
    assert bench.told.tally["replayed"] == 3
    assert bench.told.dropped == {Drop.LOST: 6}


@pytest.mark.parametrize("every", [2, 3, 7])
def test_replies_that_are_lost_are_asked_for_again(every: int) -> None:
    """A replay that is dropped in part is taken up where it broke off, until it is whole."""
    bench = Bench()
    bench.live(store(0))
    for number in range(1, 30):
        bench.engine.emit(store(number))
    bench.engine.lose_every = every

    bench.live(store(30))

    bench.check()
    assert bench.told.dropped == {}
    assert len(bench.engine.asked) == len(set(bench.engine.asked)) > 1


def test_a_replay_whose_end_is_lost_counts_as_far_as_it_came() -> None:
    """After the silence the rest is asked for, once."""
    bench = Bench()
    bench.live(store(0))
    bench.engine.emit(store(1))
    bench.engine.lose_end = True

    bench.live(store(2))

    bench.check()
    assert bench.engine.asked == [1, 3]
    assert bench.told.dropped == {}


def test_a_dead_replay_socket_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Gaps are then lost; the reason is kept for the diagnosis until the socket answers again."""
    bench = Bench()
    bench.engine.dead = True
    bench.stream.connected()
    with caplog.at_level(logging.WARNING):
        for number in (0, 2, 4):
            bench.live(store(number))
            bench.engine.emit(store(number + 1))

    assert (bench.told.dropped, bench.stream.replay_failure) == ({Drop.LOST: 2}, "no answer")
    assert sum("is of no use" in record.message for record in caplog.records) == 1

    bench.engine.dead = False
    bench.live(store(6))
    assert bench.stream.replay_failure is None
    assert bench.told.dropped == {Drop.LOST: 2}


@pytest.mark.parametrize("replay", [True, False])
def test_a_number_that_goes_back_is_a_restart(*, replay: bool) -> None:
    """The engine began anew: its old blocks are gone, its new ones are taken."""
    bench = Bench(replay=replay)
    for number in range(5):
        bench.live(store(number))
    bench.engine.restart()

    bench.live(store(7))

    bench.check()
    assert bench.told.resyncs == ["engine_restart"]
    assert bench.told.dropped == {}


def test_a_restart_is_seen_when_numbers_have_gone_on() -> None:
    """With a replay socket a new process is told by its batches, not by its numbers."""
    bench = Bench()
    for number in range(3):
        bench.live(store(number))
    bench.engine.restart()
    for number in range(10, 16):
        bench.engine.emit(store(number))

    bench.stream.connected()

    bench.check()
    assert bench.told.resyncs == ["engine_restart"]
    bench.live(store(20))
    bench.check()
    assert bench.told.tally["gaps"] == 0


def test_a_connection_to_the_same_process_loses_nothing() -> None:
    """What was sent meanwhile is replayed; nothing is forgotten."""
    bench = Bench()
    bench.live(store(0))
    bench.engine.emit(store(1))

    bench.stream.connected()

    bench.check()
    assert bench.told.resyncs == []
    assert bench.told.tally["gaps"] == 0
    assert bench.told.dropped == {}


def test_without_a_replay_socket_the_next_number_tells_the_process() -> None:
    """After a new connection the next number is the same process's; any other means a restart."""
    bench = Bench(replay=False)
    bench.live(store(0))
    bench.stream.connected()
    bench.live(store(1))
    assert bench.told.resyncs == []
    bench.check()

    bench.engine.restart()
    for number in range(5, 9):
        bench.engine.emit(store(number))
    bench.stream.connected()
    bench.live(store(9))

    assert bench.told.resyncs == ["engine_restart"]
    assert len(bench.ledger.held()) == 1
    assert bench.told.dropped == {Drop.LOST: 4}


def test_messages_of_the_socket_may_come_long_after_their_replay() -> None:
    """A full receive queue is passed over, message by message, and then all is as before."""
    bench = Bench()
    bench.live(store(0))
    queued = [bench.engine.emit(store(number)) for number in range(1, 50)]
    bench.stream.connected()

    for message in queued:
        bench.stream.take(*message)
    bench.live(Remove([5]))

    bench.check()
    assert bench.told.dropped == {Drop.DUPLICATE: 49}
    assert bench.told.resyncs == []
    assert bench.stream._replayed == {}


@pytest.mark.parametrize("number", [1 << 63, (1 << 64) - 1])
def test_an_impossible_number_is_left_out(number: int) -> None:
    """It is counted, and the numbers go on where they were."""
    bench = Bench()
    bench.live(store(0))

    bench.stream.take(number, bench.engine.wire.batch(store(66)))
    bench.live(store(1))

    bench.check()
    assert bench.told.dropped == {Drop.SEQUENCE: 1}
    assert bench.told.tally["gaps"] == 0


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"garbage", Drop.PAYLOAD),
        (pack([1.0, ["x" * MAX_PAYLOAD], 0]), Drop.TOO_LARGE),
        (pack([1.0, [["Later"]], 0]), Drop.UNKNOWN_TYPE),
    ],
    ids=["garbage", "large", "later"],
)
def test_a_bad_payload_has_a_number_all_the_same(payload: bytes, reason: Drop) -> None:
    """It is counted by its reason and makes no gap."""
    bench = Bench()
    bench.live(store(0))
    bench.stream.take(1, payload)
    bench.engine.sequence = 2

    bench.live(store(1))

    bench.check()
    assert bench.told.dropped == {reason: 1}
    assert bench.told.tally["gaps"] == 0


def test_each_kind_of_line_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Two publishers under one address look like endless gaps and restarts; that is said once, and diagnosed."""
    seconds = [0.0]
    recorder, payload = KvRecorder(), KvEngine().emit(store(1))[1]
    stream = EventStream(0, Ledger("base"), recorder, clock=lambda: seconds[0])
    with caplog.at_level(logging.INFO):
        for number in range(0, 400, 2):
            stream.take(1000 + number, payload)
            stream.take(number, payload)
        assert (stream.is_shared, caplog.text.count("\n")) == (True, 2)
        seconds[0] = 61.0
        assert not stream.is_shared
        stream.take(1, payload)

    assert "engine restarted, its blocks are dropped: dp_rank=0 count=200" in caplog.text
    assert caplog.text.count("\n") == 4
    stream.report()
    assert len(recorder.resyncs) == 201
