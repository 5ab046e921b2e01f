"""A replay socket whose answers do not end."""

from __future__ import annotations

from threading import Event, Thread
from typing import TYPE_CHECKING, Final

import zmq

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

__all__ = ["EndlessReplays"]

_WAIT_MS: Final = 100


class EndlessReplays:
    """Answers each request while its ``with`` block runs, and the latest for as long as anybody reads.

    Attributes:
        endpoint: Where it listens.
        asked: The numbers from which replays were asked for.
    """

    def __init__(self, replies: Callable[[int], Iterator[tuple[int, bytes]]]) -> None:
        """Send what `replies` makes of the first number that is asked for."""
        self._replies = replies
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.router_mandatory = 1  # wait for room instead of dropping
        self._socket.sndtimeo = _WAIT_MS
        self._stopping = Event()
        self._thread = Thread(target=self._run)
        self.endpoint = f"tcp://127.0.0.1:{self._socket.bind_to_random_port('tcp://127.0.0.1')}"
        self.asked: list[int] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._socket.close(linger=0)
        self._context.term()

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._socket.poll(_WAIT_MS):
                client, _, start = self._socket.recv_multipart()
                self.asked.append(int.from_bytes(start, "big"))
                self._answer(client, self.asked[-1])

    def _answer(self, client: bytes, start: int) -> None:
        for number, payload in self._replies(start):
            while not self._send([client, b"", b"kv", number.to_bytes(8, "big"), payload]):
                if self._stopping.is_set() or self._socket.poll(0):
                    return

    def _send(self, frames: list[bytes]) -> bool:
        try:
            self._socket.send_multipart(frames)
        except zmq.Again:
            return False
        except zmq.ZMQError:  # the client is gone
            return self._socket.poll(0) == 0 and self._stopping.wait(0.01) is None
        return True
