"""Ask an engine again for events that were missed: its replay socket.

    request      ["", start]                      start: 8 bytes, big-endian
    reply        ["", topic, seq, payload]        vLLM 0.26 on, SGLang 0.5.22 on
                 ["", seq, payload]               before
    its end      ["", "", ff x 8, ""]  or  ["", ff x 8, ""]

The engine keeps a bounded number of batches, begins at the oldest it has
without a word, and drops replies when they are not read fast enough.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import zmq

from exporter.kv.frames import receive

if TYPE_CHECKING:
    from collections.abc import Generator
    from threading import Event

__all__ = ["Replay", "ReplayError"]

_END: Final = b"\xff" * 8
# The engine looks for requests ten times a second, between two batches.
SILENCE_SECONDS: Final = 3.0
# Once it answers, replies follow at once: after such a silence the end of the answer is lost.
END_SECONDS: Final = 1.0
_SLICE_MS: Final = 250


class ReplayError(Exception):
    """The engine does not answer, or not as it should."""


class Replay:
    """A client of one rank's replay socket."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, stopping: Event) -> None:
        """Ask at `endpoint`; `stopping` ends a wait."""
        self._context = context
        self._endpoint = endpoint
        self._stopping = stopping

    def since(self, start: int) -> Generator[tuple[int, bytes], None, None]:
        """Yield sequence number and payload of every batch from `start` on that the engine still has.

        Raises:
            ReplayError: Nothing comes for some seconds, or something that is no reply.
        """
        with self._context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.rcvhwm = 0
            socket.connect(self._endpoint)
            socket.send_multipart([b"", start.to_bytes(8, "big")])
            patience = SILENCE_SECONDS
            while True:
                self._wait(socket, patience)
                patience = END_SECONDS
                for frames in receive(socket):
                    if (reply := _reply(frames)) is None:
                        return
                    yield reply

    def _wait(self, socket: zmq.Socket[bytes], seconds: float) -> None:
        waited = 0
        while not socket.poll(_SLICE_MS):
            waited += _SLICE_MS
            if waited >= seconds * 1000 or self._stopping.is_set():
                message = "no answer"
                raise ReplayError(message)


def _reply(frames: list[bytes]) -> tuple[int, bytes] | None:
    """Return number and payload, or nothing at the end."""
    if len(frames) not in (3, 4) or len(frames[-2]) != 8:  # noqa: PLR2004 - see the forms above
        message = "not a reply"
        raise ReplayError(message)
    return None if frames[-2] == _END else (int.from_bytes(frames[-2], "big"), frames[-1])
