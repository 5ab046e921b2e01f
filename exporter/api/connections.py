"""The listening socket: it accepts every client, and closes another connection when there are too many (ADR 14).

Waitress stops accepting at its limit of connections. The liveness probe could then
not connect either, and the kubelet would restart the runtime. Here, the connection
that has been idle the longest is closed instead. When the process has no file
descriptors left and nothing to close, it tries again after a second.
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
# Descriptors for everything else: the engine, workers, files and Redis.
_RESERVED: Final = 64
# Clients that are accepted in one turn of the loop, before it serves the others.
_BATCH: Final = 64
_PAUSE_SECONDS: Final = 1.0
# At most one log line in this time.
_QUIET_SECONDS: Final = 60.0
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_OPTIONS: Final = {
    "ident": "kthena-runtime",
    # Pages are sent from memory in few writes. Waitress's defaults spill them to
    # a file and send small pieces, which was most of the cost (docs/benchmarks.md).
    "outbuf_overflow": 256 * 1024 * 1024,
    "send_bytes": 1024 * 1024,
    "max_request_header_size": MAX_HEAD_BYTES,
    "max_request_body_size": 1024 * 1024,
    # Above the body limit, so that bodies stay in memory: a disk that hangs must not block the loop.
    "inbuf_overflow": 2 * 1024 * 1024,
    "clear_untrusted_proxy_headers": True,
}


class Connections(TcpWSGIServer):
    """Waitress's server with other rules for accepting and closing connections. For the loop's thread only."""

    channel_class = Channel
    # The type stubs of Waitress lack these attributes or declare them differently.
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
            listener: A listening socket.
            dispatcher: Gives requests to threads, in place of Waitress's task dispatcher.
            connections: The socket map of Waitress's loop.
        """
        with warnings.catch_warnings():
            # Waitress deprecates `send_bytes` without naming a replacement.
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
        """All open connections."""
        return list(self.active_channels.values())

    def readable(self) -> bool:
        """Tell the loop whether to wait for clients."""
        return self.accepting and monotonic() >= self._resume_at

    def pause(self) -> float:
        """Return the seconds until clients are accepted again; infinite when there is no pause."""
        left = self._resume_at - monotonic()
        return left if left > 0 else inf

    def handle_accept(self) -> None:
        """Note that clients wait; `take_clients` accepts them."""
        self._is_called = True

    def take_clients(self) -> None:
        """Accept the waiting clients, `_BATCH` of them at most.

        Call it between two turns of the loop. Within a turn, the loop identifies
        connections by descriptor, and a new connection may get the descriptor of
        one that was closed in the same turn.
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
        """Handle a failed `accept`, and make room if descriptors ran out; return whether to try again now."""
        if error.errno not in _EXHAUSTED:
            self._tell("a client could not be accepted: %s", error.strerror)
            return False
        # Linux reserves a descriptor before it looks for a client: without one, `accept` fails even if no client waits.
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
        except OSError:  # the client has already left
            client.close()
            return
        self.channel_class(self, client, address, self.adj, map=self._map)

    def _make_room(self, highest: Standing) -> bool:
        """Close the connection with the lowest state, the longest in it; return false if all are above `highest`."""
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
        """Do nothing; Waitress would close idle connections here. `Limits` closes connections that are late."""


def _room() -> int:
    # With few descriptors, half of them are for connections.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return _MOST
    return min(_MOST, max(limit - _RESERVED, limit // 2))
