"""Engines that misbehave, each in one way, over sockets that know nothing of HTTP.

One engine, one misbehaviour, by its name in `BEHAVIOURS`::

    with BadEngine("reset_half_way") as engine:
        requests.get(f"{engine.url}/metrics")
        assert engine.requests == 1

What a test needs only once is a literal: ``BadEngine.serving(b"HTTP/1.1 …")``.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from typing import TYPE_CHECKING, BinaryIO, Self

from simulators.misbehaving.behaviours import BEHAVIOURS, sends
from simulators.misbehaving.exchange import Behaviour, Exchange
from simulators.misbehaving.pages import response
from simulators.ports import free_port
from simulators.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BEHAVIOURS", "BadEngine", "Behaviour"]


class BadEngine:
    """An engine that listens while its ``with`` block runs, and does what `BEHAVIOURS` says.

    Attributes:
        url: The base URL, inside the block.
    """

    url: str
    _listener: socket.socket

    def __init__(self, behaviour: str | Behaviour, *, size: int | None = None) -> None:
        """Choose a behaviour, by name or as a value, and if need be its size in bytes."""
        self._behaviour = BEHAVIOURS[behaviour] if isinstance(behaviour, str) else behaviour
        self._size = self._behaviour.size if size is None else size
        self._stopping = threading.Event()
        self._counted = threading.Condition()
        self._requests = 0
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, name="bad-engine-accept")

    @classmethod
    def serving(cls, raw: bytes) -> BadEngine:
        """Return an engine that answers `raw`, byte for byte, and closes."""
        return cls(sends("literal", raw))

    @classmethod
    def serving_page(cls, body: bytes, headers: Mapping[str, str] | None = None) -> BadEngine:
        """Return an engine that answers 200 with `body`, properly framed unless `headers` say otherwise."""
        return cls.serving(response(body, headers=headers))

    def __enter__(self) -> Self:
        """Take a port, and listen on it if it is that kind of engine."""
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # A port that is bound refuses like a free one, and nobody else can take it.
        self._listener.bind(("127.0.0.1", free_port()))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        if self._behaviour.listens:
            self._listener.listen(128)
            self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cut every connection and wait for every thread."""
        self._stopping.set()
        # Only this wakes a thread that is in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        if self._behaviour.listens:
            self._acceptor.join()
        self._listener.close()
        with self._counted:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    @property
    def requests(self) -> int:
        """How many requests have come."""
        with self._counted:
            return self._requests

    def wait_for_requests(self, count: int, *, timeout: float = PATIENCE) -> bool:
        """Wait until `count` requests have come, and tell whether they did in time."""
        with self._counted:
            return self._counted.wait_for(lambda: self._requests >= count, timeout)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._counted:
                self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), name="bad-engine")
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError), connection.makefile("rb") as reader:
                self._converse(connection, reader)
        finally:
            with self._counted:
                self._open.discard(connection)
            connection.close()

    def _converse(self, connection: socket.socket, reader: BinaryIO) -> None:
        for number in itertools.count(1):
            path = _read_request(reader)
            if path is None:
                return
            with self._counted:
                self._requests += 1
                self._counted.notify_all()
            exchange = Exchange(connection, self._stopping, path=path, number=number)
            self._behaviour.act(exchange, self._size)
            if not exchange.keep_open:
                return


def _read_request(reader: BinaryIO) -> str | None:
    """Return the path of the next request, or None when there is none."""
    first = reader.readline()
    length = 0
    for line in iter(reader.readline, b"\r\n"):
        if not line:
            return None
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    reader.read(length)
    return first.split()[1].decode() if first.strip() else None
