"""Limits for the memory that an engine's messages may take (docs/adr/0019).

ZeroMQ limits the number of messages in a queue, not their bytes. A queue may
therefore take the size of the largest message times the length of the queue.
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

# The largest message, in bytes: about 400,000 tokens in one batch.
MAX_PAYLOAD: Final = 2 * 1024 * 1024
# Sequence numbers are lower than this. The number after the highest one still fits the eight bytes of a request.
MAX_SEQUENCE: Final = 1 << 63
# Nearly all batches are smaller than this.
USUAL_PAYLOAD: Final = 32 * 1024
# The number of frames of a message that are kept: one more than the longest message of an engine, a replay's reply.
# ZeroMQ limits the size of a frame but not the number of frames, and holds a message until it is complete.
MOST_FRAMES: Final = 5
# The bytes in ZeroMQ's receive queues, for all ranks together.
QUEUE_BYTES: Final = 48 * 1024 * 1024
# The bytes of messages that are received in one run and then decoded.
RUN_BYTES: Final = 4 * 1024 * 1024
# The bytes and number of a replay's replies that are received before they are decoded.
GATHERED_BYTES: Final = 16 * 1024 * 1024
GATHERED_REPLIES: Final = 20_000
_LEAST: Final = 2


def queue_length(ranks: int, largest: int = MAX_PAYLOAD, *, size: int = QUEUE_BYTES) -> int:
    """Return the queue length of one of `ranks` sockets, whose queues together may take `size` bytes.

    No message is larger than `largest` bytes.
    """
    return max(size // largest // ranks, _LEAST)
