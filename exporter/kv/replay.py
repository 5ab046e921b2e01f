"""Request missed event batches from the engine's replay socket.

    request      ["", start]                      start: 8 bytes, big-endian
    reply        ["", topic, seq, payload]        vLLM 0.26 on, SGLang 0.5.22 on
                 ["", seq, payload]               earlier versions
    end          ["", "", ff x 8, ""]  or  ["", ff x 8, ""]

The engine keeps a limited number of batches. If the requested ones are no longer
there, it starts with its oldest one, without a notice. It drops replies that the
client does not read fast enough. The runtime limits an answer: by the number of
batches that an engine can have, by bytes, and by time (docs/adr/0019).
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

import zmq

from exporter.kv.frames import receive
from exporter.kv.limits import GATHERED_BYTES, GATHERED_REPLIES, MAX_PAYLOAD, MAX_SEQUENCE, USUAL_PAYLOAD, queue_length
from exporter.kv.link import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from threading import Event

__all__ = ["OversizedReplyError", "Replay", "ReplayError", "UnsoundReplayError"]

_END: Final = b"\xff" * 8
# The engine looks for requests ten times per second, between two batches, so an answer may take this long to begin.
SILENCE_SECONDS: Final = 3.0
# Replies follow each other immediately. After this silence, the rest of the answer is lost.
END_SECONDS: Final = 1.0
# Batches of one answer beyond those that are known to be missing: five times as many as vLLM keeps.
MOST_BATCHES: Final = 50_000
MOST_BYTES: Final = 512 * 1024 * 1024
LONGEST_SECONDS: Final = 60.0
# Replies that arrive slowly are decoded after this time, although more may follow.
GATHER_SECONDS: Final = 1.0
_QUEUE_BYTES: Final = 16 * 1024 * 1024
_SLICE_MS: Final = 250
# Two replies of one answer arrive within this time.
_LULL_MS: Final = 5


class ReplayError(Exception):
    """The engine does not answer, or its answer is not usable."""


class OversizedReplyError(ReplayError):
    """The next batch is larger than `MAX_PAYLOAD`; the caller can skip it."""


class UnsoundReplayError(ReplayError):
    """No engine gives such an answer: it is out of order, malformed, or has no end. Do not ask again soon."""


class Replay:
    """A client for one rank's replay socket. Not thread-safe; each request has a socket of its own."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        stopping: Event,
        *,
        ranks: int = 1,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            context: The ZeroMQ context.
            endpoint: The rank's replay socket.
            stopping: Ends a wait when it is set.
            ranks: The number of ranks, which share the memory for queued replies.
            clock: A monotonic clock in seconds.
        """
        self._context = context
        self._endpoint = endpoint
        self._stopping = stopping
        self._ranks = ranks
        self._largest = USUAL_PAYLOAD
        self._clock = clock

    def since(self, start: int, *, missing: int = 0) -> Generator[tuple[int, bytes], None, None]:
        """Yield the sequence number and payload of every batch from `start` on that the engine still has.

        Numbers increase, but may have gaps. The iteration blocks for some seconds at most between batches.

        Args:
            start: The first sequence number.
            missing: The number of batches that are known to be missing; it raises the limit.

        Raises:
            OversizedReplyError: The batch after the last one is too large.
            UnsoundReplayError: A reply is malformed or out of order, or there are more than an engine can have.
            ReplayError: No reply arrives in time, or the runtime ends.
        """
        deadline = self._clock() + LONGEST_SECONDS
        batches, size, last = missing + MOST_BATCHES, MOST_BYTES, start - 1
        for number, payload in self._replies(start):
            batches, size = batches - 1, size - len(payload)
            if self._stopping.is_set():
                raise ReplayError("the runtime ends")
            if number <= last:
                raise UnsoundReplayError("replies out of order")
            if number >= MAX_SEQUENCE:
                raise UnsoundReplayError("a number that is too high")
            if batches < 0 or size < 0 or self._clock() > deadline:
                raise UnsoundReplayError("its answer has no end")
            yield number, payload
            last = number

    def _replies(self, start: int) -> Generator[tuple[int, bytes], None, None]:
        """Ask for small replies first, because hundreds of them fit into the queue.

        After a reply that is larger, ask for the rest with the full size and a shorter queue, now and in the future.
        """
        while True:
            try:
                for number, payload in self._ask(start):
                    yield number, payload
                    start = number + 1
            except OversizedReplyError:
                if self._largest == MAX_PAYLOAD:
                    raise
                self._largest = MAX_PAYLOAD
            else:
                return

    def _ask(self, start: int) -> Generator[tuple[int, bytes], None, None]:
        with self._context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            queue = queue_length(self._ranks, self._largest, size=_QUEUE_BYTES)
            link = Link(socket, self._endpoint, queue=queue, largest=self._largest)
            try:
                link.connect()
                socket.send_multipart([b"", start.to_bytes(8, "big")])
                patience = SILENCE_SECONDS
                while True:
                    self._wait(socket, link, patience)
                    patience = END_SECONDS
                    for frames in self._gathered(socket):
                        if (reply := _reply(frames)) is None:
                            return
                        yield reply
            finally:
                link.close()

    def _wait(self, socket: zmq.Socket[bytes], link: Link, seconds: float) -> None:
        """Wait until a reply can be read.

        Raises:
            OversizedReplyError: ZeroMQ ended the connection because a reply was too large.
            ReplayError: No reply arrived in time, or the runtime ends.
        """
        waited = 0
        while not socket.poll(_SLICE_MS):
            if self._stopping.is_set():
                raise ReplayError("no answer")
            for _ in link.changes():
                pass
            if link.is_given_up:
                raise OversizedReplyError("a reply that is too large")
            waited += _SLICE_MS
            if waited >= seconds * 1000 and link.patience() is None:
                raise ReplayError("no answer")

    def _gathered(self, socket: zmq.Socket[bytes]) -> list[list[bytes]]:
        """Return the replies that have arrived and those that follow closely.

        They are received before any is decoded, because the engine drops replies that are not read as fast as it
        sends them.
        """
        messages: list[list[bytes]] = []
        left, until = GATHERED_BYTES, self._clock() + GATHER_SECONDS
        while left > 0 and len(messages) < GATHERED_REPLIES and (more := receive(socket)):
            messages += more
            left -= sum(len(frames[-1]) for frames in more)
            if self._stopping.is_set() or self._clock() > until:
                break
            socket.poll(_LULL_MS)
        return messages


def _reply(frames: list[bytes]) -> tuple[int, bytes] | None:
    """Return the sequence number and payload of a reply, or `None` for the end of the answer.

    Raises:
        UnsoundReplayError: It is not a reply.
    """
    if len(frames) not in (3, 4) or len(frames[-2]) != 8:
        raise UnsoundReplayError("not a reply")
    return None if frames[-2] == _END else (int.from_bytes(frames[-2], "big"), frames[-1])
