"""The ledger's changes: what is to be written, settled, doubted and adopted."""

from __future__ import annotations

from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest

from exporter.kv.decode import Removed, Stored
from exporter.kv.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.unit


def taken(ledger: Ledger, limit: int = 1000) -> list[tuple[str, int, bool]]:
    """Take changes and settle them; return model, block and presence."""
    changes = ledger.take(limit)
    ledger.settle(changes, done=True)
    return [(entry.model, entry.block, present) for entry, present in changes]


def ledger_of(events: Iterable[Stored], *, rank: int = 0, written: bool = True) -> Ledger:
    ledger = Ledger("base")
    ledger.apply(rank, events)
    if written:
        taken(ledger)
    return ledger


def test_no_more_are_taken_than_asked_for() -> None:
    """The rest stays for the next time, in order."""
    ledger = ledger_of([Stored([1, 2, 3], [11, 12, 13])], written=False)

    assert taken(ledger, 2) == [("base", 11, True), ("base", 12, True)]
    assert ledger.pending == 1
    assert taken(ledger, 2) == [("base", 13, True)]


def test_a_failed_write_is_done_again() -> None:
    """Nobody knows what came of it: it is written again, whatever it was."""
    ledger = ledger_of([Stored([1], [11])], written=False)
    ledger.settle(ledger.take(10), done=False)
    assert taken(ledger) == [("base", 11, True)]

    ledger.apply(0, [Removed([1])])
    ledger.settle(ledger.take(10), done=False)
    assert taken(ledger) == [("base", 11, False)]


def test_a_failed_write_of_what_is_gone_is_taken_back() -> None:
    """Redis may have it: a removal must follow."""
    ledger = ledger_of([Stored([1], [11])], written=False)
    changes = ledger.take(10)
    ledger.apply(0, [Removed([1])])
    ledger.settle(changes, done=False)

    assert taken(ledger) == [("base", 11, False)]
    assert ledger.size == 0


@pytest.mark.parametrize("done", [True, False])
def test_what_changes_while_it_is_written_is_written_again(*, done: bool) -> None:
    """A removal or a store during a write is a change of its own."""
    ledger = ledger_of([Stored([1], [11])], written=False)
    changes = ledger.take(10)
    ledger.apply(0, [Removed([1]), Stored([2], [11]), Removed([2])])
    ledger.settle(changes, done=done)
    changes = ledger.take(10)
    assert [present for _, present in changes] == [False]

    ledger.apply(0, [Stored([3], [11])])
    ledger.settle(changes, done=done)
    assert taken(ledger) == [("base", 11, True)]
    assert ledger.held() == {("base", 11)}


def test_what_comes_and_goes_unwritten_is_no_change() -> None:
    """Redis is not bothered with a block that was evicted before it was written."""
    ledger = ledger_of([Stored([1, 2], [11, 12])], written=False)

    ledger.apply(0, [Removed([1])])

    assert ledger.pending == 1
    assert taken(ledger) == [("base", 12, True)]


def test_what_goes_and_comes_back_unwritten_is_no_change() -> None:
    """A field that is there and shall be there is left alone."""
    ledger = ledger_of([Stored([1], [11])])

    ledger.apply(0, [Removed([1]), Stored([1], [11])])

    assert taken(ledger) == []
    assert ledger.held() == {("base", 11)}


def test_an_outage_costs_no_more_than_the_engines_cache() -> None:
    """Blocks that come and go while nothing is written leave nothing behind."""
    ledger = ledger_of([Stored([1], [11])], written=False)

    for name in range(1000, 21_000):
        ledger.apply(0, [Stored([name], [name]), Removed([name])])

    assert (ledger.size, ledger.pending) == (1, 1)
    assert len(ledger._pending) < 2100
    assert taken(ledger) == [("base", 11, True)]


def test_adopted_entries_go_unless_they_are_held() -> None:
    """What a former runtime left in Redis is removed, or written anew where the engine has it."""
    ledger = ledger_of([Stored([1], [11])], written=False)

    for model, block in [("base", 11), ("base", 12), ("lora-a", 11), ("x" * 513, 11)]:
        ledger.adopt(model, block)

    assert taken(ledger) == [("base", 11, True), ("base", 12, False), ("lora-a", 11, False)]
    assert ledger.size == 1


def test_an_adopted_entry_may_be_stored_before_it_goes() -> None:
    """The engine's word is the last."""
    ledger = Ledger("base")
    ledger.adopt("base", 11)

    ledger.apply(0, [Stored([1], [11])])

    assert taken(ledger) == [("base", 11, True)]


def test_in_doubt_everything_is_written_again() -> None:
    """What is held is written, what is on its way out is taken out."""
    ledger = ledger_of([Stored([1, 2], [11, 12])])
    ledger.apply(0, [Removed([2])])

    ledger.doubt()

    assert sorted(taken(ledger)) == [("base", 11, True), ("base", 12, False)]
    assert taken(ledger) == []


@pytest.mark.parametrize("call", ["apply", "adopt", "doubt", "wake"])
def test_a_waiting_pump_is_woken(call: str) -> None:
    """A change ends the wait at once, and so does a wake when the end is near."""
    ledger = ledger_of([Stored([1], [11])])
    ending = Event()
    waiter = Thread(target=ledger.wait, args=(60.0,), kwargs={"unless": ending.is_set})
    waiter.start()

    if call == "apply":
        ledger.apply(0, [Stored([2], [12])])
    elif call == "adopt":
        ledger.adopt("base", 13)
    elif call == "doubt":
        ledger.doubt()
    else:
        ending.set()
        ledger.wake()

    waiter.join(10.0)
    assert not waiter.is_alive()
