"""Decoding: every wire form says the same, and nothing that comes is fatal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.kv.decode import Batch, Cleared, Drop, PayloadError, Removed, Stored, decode
from simulators.kv.frames import FORMS, Clear, Form, Remove, Store, captured, form, pack
from simulators.kv.router import std_hash

pytestmark = pytest.mark.unit

TOKENS = [*range(1, 17), *range(101, 117)]
BLOCKS = [6615856733697512468, std_hash(range(101, 117))]
NAMES = [0xDEAD_BEEF_DEAD_BEEF, 7]
GOOD = {"type": "BlockRemoved", "block_hashes": [1], "medium": "GPU"}
STORED = {"type": "BlockStored", "block_hashes": [5], "parent_block_hash": None, "token_ids": [1, 2], "block_size": 2}


def read(*events: Any) -> Batch:
    return decode(pack([1.5, list(events), 0]))


@pytest.mark.parametrize("wire", [each for each in FORMS if not each.bigram], ids=lambda wire: wire.name)
def test_every_wire_form_says_the_same(wire: Form) -> None:
    """Blocks come out with the router's hashes, whichever engine and version wrote them."""
    batch = decode(wire.batch(Store(NAMES, TOKENS), Remove(NAMES), Clear(), ts=12.25))

    stored = [event for event in batch.events if isinstance(event, Stored)]
    names = [wire.name_of(name) for name in NAMES]
    assert [name for event in stored for name in event.hashes] == names
    assert [block for event in stored for block in event.blocks] == BLOCKS
    assert {(event.adapter, event.group) for event in stored} == {(None, 0)}
    assert batch.events[-2:] == [Removed(names), Cleared()]
    assert (batch.timestamp, dict(batch.dropped)) == (12.25, {})


@pytest.mark.parametrize("name", ["sglang-0.5.18-bigram", "sglang-0.5.22-bigram"])
def test_pairs_of_tokens_are_the_tokens_at_their_places(name: str) -> None:
    """With EAGLE a token comes with the next one: the first of the two counts."""
    batch = decode(form(name).batch(Store(NAMES, TOKENS)))

    assert [event.blocks for event in batch.events if isinstance(event, Stored)] == [[BLOCKS[0]], [BLOCKS[1]]]


@pytest.mark.parametrize("name", ["vllm-0.14.1", "vllm-0.18.1", "vllm-0.22", "vllm-0.24", "vllm-0.33", "sglang-0.5.22"])
def test_an_adapters_blocks_bear_its_name(name: str) -> None:
    """Blocks of a LoRA adapter are looked for under the adapter's name."""
    batch = decode(form(name).batch(Store(NAMES, TOKENS, adapter="lora-a")))

    assert {event.adapter for event in batch.events if isinstance(event, Stored)} == {"lora-a"}


def test_groups_and_their_kinds_come_through() -> None:
    """A hybrid model's groups are told apart, for stores and for removals."""
    store = Store(NAMES, TOKENS, group=2, kind="sliding_window")

    stored, removed = decode(form("vllm-0.33").batch(store, Remove(NAMES, group=2))).events

    assert stored == Stored(NAMES, BLOCKS, None, 2, "sliding_window")
    assert removed == Removed(NAMES, 2)


def test_a_block_may_have_fewer_tokens_than_its_size() -> None:
    """The last block of a store may be partial (vLLM 0.33)."""
    event = STORED | {"block_hashes": [1, 2], "token_ids": [1, 2, 3, 4, 5, 6], "block_size": 4}

    assert read(event).events == [Stored([1, 2], [std_hash([1, 2, 3, 4]), std_hash([5, 6])])]


