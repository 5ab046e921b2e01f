"""One client's connection: one answer at a time, deadlines for requests, and no buffers of sent bytes (ADR 14).

Waitress writes the answers to pipelined requests into its buffers, and lets a thread
wait for room in them. A few clients that send requests and do not read took every
thread. Here, the thread that makes an answer also sends what the client takes. The
server's loop sends the rest, and is woken only when there is something to do.

Waitress also parses all bytes as soon as they arrive. Here, the bytes wait: `parse`
reads one request from them, after the previous answer has left.

`service` runs in one of the lanes' threads, all other public methods run in the loop's.
"""

from __future__ import annotations

import logging
from enum import IntEnum
from time import monotonic
from typing import Any, Final

from waitress.buffers import OverflowableBuffer
from waitress.channel import ClientDisconnected, HTTPChannel

from exporter.api.heads import RequestParser

__all__ = ["Channel", "Standing"]

logger: Final = logging.getLogger(__name__)

# The time for a request's head, and the time from its first byte to the end of its body.
HEAD_SECONDS: Final = 10.0
BODY_SECONDS: Final = 30.0
# A connection that is kept open for later requests is closed after this time.
IDLE_SECONDS: Final = 120.0
# A client that takes no byte of its answer for this time is disconnected.
STALL_SECONDS: Final = 15.0


class Standing(IntEnum):
    """The state of a connection. When there are too many connections, lower states are closed first."""

    IDLE = 0  # the server waits for a request, or for the rest of one
    SENDING = 1  # the client has not received the whole answer
    QUEUED = 2  # the request waits for a thread
    SERVED = 3  # a thread works on the request: never closed


