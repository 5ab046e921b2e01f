"""The ledger: what the engine holds, and what Redis has to be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exporter.kv.decode import Cleared, Removed, Stored
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


def test_stored_blocks_are_to_be_written_once() -> None:
    """A store is one change for each block, and none once it is settled."""
    ledger = Ledger("base")
    ledger.apply(0, [Stored([1, 2], [11, 12])])

    assert ledger.pending == 2
    assert taken(ledger) == [("base", 11, True), ("base", 12, True)]
    assert ledger.pending == 0
    assert taken(ledger) == []
    assert ledger.held() == {("base", 11), ("base", 12)}


def test_removed_blocks_are_to_be_removed() -> None:
    """A removal is one change, and then nothing is left of the block."""
    ledger = ledger_of([Stored([1, 2], [11, 12])])
    ledger.apply(0, [Removed([1])])

    assert taken(ledger) == [("base", 11, False)]
    assert ledger.held() == {("base", 12)}
    assert ledger.size == 1


def test_two_names_with_the_same_tokens_share_a_field() -> None:
    """The field goes when the last of the engine's blocks with these tokens goes."""
    ledger = ledger_of([Stored([1], [11]), Stored([2], [11])])

    ledger.apply(0, [Removed([1])])
    assert taken(ledger) == []
    assert ledger.held() == {("base", 11)}

    ledger.apply(0, [Removed([2])])
    assert taken(ledger) == [("base", 11, False)]


def test_a_block_stored_twice_is_removed_twice() -> None:
    """The engine counts its blocks of one name, and so does the ledger (kv-duplicate-hash.txt)."""
    ledger = ledger_of([Stored([1], [11]), Stored([1], [11])])

    ledger.apply(0, [Removed([1])])
    assert ledger.held() == {("base", 11)}

    ledger.apply(0, [Removed([1]), Removed([1])])
    assert ledger.held() == set()


def test_one_removal_may_name_a_block_twice() -> None:
    """SGLang's removals have many names in one event, of which one may come twice."""
    ledger = ledger_of([Stored([1], [11]), Stored([1], [11]), Stored([2], [12])])

    ledger.apply(0, [Removed([1, 2, 1])])

    assert ledger.held() == set()


def test_a_name_may_change_its_tokens() -> None:
    """A name that is stored with other tokens holds those only, however often it was stored before."""
    ledger = ledger_of([Stored([1], [11]), Stored([1], [11])])

    ledger.apply(0, [Stored([1], [12])])
    assert sorted(taken(ledger)) == [("base", 11, False), ("base", 12, True)]

    ledger.apply(0, [Removed([1])])
    assert ledger.held() == set()


def test_numbers_and_bytes_are_names_alike() -> None:
    """A name is what the engine says it is: 1 and its bytes are two."""
    ledger = ledger_of([Stored([1, b"\0\0\0\1"], [11, 12])])

    ledger.apply(0, [Removed([b"\0\0\0\1"])])

    assert ledger.held() == {("base", 11)}


def test_an_unknown_name_is_no_harm() -> None:
    """Blocks from before this runtime began are removed without an effect."""
    ledger = ledger_of([Stored([1], [11])])

    ledger.apply(0, [Removed([99]), Removed([1], group=3)])
    ledger.apply(5, [Removed([1]), Cleared()])

    assert taken(ledger) == []
    assert ledger.held() == {("base", 11)}


def test_ranks_hold_for_themselves() -> None:
    """A rank's removal or clearing leaves what others hold."""
    ledger = ledger_of([Stored([1, 2], [11, 12])])
    ledger.apply(1, [Stored([1], [11])])

    ledger.apply(0, [Cleared()])

    assert taken(ledger) == [("base", 12, False)]
    assert ledger.held() == {("base", 11)}
    ledger.clear(1)
    assert taken(ledger) == [("base", 11, False)]


def test_groups_hold_for_themselves() -> None:
    """A removal counts for its own group; a clearing counts for all."""
    ledger = ledger_of([Stored([1], [11], group=0), Stored([1], [11], group=1), Stored([2], [12], group=1)])

    ledger.apply(0, [Removed([1], group=0)])
    assert ledger.held() == {("base", 11), ("base", 12)}

    ledger.apply(0, [Cleared()])
    assert ledger.held() == set()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_partial_groups_say_nothing_beside_a_full_one(order: tuple[int, int]) -> None:
    """A sliding window holds only the end of a prefix: the group with all of it is what counts."""
    stores = [Stored([1], [11], kind="full_attention"), Stored([2], [12], group=1, kind="sliding_window")]

    ledger = ledger_of([stores[place] for place in order])
    assert ledger.held() == {("base", 11)}

    ledger.apply(0, [Removed([2], group=1), Stored([3], [13], group=1, kind="sliding_window")])
    assert ledger.held() == {("base", 11)}


def test_partial_groups_count_where_there_is_no_other() -> None:
    """A model of sliding windows only is better known by them than not at all."""
    ledger = ledger_of([Stored([2], [12], group=1, kind="sliding_window")])

    assert ledger.held() == {("base", 12)}
    ledger.apply(0, [Removed([2], group=1)])
    assert ledger.held() == set()


def test_adapters_blocks_are_their_own() -> None:
    """The same tokens under an adapter are another field, and the last to go closes it."""
    ledger = ledger_of([Stored([1], [11]), Stored([2], [11], adapter="lora-a")])
    assert ledger.held() == {("base", 11), ("lora-a", 11)}

    ledger.apply(0, [Removed([2])])
    assert taken(ledger) == [("lora-a", 11, False)]
    assert ledger.size == 1


def test_an_adapter_named_like_the_model_is_the_model() -> None:
    """Keys are made of names: one name is one field."""
    ledger = ledger_of([Stored([1], [11]), Stored([2], [11], adapter="base")])

    ledger.apply(0, [Removed([1])])

    assert ledger.held() == {("base", 11)}


def test_a_closed_ledger_stays_empty() -> None:
    """At the end of the runtime nothing is held, on whatever rank, and what still comes is not taken."""
    ledger = ledger_of([Stored([1], [11], group=4)])
    ledger.apply(3, [Stored([2], [12], adapter="lora-a")])

    ledger.close()
    ledger.apply(0, [Stored([9], [19])])

    assert sorted(taken(ledger)) == [("base", 11, False)]
    assert ledger.size == ledger.pending == 0
