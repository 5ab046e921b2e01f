"""A proxy before any HTTP server: it writes down what passes, and misbehaves when it is told to.

::

    with BadProxy(server.netloc) as proxy:
        proxy.misbehave(cut(after=1000), "/bucket/model/*", times=2)
        download_from(proxy.url)
        assert proxy.sent("/bucket/model/*") > 1000

It passes the Host header on as it came, so signatures stay good. Without a server behind it, it is a listener
that answers 404 to everything: the part of an attacker who wants to be told secrets.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from simulators.misbehaving.proxy_exchange import Exchange, Request
from simulators.misbehaving.proxy_faults import passes
from simulators.ports import free_port
from simulators.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from simulators.misbehaving.proxy_faults import Fault

__all__ = ["BadProxy"]

EVERYTHING: Final = "*"


@dataclass(slots=True)
class _Rule:
    """A fault, for which requests, and how often."""

    fault: Fault
    path: str
    method: str
    skip: int
    times: int | None

    def takes(self, request: Request) -> bool:
        """Tell whether this request is to suffer, and count it."""
        if self.times == 0 or not _matches(request, self.method, self.path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class BadProxy:
    """Listens while its ``with`` block runs.

    Attributes:
        url: The base URL, inside the block.
        netloc: Its host and port.
    """

    def __init__(self, upstream: str | None = None, *, tls: Path | None = None, domain: str = "127.0.0.1") -> None:
        """Stand before `upstream`, host and port; with `tls`, a certificate and its key, speak HTTPS.

        `domain` is the host that its URL names, which somebody must know how to resolve.
        """
        self._upstream = upstream
        self._tls = tls
        self._domain = "localhost" if tls else domain
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._rules: list[_Rule] = []
        self._exchanges: list[Exchange] = []
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", free_port()), backlog=128)
        port = self._listener.getsockname()[1]
        self.netloc = f"{self._domain}:{port}"
        self.url = f"{'https' if self._tls else 'http'}://{self.netloc}"
        self._acceptor = threading.Thread(target=self._accept, name="bad-proxy-accept")
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cut every connection and wait for every thread."""
        self._stopping.set()
        # Only this wakes a thread that is in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def misbehave(
        self, fault: Fault, path: str = EVERYTHING, *, method: str = "GET", skip: int = 0, times: int | None = None
    ) -> None:
        """Do `fault` to requests for `path`, a pattern: not to the first `skip`, and `times` times or always."""
        with self._changed:
            self._rules.append(_Rule(fault, path, method, skip, times))

    def behave(self) -> None:
        """Forget every fault, and what has passed."""
        with self._changed:
            self._rules.clear()
            self._exchanges.clear()

    def exchanges(self, path: str = EVERYTHING, *, method: str = EVERYTHING) -> list[Exchange]:
        """Return what has passed, also what is still under way, in the order it came."""
        with self._changed:
            return [exchange for exchange in self._exchanges if _matches(exchange.request, method, path)]

    def sent(self, path: str = EVERYTHING) -> int:
        """Return how many bytes of bodies have gone to clients."""
        return sum(exchange.sent for exchange in self.exchanges(path))

    def wait_for(self, count: int, path: str = EVERYTHING, *, method: str = "GET", seconds: float = PATIENCE) -> None:
        """Wait until so many requests have come."""
        with self._changed:
            came = self._changed.wait_for(lambda: self._count(path, method) >= count, seconds)
        assert came, f"{self._count(path, method)} of {count} requests came for {path}"

    def heard(self) -> str:
        """Return all that clients have said, to look for secrets in."""
        return "\n".join(repr(exchange.request) for exchange in self.exchanges())

    def _count(self, path: str, method: str) -> int:
        return sum(_matches(exchange.request, method, path) for exchange in self._exchanges)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            # Headers and body are sent apart: the second would wait for the first to be acknowledged.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(connection,), name="bad-proxy")
            self._threads.append(thread)
            with self._changed:
                self._open.add(connection)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        # A client that has been killed is no failure of ours.
        with contextlib.suppress(OSError), self._encrypted(connection) as stream, stream.makefile("rb") as reader:
            self._converse(stream, reader)
        with self._changed:
            self._open.discard(connection)
        connection.close()

    @contextlib.contextmanager
    def _encrypted(self, connection: socket.socket) -> Iterator[socket.socket]:
        if not self._tls:
            yield connection
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._tls)
        with context.wrap_socket(connection, server_side=True) as stream:
            with self._changed:
                self._open.add(stream)
            try:
                yield stream
            finally:
                with self._changed:
                    self._open.discard(stream)

    def _converse(self, stream: socket.socket, reader: BinaryIO) -> None:
        while request := Request.read(reader):
            exchange = Exchange(request, _connection=stream, _upstream=self._upstream, _stopping=self._stopping)
            with self._changed:
                self._exchanges.append(exchange)
                rule = next((rule for rule in self._rules if rule.takes(request)), None)
                self._changed.notify_all()
            with contextlib.closing(exchange):
                (rule.fault if rule else passes)(exchange)
            with self._changed:
                self._changed.notify_all()
            if not exchange.whole:
                return


def _matches(request: Request, method: str, path: str) -> bool:
    return fnmatchcase(request.method, method) and fnmatchcase(request.path, path)
