"""One client's connection: one answer at a time, deadlines for requests, and no memory of what was sent.

Waitress answers pipelined requests into its buffers, and keeps a thread waiting
for room in there: a few clients that ask and do not read took every thread.
Here the thread that made an answer also sends it, while the loop goes on
listening for the next request; it is woken only when there is more to do.

Waitress also parses all that has come as soon as it comes. Here the bytes wait:
`parse` makes one request of them, when the answer to the last one has left.
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

# A client has this long for a request's head, and this long until the end of its body.
HEAD_SECONDS: Final = 10.0
BODY_SECONDS: Final = 30.0
# A connection that is kept open for later requests is closed after this time.
IDLE_SECONDS: Final = 120.0
# A client that takes nothing of its answer for so long is disconnected.
STALL_SECONDS: Final = 15.0


class Standing(IntEnum):
    """What a connection does; where there are too many, the lower ones are closed first."""

    IDLE = 0  # it waits for a request, or for the rest of one
    SENDING = 1  # its client has not taken all of an answer
    QUEUED = 2  # its request waits for a thread
    SERVED = 3  # a thread works on its request: never closed


class Channel(HTTPChannel):
    """A connection that has one answer under way: requests behind it wait until that has left.

    Attributes:
        unsent: Bytes of the answer that its client had not taken at the last `proceed`.
        unsent_since: When the first of them was there.
        quiet_since: When the last answer had been sent, or the connection was made.
        turns: How often something was parsed since it was idle.
    """

    parser_class = RequestParser
    # Waitress's types have other ones for these, or leave them out.
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
        # What came and is not parsed: at most one read's worth.
        self._unread = b""
        # Both are set with the loop woken, or by itself: it never waits on what it has not seen.
        self._is_behind = False
        self._is_ended = False

    def readable(self) -> bool:
        """Tell whether the loop is to wait for more from the client."""
        return not (self._unread or self._is_behind or self._is_ended or self.will_close or self.close_when_flushed)

    def writable(self) -> bool:
        """Tell whether the loop is to send, or to close."""
        # What is under way its own thread sends: the loop would come back to it immediately, again and again.
        is_left = self.total_outbufs_len and not self.requests
        return bool(is_left or self.will_close or self.close_when_flushed)

    def handle_read(self) -> None:
        """Take what came; a client that has no more to say is still owed the answer under way."""
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
        """How many bytes `parse` would take now; none while an answer is under way."""
        is_held_up = self.requests or self.total_outbufs_len or self.will_close or self.close_when_flushed
        return 0 if is_held_up else len(self._unread)

    def parse(self) -> None:
        """Read one request from what came, or a part of one; in the loop's thread only."""
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
        """Answer the first request and send the answer; in one of the server's threads."""
        self._is_served = True
        request = self.requests[0]
        task: Any = (self.error_task_class if request.error else self.task_class)(self, request)
        try:
            if self.connected:
                task.service()
            else:  # gone while it waited for a thread
                task.close_on_finish = True
        except ClientDisconnected:
            task.close_on_finish = True
        except Exception:
            logger.exception("an answer was broken off")
            task.close_on_finish = True
        self._send()
        request.close()
        if self._finish(is_last=task.close_on_finish):
            self.server.pull_trigger()

    def proceed(self, now: float) -> int:
        """Note how far the answer is, and return how many bytes of it are left; in the loop's thread only."""
        unsent = self.total_outbufs_len
        if not unsent and self._is_behind:
            self._is_behind, self.quiet_since = False, now
        if unsent != self.unsent:
            self._progress = now
            self.unsent_since = self.unsent_since if self.unsent else now
            self.unsent = unsent
        return unsent

    def standing(self) -> tuple[Standing, float]:
        """Return what it does, and since when."""
        if self._is_served:
            return Standing.SERVED, self.quiet_since
        if self.requests:
            return Standing.QUEUED, self.quiet_since
        if self.unsent:
            return Standing.SENDING, self.unsent_since
        return Standing.IDLE, self.quiet_since

    def is_receiving(self) -> bool:
        """Tell whether the client owes the rest of a request, or its first one."""
        return self.standing()[0] is Standing.IDLE and (self._is_new or self.request is not None)

    def is_late(self, now: float) -> bool:
        """Tell whether the client has had its time: for the answer, a request's head, its body, or another request."""
        if self.unsent:
            return now - self._progress > STALL_SECONDS
        if self.standing()[0] is not Standing.IDLE or self._unread:
            return False
        request = self.request
        if request is not None:
            limit = BODY_SECONDS if request.headers_finished else HEAD_SECONDS
            # While the answer before it was under way, the client was not always listened to.
            return now - max(self._request_since, self.quiet_since) > limit
        return now - self.quiet_since > (HEAD_SECONDS if self._is_new else IDLE_SECONDS)

    def held(self) -> int:
        """Return how many bytes of requests it keeps."""
        requests = [one for one in (*self.requests, self.request) if one is not None]
        sizes: list[int] = [one.header_bytes_received + one.body_bytes_received for one in requests]
        return len(self._unread) + sum(sizes)

    def _flush_some(self, do_close: bool = True) -> bool:
        """Send what the client takes; buffers keep what was sent, so that they go with the last byte."""
        is_any_sent = bool(super()._flush_some(do_close=do_close))  # type: ignore[misc]  # left out of Waitress's types
        if is_any_sent and not self.total_outbufs_len:
            self.outbufs = [OverflowableBuffer(self.adj.outbuf_overflow)]
            self.current_outbuf_count = 0
        return is_any_sent

    def _flush_outbufs_below_high_watermark(self) -> None:
        """Let no thread wait for room: there is one answer, and the server sees to the sum of them."""

    def _send(self) -> None:
        """Send what the client takes now."""
        with self.outbuf_lock:
            if self.total_outbufs_len and self.connected:
                # Only the loop closes connections: it may be about to wait for this one.
                self._flush_exception(self._flush_some, do_close=False)

    def _finish(self, *, is_last: bool) -> bool:
        """Be done with the first request; returns whether the loop has to see to this connection."""
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
        """Begin a request, unless all that came is the blank lines that may precede one."""
        self._unread = self._unread.lstrip()
        if self._unread:
            self.request = self.parser_class(self.adj)
            self._request_since = monotonic()
        return bool(self._unread)

    def _queue(self) -> None:
        """Leave the request that is complete to a thread."""
        self.requests, self.request = [self.request], None
        self.sent_continue = False
        self.server.add_task(self)
