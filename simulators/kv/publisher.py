"""An engine's event publisher: numbered messages on a socket for each rank, and a replay socket beside it.

It can leave numbers out, lose replies and their end, be silent, lose its connections, and start again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Final

import zmq

from simulators.kv.frames import FORMS
from simulators.ports import free_ports
from simulators.waiting import wait_until

if TYPE_CHECKING:
    from typing import Self

    from simulators.kv.frames import Form, Happening

__all__ = ["KvPublisher"]

_END: Final = b"\xff" * 8


@dataclass
class _Rank:
    events: zmq.Socket[bytes]
    buffer: deque[tuple[int, bytes]]
    sequence: int = 0
    lock: Lock = field(default_factory=Lock)


class KvPublisher:
    """Publishes while its ``with`` block runs.

    Attributes:
        endpoint: Rank 0's events.
        replay_endpoint: Rank 0's replays.
        lose_every: Of an answer, each reply of this number is lost; 0 loses none.
        lose_end: Whether the end of an answer is lost.
        silent: Whether nothing is answered.
        asked: The numbers from which replays were asked for.
    """

    def __init__(
        self, form: Form = FORMS[0], *, ranks: int = 1, topic: str = "kv-events", buffer: int = 10_000, hwm: int = 0
    ) -> None:
        self.form = form
        self.topic = topic
        self.lose_every = 0
        self.lose_end = False
        self.silent = False
        self.asked: list[int] = []
        self.address = "tcp://127.0.0.1"
        self._count = ranks
        self._steps = buffer
        self._hwm = hwm
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def __enter__(self) -> Self:
        self._port, self._replay_port = free_ports(self._count)[0], free_ports(self._count)[0]
        self._open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
        self._context.destroy(linger=0)

    @property
    def endpoint(self) -> str:
        return self.address if "*" in self.address else f"{self.address}:{self._port}"

    @property
    def replay_endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self._replay_port}"

    def publish(self, *happenings: Happening, rank: int = 0, send: bool = True) -> int:
        """Make a batch of what happened; it is kept for replays even if it is not sent."""
        return self.publish_payload(self.form.batch(*happenings, rank=rank), rank=rank, send=send)

    def publish_payload(self, payload: bytes, *, rank: int = 0, send: bool = True) -> int:
        """Send any payload under the next number; return the number. Several threads may."""
        to = self._ranks[rank]
        with to.lock:
            number, to.sequence = to.sequence, to.sequence + 1
            to.buffer.append((number, payload))
            if send:
                to.events.send_multipart((self.topic.encode(), number.to_bytes(8, "big"), payload))
        return number

    def send(self, *frames: bytes, rank: int = 0) -> None:
        """Send any frames."""
        to = self._ranks[rank]
        with to.lock:
            to.events.send_multipart(frames)

    def wait_for_subscriber(self, rank: int = 0) -> None:
        """Wait until somebody subscribed since the socket was opened."""
        socket = self._ranks[rank].events
        wait_until(lambda: socket.poll(1000), "somebody subscribes")
        assert socket.recv()[:1] == b"\x01"

    def cut(self) -> None:
        """Lose all connections; the process is the same."""
        before = [(rank.sequence, rank.buffer) for rank in self._ranks]
        self.restart()
        for rank, (sequence, buffer) in zip(self._ranks, before, strict=True):
            rank.sequence, rank.buffer = sequence, buffer

    def restart(self) -> None:
        """Be a new process: empty, and counting from 0."""
        self.close()
        wait_until(self._reopened, "the ports are free again")

    def close(self) -> None:
        """End all sockets."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        for rank in self._ranks:
            rank.events.close(linger=0)

    def _reopened(self) -> bool:
        try:
            self._open()
        except zmq.ZMQError:
            return False
        return True

    def _open(self) -> None:
        opened: list[zmq.Socket[bytes]] = []
        try:
            for offset in range(self._count):
                for kind, port in [(zmq.XPUB, self._port), (zmq.ROUTER, self._replay_port)]:
                    opened.append(socket := self._context.socket(kind))
                    if kind == zmq.XPUB:
                        socket.sndhwm = self._hwm
                    socket.bind(f"tcp://127.0.0.1:{port + offset}")
        except zmq.ZMQError:
            for socket in opened:
                socket.close(linger=0)
            raise
        self._stopping = Event()
        self._ranks = [_Rank(events, deque(maxlen=self._steps)) for events in opened[::2]]
        replays = zip(self._ranks, opened[1::2], strict=True)
        self._threads = [Thread(target=self._serve, args=(rank, replay, self._stopping)) for rank, replay in replays]
        for thread in self._threads:
            thread.start()

    def _serve(self, rank: _Rank, replay: zmq.Socket[bytes], stopping: Event) -> None:
        with replay:
            replay.linger = 0
            while not stopping.is_set():
                if replay.poll(20):
                    client, _, start = replay.recv_multipart()
                    self.asked.append(int.from_bytes(start, "big"))
                    if not self.silent:
                        self._answer(rank, replay, client, int.from_bytes(start, "big"))

    def _answer(self, rank: _Rank, replay: zmq.Socket[bytes], client: bytes, start: int) -> None:
        with rank.lock:
            wanted = [(number, payload) for number, payload in rank.buffer if number >= start]
        topic = [self.topic.encode()] if self.form.replay_topic else []
        for place, (number, payload) in enumerate(wanted, 1):
            if not self.lose_every or place % self.lose_every:
                replay.send_multipart([client, b"", *topic, number.to_bytes(8, "big"), payload])
        if not self.lose_end:
            replay.send_multipart([client, b"", *([b""] if topic else []), _END, b""])
