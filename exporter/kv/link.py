"""Watch the connection of a ZeroMQ socket, and reconnect where ZeroMQ does not.

ZeroMQ reconnects after an engine went away. It does not reconnect after an engine
sent a message that is too large, or data that is not ZeroMQ's. Then the socket
stays silent forever. The monitor socket tells the two cases apart: only the first
one is followed by an announced retry.
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
# The time for the announcement of a retry. On an idle machine, it comes within a millisecond.
GRACE_SECONDS: Final = 1.0


class Link:
    """The connection of one socket to one endpoint. Not thread-safe, like the socket.

    Attributes:
        monitor: A socket that is readable when `changes` has something to yield; for a poller.
        up: Whether there is a connection.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        endpoint: str,
        *,
        queue: int,
        largest: int = MAX_PAYLOAD,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Prepare `socket`; nothing is connected before `connect`.

        Args:
            socket: The socket.
            endpoint: Where it connects to.
            queue: The highest number of messages in the receive queue.
            largest: The largest message in bytes; a larger one ends the connection.
            clock: A monotonic clock in seconds.
        """
        self._socket = socket
        self._endpoint = endpoint
        self._clock = clock
        self._ended_at: float | None = None  # when the connection ended, unless a retry was announced since
        self.up = False
        self.monitor: zmq.Socket[bytes] = socket.get_monitor_socket(_EVENTS)
        socket.setsockopt(zmq.MAXMSGSIZE, largest)
        socket.rcvhwm = queue

    def connect(self) -> None:
        """Connect, or connect again after ZeroMQ gave up.

        Raises:
            zmq.ZMQError: The endpoint cannot be used.
        """
        if self._ended_at is not None:
            self._ended_at = None
            self._socket.disconnect(self._endpoint)
        self._socket.connect(self._endpoint)

    def changes(self) -> Iterator[bool]:
        """Read the monitor's events; yield whether there is a connection, for each change."""
        while self.monitor.poll(0):
            event = recv_monitor_message(self.monitor)["event"]
            self._ended_at = self._clock() if event == zmq.EVENT_DISCONNECTED else None
            if event != zmq.EVENT_CONNECT_RETRIED:
                self.up = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
                yield self.up

    def patience(self) -> float | None:
        """Return the seconds until `is_given_up` becomes true; `None` if no announcement is awaited."""
        return None if self._ended_at is None else max(self._ended_at + GRACE_SECONDS - self._clock(), 0.0)

    @property
    def is_given_up(self) -> bool:
        """Whether ZeroMQ will not reconnect by itself: no retry was announced in time."""
        return self.patience() == 0.0

    def close(self) -> None:
        """Close the monitor; call it before the socket is closed."""
        self._socket.disable_monitor()
        self.monitor.close(linger=0)
