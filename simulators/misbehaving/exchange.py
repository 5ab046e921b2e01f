"""What a bad engine can do to one request, and the form that a misbehaviour has."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable

_DRIP_SECONDS = 0.05
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Exchange:
    """One request on a connection, and the means to answer it badly.

    Attributes:
        path: The path that was asked for.
        number: How many requests this connection has brought, this one included.
        keep_open: Set by a behaviour that takes a further request on this connection.
    """

    def __init__(self, connection: socket.socket, stopping: threading.Event, *, path: str, number: int) -> None:
        """Answer on `connection`, until `stopping` is set."""
        self._connection = connection
        self._stopping = stopping
        self.path = path
        self.number = number
        self.keep_open = False

    def send(self, data: bytes) -> None:
        """Send `data`; OSError when the client is gone or the engine ends."""
        self._connection.sendall(data)

    def stall(self) -> None:
        """Do nothing until the engine ends."""
        self._stopping.wait()

    def drip(self, chunks: Iterable[bytes]) -> None:
        """Send a chunk now and then until the engine ends."""
        for chunk in chunks:
            self.send(chunk)
            if self._stopping.wait(_DRIP_SECONDS):
                return

    def reset(self) -> None:
        """Make the coming close a reset, without the farewell of TCP."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a bad engine does.

    Attributes:
        summary: The misbehaviour in a few words.
        act: Answers one request; its second argument is `size`.
        size: Bytes, for a behaviour that has a size.
        listens: Whether anybody is there at all.
    """

    summary: str
    act: Callable[[Exchange, int], None]
    size: int = 0
    listens: bool = True