@pytest.mark.parametrize("size", [None, 0, 16, "x", -2])
def test_a_useless_block_size_is_worked_out(size: Any) -> None:
    """Tokens are shared out among the hashes where the size says nothing."""
    event = STORED | {"block_hashes": [1, 2], "token_ids": [1, 2, 3, 4], "block_size": size}

    assert read(event).events == [Stored([1, 2], [std_hash([1, 2]), std_hash([3, 4])])]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"medium": "CPU", "token_ids": [], "block_size": 0}, Drop.TIER),
        ({"medium": "STORAGE"}, Drop.TIER),
        ({"medium": "CPU_PINNED"}, Drop.TIER),
        ({"medium": 5}, Drop.TIER),
        ({"locality": "REMOTE"}, Drop.TIER),
        ({"token_ids": []}, Drop.NO_TOKENS),
        ({"token_ids": None}, Drop.NO_TOKENS),
        ({"lora_id": 3}, Drop.UNNAMED_ADAPTER),
        ({"type": "BlockTeleported"}, Drop.UNKNOWN_TYPE),
        ({"type": 7}, Drop.INVALID),
        ({"type": None}, Drop.INVALID),
        ({"type": ["BlockStored"]}, Drop.INVALID),
        ({"medium": ["GPU"]}, Drop.INVALID),
        ({"token_ids": [1, 2, 3], "block_hashes": [1, 2], "block_size": 16}, Drop.INVALID),
        ({"token_ids": [1, -2]}, Drop.INVALID),
        ({"token_ids": [1, 1 << 32]}, Drop.INVALID),
        ({"token_ids": [1, (1 << 64) - 1]}, Drop.INVALID),
        ({"token_ids": [1, 2.0]}, Drop.INVALID),
        ({"token_ids": [1, "2"]}, Drop.INVALID),
        ({"token_ids": [[1, 2], 3]}, Drop.INVALID),
        ({"token_ids": [[1], [2]]}, Drop.INVALID),
        ({"token_ids": "ab"}, Drop.INVALID),
        ({"token_ids": b"\x01\x00\x00\x00\x02\x00\x00\x00"}, Drop.INVALID),
        ({"token_ids": {"0": 1}}, Drop.INVALID),
        ({"token_ids": 12}, Drop.INVALID),
        ({"block_hashes": []}, Drop.INVALID),
        ({"block_hashes": None}, Drop.INVALID),
        ({"block_hashes": 5}, Drop.INVALID),
        ({"block_hashes": ["5"]}, Drop.INVALID),
        ({"block_hashes": [5.0]}, Drop.INVALID),
        ({"block_hashes": [None]}, Drop.INVALID),
        ({"block_hashes": [True]}, Drop.INVALID),
        ({"block_hashes": [[5]]}, Drop.INVALID),
    ],
)
def test_a_bad_event_is_left_out_alone(change: dict[str, Any], reason: Drop) -> None:
    """It is counted by its reason, and the good ones around it are taken."""
    batch = read(GOOD, STORED | change, GOOD)

    assert batch.events == [Removed([1]), Removed([1])]
    assert dict(batch.dropped) == {reason: 1}


@pytest.mark.parametrize("event", [None, 5, "BlockStored", [], {}, [None], [[]], ["BlockStored"], ["BlockRemoved", 5]])
def test_what_is_no_event_is_left_out_alone(event: Any) -> None:
    """Any value may stand where an event should."""
    batch = read(GOOD, event)

    assert batch.events == [Removed([1])]
    assert dict(batch.dropped) == {Drop.INVALID: 1}


def test_drops_are_added_up() -> None:
    """Each reason is counted for the whole batch."""
    batch = read(STORED | {"medium": "CPU"}, ["Later"], STORED | {"medium": "CPU"}, {"type": "Later"}, 0)

    assert batch.events == []
    assert dict(batch.dropped) == {Drop.TIER: 2, Drop.UNKNOWN_TYPE: 2, Drop.INVALID: 1}


