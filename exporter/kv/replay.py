"""Ask an engine again for events that were missed: its replay socket.

    request      ["", start]                      start: 8 bytes, big-endian
    reply        ["", topic, seq, payload]        vLLM 0.26 on, SGLang 0.5.22 on
                 ["", seq, payload]               before
    its end      ["", "", ff x 8, ""]  or  ["", ff x 8, ""]

The engine keeps a bounded number of batches, begins at the oldest it has
without a word, and drops replies when they are not read fast enough. An answer
is bounded: by the batches that an engine may have, by bytes and by time.
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
# The engine looks for requests ten times a second, between two batches.
SILENCE_SECONDS: Final = 3.0
# Once it answers, replies follow at once: after such a silence the end of the answer is lost.
END_SECONDS: Final = 1.0
# Batches beyond those that are known to be missing: five times as many as vLLM keeps.
MOST_BATCHES: Final = 50_000
MOST_BYTES: Final = 512 * 1024 * 1024
LONGEST_SECONDS: Final = 60.0
# Replies that trickle in are worked on before all are there.
GATHER_SECONDS: Final = 1.0
_QUEUE_BYTES: Final = 16 * 1024 * 1024
_SLICE_MS: Final = 250
# Between two replies of one answer there is less.
_LULL_MS: Final = 5


class ReplayError(Exception):
    """The engine does not answer, or not as it should."""


class OversizedReplyError(ReplayError):
    """The next batch is larger than any that is taken."""


class UnsoundReplayError(ReplayError):
    """The answer is none that an engine gives: it is out of order, or has no end."""


class Replay:
    """A client of one rank's replay socket."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        stopping: Event,
        *,
        ranks: int = 1,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Ask at `endpoint`, for one of so many ranks; `stopping` ends a wait."""
        self._context = context
        self._endpoint = endpoint
        self._stopping = stopping
        self._ranks = ranks
        self._largest = USUAL_PAYLOAD
        self._clock = clock

    def since(self, start: int, *, missing: int = 0) -> Generator[tuple[int, bytes], None, None]:
        """Yield sequence number and payload of every batch from `start` on that the engine still has.

        Numbers go up. `missing` batches are known to be missing.

        Raises:
            OversizedReplyError: The batch behind the last one is too large.
            UnsoundReplayError: Something comes that is no reply, or more than an engine has.
            ReplayError: Nothing comes for some seconds.
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
        """Ask for small replies, which can be queued by the hundred, and for the rest after one that is not."""
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
        """Wait for a reply."""
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
        """Return what is there and follows closely: the engine drops replies that are not read as fast as it sends."""
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
    """Return number and payload, or nothing at the end."""
    if len(frames) not in (3, 4) or len(frames[-2]) != 8:
        raise UnsoundReplayError("not a reply")
    return None if frames[-2] == _END else (int.from_bytes(frames[-2], "big"), frames[-1])
