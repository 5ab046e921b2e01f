"""Block hashes: what the router computes from the same tokens."""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.kv.blockhash import hash_blocks
from simulators.kv.router import std_hash

pytestmark = pytest.mark.unit


def test_the_routers_example_is_met() -> None:
    """Tokens 1 to 16 have the hash that kthena's own test expects."""
    assert hash_blocks(range(1, 17), 16) == [6615856733697512468]


def test_a_block_is_hashed_by_itself() -> None:
    """What comes before a block does not change its hash, and the last block may be shorter."""
    first, second, rest = hash_blocks([*range(1, 17), *range(1, 17), 7, 8], 16)

    assert first == second == 6615856733697512468
    assert rest == hash_blocks([7, 8], 16)[0]


def test_all_32_bits_of_a_token_count() -> None:
    """The largest token id is hashed in full, in the network's byte order."""
    digest = sha256(b"\xff\xff\xff\xff\x00\x00\x01\x02").digest()

    assert hash_blocks([0xFFFF_FFFF, 0x0102], 2) == [int.from_bytes(digest[:8], "big") & (1 << 63) - 1]


def test_no_tokens_make_no_blocks() -> None:
    """An empty run has no hash."""
    assert hash_blocks([], 16) == []


@pytest.mark.parametrize("token", [-1, 1 << 32, 1 << 64, 10**30])
def test_a_token_beyond_32_bits_is_refused(token: int) -> None:
    """No router has such a token: no hash is made up for it."""
    with pytest.raises(OverflowError):
        hash_blocks([1, token], 2)


@pytest.mark.parametrize("token", [1.0, "1", None, [1]])
def test_what_is_no_integer_is_refused(token: Any) -> None:
    """A float is not rounded, a text is not read."""
    with pytest.raises(TypeError):
        hash_blocks([1, token], 2)


@given(st.lists(st.integers(0, (1 << 32) - 1), max_size=100), st.integers(1, 40))
def test_hashes_are_the_routers(tokens: list[int], size: int) -> None:
    """Law: each run of a block's size has the hash that struct and hashlib give."""
    runs = [tokens[start : start + size] for start in range(0, len(tokens), size)]

    hashes = hash_blocks(tokens, size)

    assert hashes == [std_hash(run) for run in runs]
    packed = [sha256(struct.pack(f">{len(run)}I", *run)).digest() for run in runs]
    assert hashes == [struct.unpack(">q", bytes([digest[0] & 0x7F]) + digest[1:8])[0] for digest in packed]