class Channel(HTTPChannel):
    """A connection with at most one answer in flight; further requests wait until that answer has left.

    Attributes:
        unsent: Bytes of the answer that were not sent at the last `proceed`.
        unsent_since: Since when there have been unsent bytes.
        quiet_since: When the last answer was sent, or the connection was made.
        turns: How often `parse` ran since the connection was idle.
    """

    parser_class = RequestParser
    # The type stubs of Waitress lack these attributes or declare them differently.
    adj: Any
    server: Any
    request: Any
    requests: Any
    requests_lock: Any
    outbufs: Any
    outbuf_lock: Any
    total_outbufs_len: int
    current_outbuf_count: int
    _flush_exception: Any
    socket: Any

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.unsent = self.turns = 0
        self.unsent_since = 0.0
        self.quiet_since = self._request_since = monotonic()
        self._progress = 0.0
        self._is_new = True
        self._is_served = False
        # Received bytes that are not parsed yet: at most those of one read.
        self._unread = b""
        # The loop sets these, or is woken after a thread has set them, so it never sleeps with an old value.
        self._is_behind = False
        self._is_ended = False

    def readable(self) -> bool:
        """Tell the loop whether to wait for bytes from the client; unparsed bytes stop it, which bounds memory."""
        return not (self._unread or self._is_behind or self._is_ended or self.will_close or self.close_when_flushed)

    def writable(self) -> bool:
        """Tell the loop whether to send or to close."""
        # While a thread works on the request, it also sends the answer. The loop would only spin.
        is_left = self.total_outbufs_len and not self.requests
        return bool(is_left or self.will_close or self.close_when_flushed)

    def handle_read(self) -> None:
        """Read from the socket. A client that has shut down its side still gets the answer in flight."""
        try:
            data = self.socket.recv(self.adj.recv_bytes)
        except BlockingIOError:
            return
        except OSError:
            self.handle_close()
            return
        if data:
            if self.request is None and not self.requests:
                self.turns = 0
            self._unread = data
            return
        with self.requests_lock:
            self._is_ended = bool(self.requests)
        if not self._is_ended:
            self.handle_close()

    @property
    def unread(self) -> int:
        """How many bytes `parse` could read now; 0 while an answer is in flight."""
        is_held_up = self.requests or self.total_outbufs_len or self.will_close or self.close_when_flushed
        return 0 if is_held_up else len(self._unread)

    def parse(self) -> None:
        """Parse one request, or a part of one, from the received bytes."""
        self.turns += 1
        with self.requests_lock:
            while self.unread:
                if self.request is None and not self._begin():
                    return
                taken = self.request.received(self._unread)
                self._unread = self._unread[taken:]
                if self.request.completed:
                    self._queue()
                elif self.request.expect_continue and self.request.headers_finished and not self.sent_continue:
                    self.send_continue()

    def service(self) -> None:
        """Answer the request and send what the client takes of the answer; runs in a lane's thread."""
        self._is_served = True
        request = self.requests[0]
        task: Any = (self.error_task_class if request.error else self.task_class)(self, request)
        try:
            if self.connected:
                task.service()
            else:  # the client left while its request waited for a thread
                task.close_on_finish = True
        except ClientDisconnected:
            task.close_on_finish = True
        except Exception:
            logger.exception("an answer was broken off")
            task.close_on_finish = True
        self._send()
        request.close()
        # The loop may be asleep: wake it only if there is something to do for it.
        if self._finish(is_last=task.close_on_finish):
            self.server.pull_trigger()

    def proceed(self, now: float) -> int:
        """Note the progress of the answer, and return the number of unsent bytes; the loop calls it in each turn."""
        unsent = self.total_outbufs_len
        if not unsent and self._is_behind:
            self._is_behind, self.quiet_since = False, now
        if unsent != self.unsent:
            self._progress = now
            self.unsent_since = self.unsent_since if self.unsent else now
            self.unsent = unsent
        return unsent

    def standing(self) -> tuple[Standing, float]:
        """Return the connection's state, and since when it has been in it; sorts connections for closing."""
        if self._is_served:
            return Standing.SERVED, self.quiet_since
        if self.requests:
            return Standing.QUEUED, self.quiet_since
        if self.unsent:
            return Standing.SENDING, self.unsent_since
        return Standing.IDLE, self.quiet_since

    def is_receiving(self) -> bool:
        """Tell whether the client must still send its first request, or the rest of one; its deadline is short."""
        return self.standing()[0] is Standing.IDLE and (self._is_new or self.request is not None)

    def is_late(self, now: float) -> bool:
        """Tell whether a deadline is over: for taking the answer, a request's head, its body, or the next request."""
        if self.unsent:
            return now - self._progress > STALL_SECONDS
        if self.standing()[0] is not Standing.IDLE or self._unread:
            return False
        request = self.request
        if request is not None:
            limit = BODY_SECONDS if request.headers_finished else HEAD_SECONDS
            # While the previous answer was in flight, the server did not always read from the client.
            return now - max(self._request_since, self.quiet_since) > limit
        return now - self.quiet_since > (HEAD_SECONDS if self._is_new else IDLE_SECONDS)

    def held(self) -> int:
        """Return how many bytes of requests the connection holds in memory."""
        requests = [one for one in (*self.requests, self.request) if one is not None]
        sizes: list[int] = [one.header_bytes_received + one.body_bytes_received for one in requests]
        return len(self._unread) + sum(sizes)

    def _flush_some(self, do_close: bool = True) -> bool:
        """Send what the client takes, and drop the buffers after the last byte.

        Waitress's buffers keep what was sent for as long as the connection is open.
        """
        is_any_sent = bool(super()._flush_some(do_close=do_close))  # type: ignore[misc]  # left out of Waitress's types
        if is_any_sent and not self.total_outbufs_len:
            self.outbufs = [OverflowableBuffer(self.adj.outbuf_overflow)]
            self.current_outbuf_count = 0
        return is_any_sent

    def _flush_outbufs_below_high_watermark(self) -> None:
        """Do nothing; Waitress would let a thread wait here until the client reads. `Limits` bounds all answers."""

    def _send(self) -> None:
        """Send what the client takes now; the loop sends the rest."""
        with self.outbuf_lock:
            if self.total_outbufs_len and self.connected:
                # Only the loop closes connections: it may be about to wait for this one.
                self._flush_exception(self._flush_some, do_close=False)

    def _finish(self, *, is_last: bool) -> bool:
        """Finish the request; return whether the loop must look at this connection now."""
        with self.requests_lock:
            self.requests = []
            self._is_served = self._is_new = False
            self.quiet_since = monotonic()
            if is_last or (self._is_ended and not self._unread):
                self.close_when_flushed = True
            self._is_behind = self.total_outbufs_len > 0
            is_open = self.request is not None
            return bool(self._is_behind or self._unread or is_open or self.will_close or self.close_when_flushed)

    def _begin(self) -> bool:
        """Begin a request; return false if only blank lines arrived, which a client may send in front of one."""
        self._unread = self._unread.lstrip()
        if self._unread:
            self.request = self.parser_class(self.adj)
            self._request_since = monotonic()
        return bool(self._unread)

    def _queue(self) -> None:
        """Give the complete request to a thread of its lane."""
        self.requests, self.request = [self.request], None
        self.sent_continue = False
        self.server.add_task(self)
