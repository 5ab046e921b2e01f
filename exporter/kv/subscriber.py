"""The subscription to one DP rank's events: a thread that sleeps until a message arrives.

There is no queue between the socket and the ledger (docs/adr/0006). ZeroMQ's receive
queue is the only buffer, and it is bounded in bytes (docs/adr/0019). When it overflows,
the engine drops messages, which is a gap like any other.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from math import ceil
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

import zmq

from exporter.kv.decode import Drop
from exporter.kv.frames import receive
from exporter.kv.limits import MAX_PAYLOAD
from exporter.kv.link import Link
from exporter.kv.seldom import Seldom
from exporter.memory import give_back

if TYPE_CHECKING:
    from exporter.kv.stream import EventStream

__all__ = ["Subscriber", "SubscriberObserver", "endpoint_of_rank"]

logger: Final = logging.getLogger(__name__)

RECONNECT_MS: Final = 250
LONGEST_RECONNECT_MS: Final = 5_000
# A silence of this length ends a burst.
PAUSE_MS: Final = 1_000
# How long `/ready` reports a refused message as the problem.
REFUSAL_SECONDS: Final = 60.0
_FRAMES: Final = 3
_SEQUENCE_BYTES: Final = 8


class SubscriberObserver(Protocol):
    """Observes a subscription; called from the rank's thread, must not raise."""

    def connection(self, rank: int, *, up: bool) -> None:
        """The connection to a rank's events was made or lost."""


class Subscriber:
    """Owns the socket and the thread of one rank. Other threads may read its attributes.

    Attributes:
        rank: The DP rank.
        endpoint: The ZeroMQ endpoint of its events.
        connected: Whether there is a connection now.
        filtered: The number of messages with another topic.
        stream: Applies the messages.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        stream: EventStream,
        *,
        rank: int,
        endpoint: str,
        topic: str,
        queue: int,
        observer: SubscriberObserver,
        stopping: Event,
    ) -> None:
        """Prepare the subscription; nothing is connected before `start`.

        Args:
            context: The ZeroMQ context.
            stream: Applies the messages.
            rank: The DP rank.
            endpoint: The ZeroMQ endpoint of the rank's events.
            topic: The required beginning of a topic.
            queue: The highest number of messages in ZeroMQ's receive queue.
            observer: Called when the connection is made or lost.
            stopping: Ends the thread when it is set and `wake` was called.
        """
        self.rank = rank
        self.endpoint = endpoint
        self.connected = False
        self.filtered = 0
        self.stream = stream
        self._context = context
        self._topic = topic.encode()
        self._queue = queue
        self._log_change = {is_up: Seldom() for is_up in (True, False)}
        self._refused_at: float | None = None
        self._observer = observer
        self._stopping = stopping
        # ZeroMQ's poller cannot wait for an Event, so `wake` sends a message over a socket pair.
        self._bell = f"inproc://kv-stop-{rank}-{id(self)}"
        self._bell_socket = context.socket(zmq.PAIR)
        self._bell_socket.bind(self._bell)
        # A daemon: a replay in flight may take longer than the end of the runtime.
        self._thread = Thread(target=self._run, name=f"kv-events-{rank}", daemon=True)

    @property
    def refused(self) -> bool:
        """Whether ZeroMQ refused a message of the engine within the last minute."""
        return self._refused_at is not None and monotonic() - self._refused_at < REFUSAL_SECONDS

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Make the thread check `stopping`; call it once."""
        with suppress(zmq.Again):  # the thread has ended, or has not connected its side yet and will check by itself
            self._bell_socket.send(b"", zmq.NOBLOCK)

    def join(self, timeout: float) -> bool:
        """Wait `timeout` seconds for the thread to end; return whether it has."""
        self._thread.join(timeout)
        self._bell_socket.close(linger=0)
        return not self._thread.is_alive()

    def _run(self) -> None:
        bell = self._context.socket(zmq.PAIR)
        socket = self._context.socket(zmq.SUB)
        link = Link(socket, self.endpoint, queue=self._queue)
        try:
            bell.connect(self._bell)
            self._subscribe(socket)
            link.connect()
            poller = zmq.Poller()
            for each in (bell, link.monitor, socket):
                poller.register(each, zmq.POLLIN)
            while not self._stopping.is_set():
                ready = dict(poller.poll(self._patience(link)))
                self._watch(link)
                self._drain(socket)
                if not ready and self.stream.is_in_burst:
                    self.stream.pause()
                    give_back()
                self.stream.report()
        except Exception:
            logger.exception("KV events of dp_rank %d are no longer read: a defect of the runtime", self.rank)
        finally:
            if self.connected:
                self.connected = False
                self._observer.connection(self.rank, up=False)
            link.close()
            for each in (bell, socket):
                each.close(linger=0)

    def _subscribe(self, socket: zmq.Socket[bytes]) -> None:
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, LONGEST_RECONNECT_MS)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        # Subscribe to all topics, and filter in `_drain`: with ZeroMQ's own filter, a wrong topic looks like silence.
        socket.setsockopt(zmq.SUBSCRIBE, b"")

    def _patience(self, link: Link) -> int | None:
        """Return the timeout for the poller in milliseconds, or `None` to sleep until a message arrives."""
        patience = link.patience()
        if patience is not None:
            return ceil(1000 * patience)
        return PAUSE_MS if self.connected and self.stream.is_in_burst else None

    def _watch(self, link: Link) -> None:
        for is_up in link.changes():
            self.connected = is_up
            self._observer.connection(self.rank, up=is_up)
            if times := self._log_change[is_up].due():
                event = "connected" if is_up else "connection lost"
                logger.info("KV events: %s: dp_rank=%d count=%d", event, self.rank, times)
            if is_up:
                self.stream.connected()
        if link.is_given_up:
            self._refuse(link)

    def _refuse(self, link: Link) -> None:
        """Skip the message that ended the connection, and connect again, which ZeroMQ does not do by itself."""
        if not self.refused:
            logger.warning(
                "KV events of dp_rank %d: the engine sent a message of more than %d bytes, or one that is not ZeroMQ's; "
                "it is left out", self.rank, MAX_PAYLOAD,
            )  # fmt: skip
        self._refused_at = monotonic()
        self.stream.skip()
        link.connect()

    def _drain(self, socket: zmq.Socket[bytes]) -> None:
        for frames in receive(socket):
            if self._stopping.is_set():
                return
            if len(frames) != _FRAMES or len(frames[1]) != _SEQUENCE_BYTES:
                self.stream.tally.drop(Drop.FRAMES)
            elif not frames[0].startswith(self._topic):
                self.filtered += 1
                self.stream.tally.drop(Drop.TOPIC)
            else:
                self.stream.take(int.from_bytes(frames[1], "big"), frames[2])


def endpoint_of_rank(endpoint: str, rank: int) -> str:
    """Return a rank's endpoint as the engines number them: the tcp port plus the rank; inproc names get `_dp<rank>`.

    Raises:
        ValueError: The rank is not 0, and the endpoint is of another kind.
    """
    if rank == 0:
        return endpoint
    base, colon, port = endpoint.rpartition(":")
    if endpoint.startswith("tcp://") and colon and port.isdigit():
        return f"{base}:{int(port) + rank}"
    if endpoint.startswith("inproc://"):
        return f"{endpoint}_dp{rank}"
    message = f"{endpoint!r} has no port to count ranks from: use tcp://host:port"
    raise ValueError(message)
