"""Waitress, with an end that lets requests under way finish."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from waitress import wasyncore
from waitress.server import create_server

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from threading import Event

__all__ = ["HttpServer"]

_log: Final = logging.getLogger(__name__)

# Most of them wait for the engine when they have work at all. Slow requests have
# fewer places (exporter.api.places), so that /health is never without a thread.
THREADS: Final = 24
# Idle clients cost a descriptor each; at waitress's own 100 they would keep others out.
_CONNECTIONS: Final = 1000
# Longer than a scrape takes that Prometheus still waits for is of no use to anyone.
DRAIN_SECONDS: Final = 4.0
# The loop also closes idle connections: one wake-up every so often is enough for it.
_IDLE_WAKE_UP: Final = 5.0


class HttpServer:
    """Serves a WSGI application on a bound socket.

    Attributes:
        url: Where it can be reached from this machine.
    """

    def __init__(self, app: Callable[..., Any], listener: socket.socket) -> None:
        """Take over `listener`; nothing is served until `serve`."""
        self._map: dict[int, Any] = {}
        self._server: Any = create_server(
            app,
            map=self._map,
            sockets=[listener],
            threads=THREADS,
            connection_limit=_CONNECTIONS,
            ident="kthena-runtime",
            # A page goes out from memory in few writes; spilling it to a file
            # and small sends were most of the cost (docs/benchmarks.md).
            outbuf_overflow=256 * 1024 * 1024,
            send_bytes=1024 * 1024,
            max_request_body_size=1024 * 1024,
            channel_timeout=120,
            clear_untrusted_proxy_headers=True,
        )
        host, port = listener.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def wake(self) -> None:
        """Make the loop look at its stop event now; safe in a signal handler."""
        self._server.pull_trigger()

    def serve(self, stop: Event) -> None:
        """Serve until `stop` is set and `wake` called; `drain` must follow."""
        while not stop.is_set():
            self._loop_once(_IDLE_WAKE_UP)

    def drain(self) -> None:
        """Take no more requests, let those under way finish, and close."""
        # The listening socket only: the server's own close would take the trigger too.
        wasyncore.dispatcher.close(self._server)
        deadline = monotonic() + DRAIN_SECONDS
        while self._is_busy() and monotonic() < deadline:
            self._loop_once(0.05)
        if self._is_busy():
            _log.warning("requests under way were cut off after %g s", DRAIN_SECONDS)
        for channel in list(self._server.active_channels.values()):
            channel.handle_close()
        self._server.task_dispatcher.shutdown(timeout=1)
        self._server.trigger.close()

    def _loop_once(self, timeout: float) -> None:
        wasyncore.loop(timeout=timeout, use_poll=True, map=self._map, count=1)

    def _is_busy(self) -> bool:
        channels = list(self._server.active_channels.values())
        return any(channel.requests or channel.total_outbufs_len for channel in channels)
