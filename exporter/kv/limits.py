"""How much of what an engine publishes is held in memory, whatever it publishes (docs/adr/0019).

ZeroMQ counts messages, not bytes: the largest message times the length of its
queue is what the queue may take.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "GATHERED_BYTES",
    "GATHERED_REPLIES",
    "MAX_PAYLOAD",
    "MAX_SEQUENCE",
    "MOST_FRAMES",
    "RUN_BYTES",
    "USUAL_PAYLOAD",
    "queue_length",
]

# Four hundred thousand tokens in one batch.
MAX_PAYLOAD: Final = 2 * 1024 * 1024
# Batches have lower numbers; what follows from one still fits the eight bytes in which a number is sent.
MAX_SEQUENCE: Final = 1 << 63
# Nearly all batches have less.
USUAL_PAYLOAD: Final = 32 * 1024
# Of a message that are kept: one more than a reply of a replay has, the longest message of an engine. ZeroMQ itself
# limits the size of a frame but not their number, and holds a message until it is whole.
MOST_FRAMES: Final = 5
# Of messages that were received and not yet read, of all ranks together.
QUEUE_BYTES: Final = 48 * 1024 * 1024
# Of messages that are taken off a socket before they are worked on.
RUN_BYTES: Final = 4 * 1024 * 1024
# Of a replay's answer, which comes faster than it can be worked on.
GATHERED_BYTES: Final = 16 * 1024 * 1024
GATHERED_REPLIES: Final = 20_000
_LEAST: Final = 2


def queue_length(ranks: int, largest: int = MAX_PAYLOAD, *, size: int = QUEUE_BYTES) -> int:
    """Return how many messages a socket may queue, if none is larger than `largest` and each rank has such a socket."""
    return max(size // largest // ranks, _LEAST)
