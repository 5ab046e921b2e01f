"""The router's lookup of cached prefixes, written from its contract and from no code of the runtime.

    HGETALL matrix:kv:block:{model}@{hash}   ->   {"pod.namespace": "unix seconds", ...}

A pod's score is the number of the prompt's first blocks that it has without a break.
"""

from __future__ import annotations

import struct
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

__all__ = ["block_key", "find_prefixes", "std_hash"]


def std_hash(tokens: Sequence[int]) -> int:
    """Return the router's hash of one block."""
    digest = sha256(b"".join(struct.pack(">I", token) for token in tokens)).digest()
    number: int = struct.unpack(">Q", digest[:8])[0]
    return number & 0x7FFF_FFFF_FFFF_FFFF


def block_key(model: str, tokens: Sequence[int]) -> str:
    """Return the Redis key of one block."""
    return f"matrix:kv:block:{model}@{std_hash(tokens)}"


def find_prefixes(
    redis: Redis, model: str, tokens: Sequence[int], *, block_size: int = 16, max_blocks: int = 128
) -> dict[str, int]:
    """Return how many blocks of a prompt's beginning each pod has; pods without the first are absent."""
    blocks = [tokens[start : start + block_size] for start in range(0, len(tokens), block_size)][:max_blocks]
    with redis.pipeline(transaction=False) as pipeline:
        for block in blocks:
            pipeline.hgetall(block_key(model, block))
        answers = pipeline.execute()
    matched: dict[str, int] = {}
    for depth, owners in enumerate(answers):
        for field, value in owners.items():
            pod, seconds = field.decode(), int(value)
            if seconds > 0 and matched.get(pod, 0) == depth:
                matched[pod] = depth + 1
    return matched
