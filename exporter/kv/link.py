"""What ZeroMQ makes of a socket's connection.

It reconnects by itself after an engine went away, but not after one sent what
it does not take: too large a message, or no message at all. Then it is silent
for ever. The two differ in whether a retry is announced.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from exporter.kv.limits import MAX_PAYLOAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Link"]

_EVENTS: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED
# How long a retry may take to be announced; it comes within the same millisecond on an idle machine.
GRACE_SECONDS: Final = 1.0


class Link:
    """The connection of one socket, which connects to one endpoint. For one thread.

    Attributes:
        monitor: A socket that is readable when something has changed.
        up: Whether there is a connection.
    """

    def __init__(
        self, socket: zmq.Socket[bytes], endpoint: str, *, queue: int, clock: Callable[[], float] = monotonic
    ) -> None:
        """Limit what `socket` receives; nothing is connected before `connect`."""
        self._socket = socket
        self._endpoint = endpoint
        self._clock = clock
        self._ended_at: float | None = None  # and no retry was announced since
        self.up = False
        self.monitor: zmq.Socket[bytes] = socket.get_monitor_socket(_EVENTS)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_PAYLOAD)
        socket.rcvhwm = queue

    def connect(self) -> None:
        """Connect, or start over after ZeroMQ gave up.

        Raises:
            zmq.ZMQError: The endpoint cannot be used.
        """
        if self._ended_at is not None:
            self._ended_at = None
            self._socket.disconnect(self._endpoint)
        self._socket.connect(self._endpoint)

    def changes(self) -> Iterator[bool]:
        """Take what has happened; yield whether there is a connection each time that changed."""
        while self.monitor.poll(0):
            event = recv_monitor_message(self.monitor)["event"]
            self._ended_at = self._clock() if event == zmq.EVENT_DISCONNECTED else None
            if event != zmq.EVENT_CONNECT_RETRIED:
                self.up = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
                yield self.up

    def patience(self) -> float | None:
        """Return the seconds after which `is_given_up` may be true; `None` if nothing is awaited."""
        return None if self._ended_at is None else max(self._ended_at + GRACE_SECONDS - self._clock(), 0.0)

    @property
    def is_given_up(self) -> bool:
        """Whether ZeroMQ will not connect again."""
        return self.patience() == 0.0

    def close(self) -> None:
        """Stop watching."""
        self._socket.disable_monitor()
        self.monitor.close(linger=0)
