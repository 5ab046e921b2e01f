"""Waitress, with an end that lets requests under way finish."""

from __future__ import annotations

import logging
import os
from operator import attrgetter
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final

from waitress import wasyncore
from waitress.channel import ClientDisconnected, HTTPChannel
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
# A client that takes nothing of its answer for so long is let go.
STALL_SECONDS: Final = 15.0
# Answers that wait for their clients; beyond it those go first that have taken longest, and more than a moment.
UNSENT_BYTES: Final = 32 * 1024 * 1024
_MOMENT: Final = 1.0


class _Channel(HTTPChannel):
    """A connection that has one answer under way: requests behind it wait until that has left.

    Waitress answers them all into its buffers, and then keeps a thread waiting
    for room in there: a few clients that ask and do not read took every thread.
    Here the thread that made an answer also sends it, while the loop goes on
    listening for the next request; it is woken only when there is more to do.

    Attributes:
        unsent: Bytes of the answer that its client had not taken at the last `proceed`.
        unsent_since: When the first of them was there.
    """

    # Waitress's types have other ones for these, or leave them out.
    server: Any
    request: Any
    requests: Any
    requests_lock: Any
    _flush_exception: Any
    _flush_some: Any
    socket: Any

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - the signature of HTTPChannel
        super().__init__(*arguments, **options)
        self.unsent = 0
        self.unsent_since = 0.0
        self._progress = 0.0
        # All three are set with the loop woken, or by itself: it never waits on what it has not seen.
        self._later: list[Any] = []
        self._is_behind = False
        self._is_ended = False

    def readable(self) -> bool:
        is_full = self._later or len(self.requests) > 1
        return not (is_full or self._is_behind or self._is_ended or self.will_close or self.close_when_flushed)

    def writable(self) -> bool:
        # What is under way its own thread sends: the loop would come back to it at once, again and again.
        is_left = self.total_outbufs_len and not self.requests
        return bool(is_left or self.will_close or self.close_when_flushed)

    def handle_read(self) -> None:
        """Take what came; a client that has no more to say is still owed the answer under way."""
        if not self.requests:
            super().handle_read()
            return
        try:
            data = self.socket.recv(self.adj.recv_bytes)
        except BlockingIOError:
            return
        except OSError:
            self.handle_close()
            return
        if data:
            self.received(data)
            return
        with self.requests_lock:
            self._is_ended = bool(self.requests)
        if not self._is_ended:
            self.handle_close()

    def service(self) -> None:
        """Answer the first request and send the answer; in one of the dispatcher's threads."""
        request = self.requests[0]
        task: Any = (self.error_task_class if request.error else self.task_class)(self, request)
        try:
            if self.connected:
                task.service()
            else:  # gone while it waited for a thread
                task.close_on_finish = True
        except ClientDisconnected:
            task.close_on_finish = True
        except Exception:  # noqa: BLE001 - what the application raises it answers itself; the thread must go on
            _log.exception("an answer was broken off")
            task.close_on_finish = True
        self._send()
        request.close()
        if self._finish(is_last=task.close_on_finish):
            self.server.pull_trigger()

    def proceed(self, now: float) -> int:
        """Go on with the next request, or return how much of the answer is left; in the loop's thread only."""
        unsent = self.total_outbufs_len
        if not unsent:
            self._is_behind = False
            if self._later or self.request is not None:
                self._next()
        if unsent != self.unsent:
            self._progress = now
            self.unsent_since = self.unsent_since if self.unsent else now
            self.unsent = unsent
        return unsent

    def is_stalled(self, now: float) -> bool:
        """Tell whether the client takes nothing of its answer."""
        return self.unsent > 0 and now - self._progress > STALL_SECONDS

    def _flush_outbufs_below_high_watermark(self) -> None:
        """Let no thread wait for room: there is one answer, and the server sees to the sum of them."""

    def _send(self) -> None:
        """Send what the client takes at once."""
        with self.outbuf_lock:
            if self.total_outbufs_len and self.connected:
                # Only the loop closes connections: it may be about to wait for this one.
                self._flush_exception(self._flush_some, do_close=False)
            # The next answer gets a buffer of its own, so that this one's is let go.
            self.current_outbuf_count = self.adj.outbuf_high_watermark

    def _finish(self, *, is_last: bool) -> bool:
        """Be done with the first request; returns whether the loop has to see to this connection."""
        with self.requests_lock:
            self._later, self.requests = self.requests[1:], []
            self.last_activity = time()
            if is_last or (self._is_ended and not self._later):
                self.close_when_flushed = True
            self._is_behind = self.total_outbufs_len > 0
            is_open = self.request is not None
            return bool(self._is_behind or self._later or is_open or self.will_close or self.close_when_flushed)

    def _next(self) -> None:
        with self.requests_lock:
            if self.requests or self.will_close or self.close_when_flushed:
                return
            if self._later:
                self.requests, self._later = self._later, []
                self.server.add_task(self)
            elif self.request.expect_continue and self.request.headers_finished and not self.sent_continue:
                # It came while another was answered.
                self.send_continue()


class HttpServer:
    """Serves a WSGI application on a bound socket.

    Attributes:
        url: Where it can be reached from this machine.
    """

    def __init__(self, app: Callable[..., Any], listener: socket.socket, *, unsent: int | None = None) -> None:
        """Take over `listener`; nothing is served until `serve`.

        Args:
            app: The WSGI application.
            listener: A socket that listens.
            unsent: Bytes of answers that may wait for their clients.
        """
        self._unsent = unsent or UNSENT_BYTES
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
        self._server.channel_class = _Channel  # type: ignore[union-attr]  # one socket, one server
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
        now = monotonic()
        unsent = sum([channel.proceed(now) for channel in list(self._server.active_channels.values())])
        if unsent:
            self._let_go(unsent, now)

    def _let_go(self, total: int, now: float) -> None:
        """Close the connections of clients that do not take their answers, `total` bytes in all."""
        waiting = [channel for channel in list(self._server.active_channels.values()) if channel.unsent]
        for channel in sorted(waiting, key=attrgetter("unsent_since")):
            is_slow = now - channel.unsent_since > _MOMENT
            if channel.is_stalled(now) or (is_slow and total > self._unsent):
                _log.debug("a client was let go that left %d bytes of its answer", channel.unsent)
                channel.handle_close()
                total -= channel.unsent

    def _is_busy(self) -> bool:
        channels = list(self._server.active_channels.values())
        return any(channel.requests or channel.total_outbufs_len for channel in channels)
