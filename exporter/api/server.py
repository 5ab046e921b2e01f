"""Waitress, with threads in lanes, limits for clients, and an end that lets requests under way finish."""

from __future__ import annotations

import logging
import os
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from waitress import wasyncore

from exporter.api.connections import Connections
from exporter.api.lanes import Lanes
from exporter.api.limits import UNSENT_BYTES, Limits
from exporter.api.places import SHARES, Budget, Lane

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from threading import Event

    from exporter.api.channel import Channel

__all__ = ["THREADS", "HttpServer"]

logger: Final = logging.getLogger(__name__)

THREADS: Final = sum(share.threads for share in SHARES.values())
# Longer than a scrape takes that Prometheus still waits for is of no use to anyone.
DRAIN_SECONDS: Final = 4.0
# The loop parses requests for this long, and then looks for new clients and bytes again: a short request, such as that
# for /health, does not wait for many long ones.
PARSE_SECONDS: Final = 0.02


class HttpServer:
    """Serves a WSGI application on a bound socket.

    Attributes:
        url: Where it can be reached from this machine.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        listener: socket.socket,
        *,
        budget: Budget | None = None,
        lane_of: Callable[[str], Lane] = lambda _: Lane.CALLS,
        unsent: int = UNSENT_BYTES,
    ) -> None:
        """Take over `listener`; nothing is served until `serve`.

        Args:
            app: The application.
            listener: The socket, which listens.
            budget: How many threads each lane has.
            lane_of: Returns the lane of a path.
            unsent: Bytes of answers that may wait for their clients.
        """
        self._lanes = Lanes((budget or Budget()).threads, lambda channel: _lane(channel, lane_of))
        self._map: dict[int, Any] = {}
        self._server = Connections(app, listener, self._lanes, self._map)
        self._limits = Limits(unsent)
        self._patience = 0.0
        host, port = listener.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def wake(self) -> None:
        """Make the loop look at its stop event now; safe in a signal handler."""
        self._server.pull_trigger()

    @property
    def wakeup_fd(self) -> int:
        """What `signal.set_wakeup_fd` takes: a signal between a look at the stop event and the next poll is not missed."""
        descriptor: int = self._server.trigger.trigger
        os.set_blocking(descriptor, False)
        return descriptor

    def serve(self, stop: Event) -> None:
        """Serve until `stop` is set and `wake` called; `drain` must follow."""
        while not stop.is_set():
            self._loop_once(self._patience)

    def drain(self) -> None:
        """Take no more requests, let those under way finish, and close."""
        # The listening socket only: the server's own close would take the trigger too.
        wasyncore.dispatcher.close(self._server)
        deadline = monotonic() + DRAIN_SECONDS
        while self._is_busy() and monotonic() < deadline:
            self._loop_once(0.05)
        if self._is_busy():
            logger.warning("requests under way were cut off after %g s", DRAIN_SECONDS)
        for channel in self._server.channels:
            channel.handle_close()
        self._lanes.shutdown(timeout=1)
        # A thread that still works writes to the trigger's descriptor: it must not belong to another file by then.
        if self._lanes.has_ended:
            self._server.trigger.close()

    def _loop_once(self, timeout: float) -> None:
        wasyncore.loop(timeout=timeout, use_poll=True, map=self._map, count=1)
        channels = self._server.channels
        now = monotonic()
        unsent = sum([channel.proceed(now) for channel in channels])
        is_done = _parse(channels, now + PARSE_SECONDS)
        # After those that are there were looked at: one of them may have to go.
        self._server.take_clients()
        patience = self._limits.enforce(self._server.channels, unsent, monotonic())
        self._patience = min(patience, self._server.pause()) if is_done else 0.0

    def _is_busy(self) -> bool:
        return any(channel.requests or channel.total_outbufs_len for channel in self._server.channels)


def _parse(channels: Sequence[Channel], until: float) -> bool:
    """Parse what clients have sent, up to a moment; return whether nothing is left.

    They take turns, and of those who had as many the shortest comes first.
    """
    for channel in sorted([one for one in channels if one.unread], key=attrgetter("turns", "unread")):
        if monotonic() > until:
            return False
        channel.parse()
    return True


def _lane(channel: Any, lane_of: Callable[[str], Lane]) -> Lane:
    request = channel.requests[0]
    return Lane.QUICK if request.error else lane_of(request.path)
