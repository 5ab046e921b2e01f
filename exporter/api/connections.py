"""The listening socket: it takes every client, and closes another connection where there are too many.

A port that takes no more clients is closed to /health, too, and the runtime is
restarted. So the connection that has been idle for longest goes instead; and a
process without file descriptors waits a second before it tries again.
"""

from __future__ import annotations

import errno
import logging
import resource
import select
import warnings
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from exporter.api.channel import Channel, Standing
from exporter.api.heads import MAX_HEAD_BYTES

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from exporter.api.lanes import Lanes

__all__ = ["Connections"]

logger: Final = logging.getLogger(__name__)

_MOST: Final = 1000
# Descriptors that are left for the engine, workers, files and Redis.
_RESERVED: Final = 64
# Clients that are taken before the others are looked at again.
_BATCH: Final = 64
_PAUSE_SECONDS: Final = 1.0
# One line of log in this time, however often it happens.
_QUIET_SECONDS: Final = 60.0
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_OPTIONS: Final = {
    "ident": "kthena-runtime",
    # A page goes out from memory in few writes; spilling it to a file
    # and small sends were most of the cost (docs/benchmarks.md).
    "outbuf_overflow": 256 * 1024 * 1024,
    "send_bytes": 1024 * 1024,
    "max_request_header_size": MAX_HEAD_BYTES,
    "max_request_body_size": 1024 * 1024,
    # Bodies stay in memory, too: a disk that hangs must not hold up the loop.
    "inbuf_overflow": 2 * 1024 * 1024,
    "clear_untrusted_proxy_headers": True,
}


class Connections(TcpWSGIServer):
    """Waitress's server, with its own rules for clients.

    Attributes:
        channels: All connections.
    """

    channel_class = Channel
    # Waitress's types have other ones for these, or leave them out.
    active_channels: Any
    trigger: Any
    socket: Any
    _map: Any

    def __init__(
        self, app: Callable[..., Any], listener: socket.socket, dispatcher: Lanes, connections: dict[int, Any]
    ) -> None:
        """Take over `listener`.

        Args:
            app: The WSGI application.
            listener: The socket, which listens.
            dispatcher: Gives requests to threads, as Waitress's own does.
            connections: The map of Waitress's loop.
        """
        with warnings.catch_warnings():
            # Its replacement is not known yet.
            warnings.filterwarnings("ignore", "send_bytes", DeprecationWarning)
            options = Adjustments(sockets=[listener], **_OPTIONS)
        address = (listener.family, listener.type, listener.proto, listener.getsockname())
        super().__init__(
            app,
            connections,
            _sock=listener,
            dispatcher=dispatcher,  # type: ignore[arg-type]  # it takes the place of Waitress's own
            adj=options,
            sockinfo=address,
            bind_socket=False,
        )
        self._most = _room()
        self._is_called = False
        self._resume_at = 0.0
        self._quiet_until = 0.0

    @property
    def channels(self) -> list[Channel]:
        """All connections."""
        return list(self.active_channels.values())

    def readable(self) -> bool:
        """Tell whether the loop is to wait for clients."""
        return self.accepting and monotonic() >= self._resume_at

    def pause(self) -> float:
        """Return the seconds until clients are taken again; infinite if they are."""
        left = self._resume_at - monotonic()
        return left if left > 0 else inf

    def handle_accept(self) -> None:
        """Leave it to `take_clients`."""
        self._is_called = True

    def take_clients(self) -> None:
        """Take the clients that have come.

        Not while the loop goes through what has happened: it knows connections
        by their descriptors, and a new one may get that of one closed just now.
        """
        is_called, self._is_called = self._is_called, False
        for _ in range(_BATCH if is_called else 0):
            try:
                client, address = self.socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if not self._is_overcome(error):
                    return
            else:
                self._admit(client, address)

    def _is_overcome(self, error: OSError) -> bool:
        """See to it that a client can be accepted; return whether to try again now."""
        if error.errno not in _EXHAUSTED:
            self._tell("a client could not be accepted: %s", error.strerror)
            return False
        # The system looks for a descriptor first, and only then whether there is a client at all.
        if not self._is_client_waiting():
            return False
        if self._make_room(Standing.SENDING):
            return True
        self._resume_at = monotonic() + _PAUSE_SECONDS
        self._tell("no client can be accepted, trying again each second: %s", error.strerror)
        return False

    def _is_client_waiting(self) -> bool:
        waiting = select.poll()
        waiting.register(self.socket, select.POLLIN)
        return bool(waiting.poll(0))

    def _admit(self, client: socket.socket, address: Any) -> None:
        if len(self.active_channels) >= self._most and not self._make_room(Standing.QUEUED):
            client.close()
            return
        try:
            self.set_socket_options(client)
        except OSError:  # it has left already
            client.close()
            return
        self.channel_class(self, client, address, self.adj, map=self._map)

    def _make_room(self, highest: Standing) -> bool:
        """Close the connection that can best be spared; return whether there is one, up to `highest`."""
        channels = self.channels
        if not channels:
            return False
        spared = min(channels, key=Channel.standing)
        if spared.standing()[0] > highest:
            return False
        self._tell("no room for another client, the oldest idle connection is closed: open=%d", len(channels))
        spared.handle_close()
        return True

    def _tell(self, message: str, fact: object) -> None:
        if monotonic() >= self._quiet_until:
            self._quiet_until = monotonic() + _QUIET_SECONDS
            logger.warning(message, fact)

    def maintenance(self, now: float) -> None:
        """Leave it to `HttpServer`, which closes connections that are late."""


def _room() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return _MOST
    return min(_MOST, max(limit - _RESERVED, limit // 2))
