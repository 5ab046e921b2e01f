"""The subscription to one DP rank's events: a thread that sleeps until something comes.

Nothing waits between the socket and the ledger: ZeroMQ's own receive queue is
the buffer, and it is bounded in bytes. When it overflows the engine drops
messages, which is a gap like any other.
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
# So long after a message that was refused, it is still what is wrong.
REFUSAL_SECONDS: Final = 60.0
_FRAMES: Final = 3
_SEQUENCE_BYTES: Final = 8


class SubscriberObserver(Protocol):
    """Told how the subscription fares; must not raise."""

    def connection(self, rank: int, *, up: bool) -> None:
        """The connection came or went."""


class Subscriber:
    """Owns the socket and the thread of one rank.

    Attributes:
        rank: The DP rank.
        endpoint: Where its events come from.
        connected: Whether there is a connection now.
        filtered: Messages whose topic was not the one asked for.
        stream: What the messages go to.
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
        """Subscribe to topics that begin with `topic`, once started; `stopping` and `wake` end it.

        Of what comes, up to `queue` messages wait while others are worked on.
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
        self._bell = f"inproc://kv-stop-{rank}-{id(self)}"
        self._bell_socket = context.socket(zmq.PAIR)
        self._bell_socket.bind(self._bell)
        # What is under way when the runtime ends may take longer than the end.
        self._thread = Thread(target=self._run, name=f"kv-events-{rank}", daemon=True)

    @property
    def refused(self) -> bool:
        """Whether the engine sent a message of late that is not taken."""
        return self._refused_at is not None and monotonic() - self._refused_at < REFUSAL_SECONDS

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def wake(self) -> None:
        """Make the thread look at `stopping`; call once."""
        with suppress(zmq.Again):  # the thread has ended, or is yet to look
            self._bell_socket.send(b"", zmq.NOBLOCK)

    def join(self, timeout: float) -> bool:
        """Wait for the end of the thread; return whether it has ended."""
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
        # All topics: what another filter lets through could not be told from silence.
        socket.setsockopt(zmq.SUBSCRIBE, b"")

    def _patience(self, link: Link) -> int | None:
        """Return for how many milliseconds nothing need happen."""
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
        """Pass over the message that ended the connection, and connect again."""
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
    """Return a rank's endpoint as the engines number them: tcp ports count on, inproc names get `_dp<rank>`.

    Raises:
        ValueError: The endpoint is neither, and the rank is not 0.
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
