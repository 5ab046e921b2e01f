"""The HTTP server: Waitress with threads in lanes, limits for clients, and a shutdown that drains requests.

One thread, the loop, reads from all clients and parses requests. The threads of the
lanes answer them (docs/adr/0014).
"""

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
# The time for requests in flight at the shutdown. The whole shutdown must take less than ten seconds.
DRAIN_SECONDS: Final = 4.0
# The loop parses for this long, and then looks for new clients and bytes again. A short request, such as that for
# /health, therefore does not wait for many long ones.
PARSE_SECONDS: Final = 0.02


class HttpServer:
    """Serves a WSGI application on a bound socket.

    Attributes:
        url: The URL at which this machine reaches the server.
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
            app: The WSGI application.
            listener: A listening socket.
            budget: The number of threads of each lane.
            lane_of: Returns the lane of a path.
            unsent: The most bytes of answers that clients have not taken yet.
        """
        self._lanes = Lanes((budget or Budget()).threads, lambda channel: _lane(channel, lane_of))
        self._map: dict[int, Any] = {}
        self._server = Connections(app, listener, self._lanes, self._map)
        self._limits = Limits(unsent)
        self._patience = 0.0
        host, port = listener.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def wake(self) -> None:
        """Make the loop check its stop event now; safe in a signal handler and in other threads."""
        self._server.pull_trigger()

    @property
    def wakeup_fd(self) -> int:
        """The descriptor for `signal.set_wakeup_fd`; made non-blocking, as that function requires.

        A signal then also wakes the loop if it arrives between a check of the stop event and the next poll.
        """
        descriptor: int = self._server.trigger.trigger
        os.set_blocking(descriptor, False)
        return descriptor

    def serve(self, stop: Event) -> None:
        """Serve until `stop` is set and `wake` is called; `drain` must follow. Runs the loop in this thread."""
        while not stop.is_set():
            self._loop_once(self._patience)

    def drain(self) -> None:
        """Stop accepting clients, let requests in flight finish within `DRAIN_SECONDS`, and close all connections."""
        # Close the listening socket only. The server's own `close` would also close the trigger, which wakes the loop.
        wasyncore.dispatcher.close(self._server)
        deadline = monotonic() + DRAIN_SECONDS
        while self._is_busy() and monotonic() < deadline:
            self._loop_once(0.05)
        if self._is_busy():
            logger.warning("requests under way were cut off after %g s", DRAIN_SECONDS)
        for channel in self._server.channels:
            channel.handle_close()
        self._lanes.shutdown(timeout=1)
        # A thread that is still busy will write to the trigger's descriptor. If it were closed, another file could get
        # the same descriptor in the meantime.
        if self._lanes.has_ended:
            self._server.trigger.close()

    def _loop_once(self, timeout: float) -> None:
        wasyncore.loop(timeout=timeout, use_poll=True, map=self._map, count=1)
        channels = self._server.channels
        now = monotonic()
        unsent = sum([channel.proceed(now) for channel in channels])
        is_done = _parse(channels, now + PARSE_SECONDS)
        # Accept last: for a new client, one of the connections that were just looked at may have to be closed.
        self._server.take_clients()
        patience = self._limits.enforce(self._server.channels, unsent, monotonic())
        self._patience = min(patience, self._server.pause()) if is_done else 0.0

    def _is_busy(self) -> bool:
        return any(channel.requests or channel.total_outbufs_len for channel in self._server.channels)


def _parse(channels: Sequence[Channel], until: float) -> bool:
    """Parse what clients have sent, until the time `until`; return whether nothing is left.

    Clients take turns. Among clients with equally many turns, the one with the fewest bytes comes first.
    """
    for channel in sorted([one for one in channels if one.unread], key=attrgetter("turns", "unread")):
        if monotonic() > until:
            return False
        channel.parse()
    return True


def _lane(channel: Any, lane_of: Callable[[str], Lane]) -> Lane:
    request = channel.requests[0]
    return Lane.QUICK if request.error else lane_of(request.path)