def test_what_comes_later_is_passed_over() -> None:
    """New fields of maps, further elements of arrays, and a batch that is a map itself are no harm."""
    stored = STORED | {"colour": "red", "nested": {"a": [1]}}
    array = ["BlockStored", [5], None, [1, 2], 2, None, "GPU", None, None, 0, "full_attention", None, "new", {"x": 1}]

    assert read(stored).events == [Stored([5], [std_hash([1, 2])])]
    assert read(array).events == [Stored([5], [std_hash([1, 2])], None, 0, "full_attention")]
    assert decode(pack({"ts": 2, "events": [GOOD], "new": 1})) == Batch(2.0, [Removed([1])], {})
    assert decode(pack([2, [GOOD], 0, "new"])).events == [Removed([1])]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\xc0",
        b"not msgpack at all",
        b"\xa1\xff",
        b"\x92\x01\x91\xa1\xff",
        b"\x81\x80\x01",
        b"\xd7\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 1_000_000,
        b"\x81\xa1a" * 100_000,
        pack([1.0]),
        pack([1.0, None, 0]),
        pack([None, [], 0]),
        pack(["now", [], 0]),
        pack([1.0, {}, 0]),
        pack({"events": []}),
        pack(5),
        b"\x92\xcb\x7f\xf8\0\0\0\0\0\0\x90",
        b"\x92\xcb\x7f\xf0\0\0\0\0\0\0\x90",
        pack([1.0, [], 0]) + b"\xc0",
    ],
    ids=lambda payload: repr(payload[:12]),
)
def test_what_is_no_batch_is_refused(payload: bytes) -> None:
    """Garbage, bait for the stack and promises of gigabytes are all one error, without their content."""
    with pytest.raises(PayloadError) as caught:
        decode(payload)

    assert str(caught.value) in {"not MessagePack", "not an event batch", "a batch without time or events"}


def test_no_tokens_leave_the_decoder() -> None:
    """What a log may show of an event holds nothing of a user's prompt."""
    tokens = list(range(1_234_567, 1_234_583))

    shown = repr(decode(form("vllm-0.33").batch(Store([1], tokens))))

    assert "Stored" in shown
    assert not any(str(token) in shown for token in tokens)


def test_frames_of_a_real_engine_are_read_whole() -> None:
    """Nothing of what a vLLM 0.32 sent is left out, LoRA blocks included."""
    batches = [decode(frames[2]) for name in ("kv-main", "kv-evict") for frames in captured(name)]

    events = [event for batch in batches for event in batch.events]
    assert len(batches) == 143
    assert [dict(batch.dropped) for batch in batches] == [{}] * 143
    stored = [event for event in events if isinstance(event, Stored)]
    assert len(stored) > 100
    assert all(len(event.hashes) == len(event.blocks) > 0 for event in stored)


@given(st.binary(max_size=300))
@example(b"\x92\xa1\xff\x90")
def test_no_bytes_break_the_decoder(payload: bytes) -> None:
    """Law: any bytes are a batch or a PayloadError."""
    try:
        batch = decode(payload)
    except PayloadError:
        return
    assert isinstance(batch, Batch)


def values() -> st.SearchStrategy[Any]:
    """Whatever MessagePack can hold."""
    leaves: st.SearchStrategy[Any] = (
        st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text(max_size=5)
    )
    keys = st.sampled_from(["type", "block_hashes", "token_ids", "block_size", "medium", "lora_id", "group_idx"])
    leaves |= st.binary(max_size=40) | st.sampled_from(["BlockStored", "BlockRemoved", "AllBlocksCleared", "GPU"])
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=7), max_leaves=25
    )


@given(st.lists(values(), max_size=6))
def test_no_events_break_the_decoder(events: list[Any]) -> None:
    """Law: each event is taken or counted, and what is taken is sound."""
    batch = read(*events)

    assert len(batch.events) + sum(batch.dropped.values()) == len(events)
    for event in batch.events:
        if isinstance(event, Stored):
            assert len(event.hashes) == len(event.blocks)
            assert all(0 <= block < 1 << 63 for block in event.blocks)
