"""The engine's side of KV events, in a process of its own: prebuilt messages, as fast as told.

Like vLLM's: one thread sends, and in between looks whether somebody asks for a
replay; a subscriber that falls a high-water mark behind loses messages, and so
does one that reads a replay too slowly.

    python -m bench.kv_publisher PORT REPLAY_PORT HIGH_WATER_MARK BUFFERED_MESSAGES
"""

from __future__ import annotations

import sys
from collections import deque
from itertools import count
from time import sleep, time
from typing import TYPE_CHECKING, Any, Final

import zmq

from bench.kv_blocks import CLEAR, Load, at
from bench.kv_worker import answer, orders
from bench.process import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["main"]

_TOPIC: Final = b"kv-events"
_END: Final = b"\xff" * 8
_PACE: Final = 0.0005
# Messages between two looks at the replay socket, which cost as much as sending several.
_RUN: Final = 50


class Publisher:
    """Sends numbered messages, and sends them again to who asks."""

    def __init__(self, port: int, replay_port: int, mark: int, steps: int) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._events = context.socket(zmq.XPUB)
        self._events.sndhwm = mark
        self._events.bind(f"tcp://{HOST}:{port}")
        self._replays = context.socket(zmq.ROUTER)
        self._replays.bind(f"tcp://{HOST}:{replay_port}")
        self._numbers = count()
        self._buffer: deque[tuple[bytes, bytes]] = deque(maxlen=steps)
        self._tails: dict[Load, list[bytes]] = {}
        self._sent: list[float] = []

    def run(self) -> None:
        """Do as told; look for who asks for a replay meanwhile."""
        told = zmq.Poller()
        told.register(sys.stdin.fileno(), zmq.POLLIN)
        told.register(self._replays, zmq.POLLIN)
        todo = orders()
        while True:
            ready = dict(told.poll())
            if self._replays in ready:
                self._replay()
            if sys.stdin.fileno() in ready:
                order = next(todo, None)
                if order is None:
                    return
                answer(**getattr(self, order.pop("do"))(**order))

    def load(self, **load: int) -> dict[str, Any]:
        """Build the messages of a load."""
        what = Load(**load)
        self._tails[what] = what.payloads()
        return {}

    def subscribed(self) -> dict[str, Any]:
        """Wait until somebody subscribes."""
        while self._events.recv()[:1] != b"\x01":
            pass
        return {}

    def clear(self) -> dict[str, Any]:
        """Forget all blocks."""
        self._send(CLEAR)
        return {}

    def play(self, *, rate: float | None = None, times: float = 1, **load: int) -> dict[str, Any]:
        """Send a load's messages, `times` over, at `rate` blocks a second; return when it began and ended."""
        what = Load(**load)
        tails = self._tails[what]
        total = round(times * len(tails))
        sent = self._sent = []
        for until in _paced(total, rate / what.per_event) if rate else [total]:
            while len(sent) < until:
                run = range(len(sent), min(len(sent) + _RUN, until))
                sent += [self._send(tails[place % len(tails)]) for place in run]
                self._look()
            self._look()
        return {"first": sent[0], "last": sent[-1], "messages": total}

    def times(self) -> dict[str, Any]:
        """Return when each message of the last load was sent.

        Not part of the answer to `play`: a line of this length would keep the
        publisher until it is read, and nobody could ask for a replay.
        """
        return {"times": self._sent}

    def _send(self, tail: bytes) -> float:
        now = time()
        number, payload = next(self._numbers).to_bytes(8, "big"), at(now, tail)
        self._buffer.append((number, payload))
        self._events.send(_TOPIC, zmq.SNDMORE)
        self._events.send(number, zmq.SNDMORE)
        self._events.send(payload)
        return now

    def _look(self) -> None:
        if self._replays.poll(0):
            self._replay()

    def _replay(self) -> None:
        client, _, start = self._replays.recv_multipart()
        for number, payload in self._buffer:
            if number >= start:
                self._replays.send_multipart([client, b"", _TOPIC, number, payload])
        self._replays.send_multipart([client, b"", b"", _END, b""])


def _paced(total: int, rate: float) -> Iterator[int]:
    """Yield how many messages should have been sent by now, until it is all of them."""
    started, due = time(), 0
    while due < total:
        due = min(int((time() - started) * rate), total)
        yield due
        sleep(_PACE)


def main(arguments: Sequence[str]) -> None:
    """Publish until standard input ends."""
    Publisher(*map(int, arguments)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
