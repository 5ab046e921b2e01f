"""The HTTP server with clients that take their answers slowly, late or not at all."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from threading import Event, Thread
from time import sleep
from typing import TYPE_CHECKING, Any, Self

import pytest

from exporter.api import channel, limits
from exporter.api.server import HttpServer
from tests.peers.raw_clients import is_open
from tests.peers.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

# More than the kernel keeps for a client that does not read.
SIZE = 12_000_000
BODY = b"x" * SIZE
REQUEST = b"GET / HTTP/1.1\r\nHost: r\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n"


class Running:
    """A server of one large page, and its clients."""

    def __init__(self) -> None:
        self.calls = 0

    def __enter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0))
        self._address = listener.getsockname()
        self._server = HttpServer(self._answer, listener)
        self._stop = Event()
        self._thread = Thread(target=self._server.serve, args=(self._stop,))
        self._thread.start()
        self._clients = ExitStack()
        return self

    def __exit__(self, *_: object) -> None:
        self._clients.close()
        self._stop.set()
        self._server.wake()
        self._thread.join()
        self._server.drain()

    def client(self, request: bytes) -> socket.socket:
        client = self._clients.enter_context(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.connect(self._address)
        client.settimeout(30)
        client.sendall(request)
        return client

    def connections(self) -> list[channel.Channel]:
        return self._server._server.channels

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:  # noqa: ARG002 - WSGI
        self.calls += 1
        start_response("200 OK", [("Content-Length", str(SIZE))])
        return [BODY]


@pytest.fixture(autouse=True)
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_IDLE_WAKE_UP", 0.05)
    monkeypatch.setattr(limits, "_MOMENT", 0.2)


def received(client: socket.socket, pause: float = 0.0) -> int:
    """Read to the end, with a pause now and then, and return how many bytes came."""
    count = since = 0
    try:
        while piece := client.recv(1 << 16):
            count += len(piece)
            since += len(piece)
            if since > SIZE / 20:
                since = 0
                sleep(pause)
    except ConnectionResetError:
        pass
    return count


def test_a_client_that_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while without a byte taken its connection is closed, with what it left."""
    with Running() as running:
        monkeypatch.setattr(channel, "STALL_SECONDS", 0.3)
        client = running.client(REQUEST)
        wait_until(lambda: running.calls, "it is answered")
        sleep(1.5)

        assert received(client) < SIZE


def test_a_slow_client_gets_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who takes a little now and then has all the time it needs."""
    monkeypatch.setattr(channel, "STALL_SECONDS", 1.5)
    with Running() as running:
        assert received(running.client(LAST), pause=0.15) > SIZE


def test_an_idle_client_is_not_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has its answer may keep the connection."""
    monkeypatch.setattr(channel, "STALL_SECONDS", 0.3)
    with Running() as running:
        client = running.client(REQUEST)
        head = client.makefile("rb")
        while head.readline() != b"\r\n":
            pass
        assert len(head.read(SIZE)) == SIZE
        sleep(1)
        client.sendall(LAST)

        assert head.readline() == b"HTTP/1.1 200 OK\r\n"


def test_requests_wait_until_the_answer_before_them_is_taken() -> None:
    """However many a client sends at once, one answer waits for it; it gets all of them when it reads."""
    with Running() as running:
        client = running.client(REQUEST * 9 + LAST)
        wait_until(lambda: running.calls, "the first is answered")
        sleep(0.5)
        assert running.calls == 1

        assert received(client) > 10 * SIZE
        assert running.calls == 10


def test_what_waits_for_slow_clients_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is too much, those that have taken longest are let go; who came last is served."""
    monkeypatch.setattr(limits, "UNSENT_BYTES", 3 * SIZE)
    with Running() as running:
        clients = []
        for count in range(1, 7):
            clients.append(running.client(LAST))
            wait_until(lambda count=count: running.calls == count, "it is answered")
            sleep(0.3)
        sleep(0.5)
        taken = [received(client) > SIZE for client in clients]

    assert not taken[0]
    assert taken[-1]
    assert taken == sorted(taken)


@pytest.mark.parametrize(
    ("limit", "beginning"),
    [
        ("HEAD_SECONDS", b""),
        ("HEAD_SECONDS", b"GET / HTTP/1.1\r\nHost: "),
        ("BODY_SECONDS", b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n"),
        ("BODY_SECONDS", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n"),
    ],
    ids=["silent", "head", "body", "chunks"],
)
def test_a_request_that_drips_is_cut_off(monkeypatch: pytest.MonkeyPatch, limit: str, beginning: bytes) -> None:
    """A byte now and then does not keep a connection."""
    monkeypatch.setattr(limits, "_BUSY_WAKE_UP", 0.05)
    monkeypatch.setattr(channel, limit, 0.5)
    with Running() as running:
        client = running.client(beginning)
        wait_until(lambda: not is_open(client, b"x" if beginning else b""), "it is disconnected")
        assert running.calls == 0


def test_a_request_that_waits_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one behind a large answer that its client takes slowly, nor one that is being answered."""
    monkeypatch.setattr(limits, "_BUSY_WAKE_UP", 0.05)
    monkeypatch.setattr(channel, "HEAD_SECONDS", 0.3)
    with Running() as running:
        client = running.client(REQUEST + LAST[:20])
        wait_until(lambda: running.calls, "it is answered")
        sleep(1)
        client.sendall(LAST[20:])

        assert received(client) > 2 * SIZE


def test_an_idle_connection_is_closed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a time without a request, whatever else it sends."""
    monkeypatch.setattr(channel, "IDLE_SECONDS", 0.5)
    with Running() as running:
        client = running.client(REQUEST)
        read = 0
        while read < SIZE:
            read += len(client.recv(1 << 20))
        wait_until(lambda: not is_open(client, b"\r\n\r\n"), "it is disconnected")


def test_what_was_sent_is_not_kept() -> None:
    """A connection that is kept open holds nothing of its last answer."""
    with Running() as running:
        client = running.client(REQUEST)
        read = 0
        while read < SIZE:
            read += len(client.recv(1 << 20))
        (kept,) = running.connections()
        wait_until(lambda: not kept.requests, "it is idle again")

        assert [(buffer.buf, buffer.strbuf) for buffer in kept.outbufs] == [(None, b"")]
