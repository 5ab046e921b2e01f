"""The HTTP server with clients that take their answers slowly, late or not at all."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, suppress
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

import pytest

from exporter.api import channel, limits, server
from exporter.api.server import HttpServer
from simulators.misbehaving.clients import is_open
from simulators.waiting import PATIENCE, wait_until

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
        self.gate = Event()
        self.gate.set()

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
        client.settimeout(PATIENCE)
        client.sendall(request)
        return client

    def connections(self) -> list[channel.Channel]:
        return self._server._server.channels

    @property
    def looked_at(self) -> float:
        """When the server looked at all of its connections."""
        return self._server._limits._looked_at

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:  # noqa: ARG002 - WSGI
        self.calls += 1
        self.gate.wait()
        start_response("200 OK", [("Content-Length", str(SIZE))])
        return [BODY]


class Clock:
    """The time, which passes faster when a test says so."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return monotonic() + self._ahead

    def jump(self, seconds: float) -> None:
        self._ahead += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time as the server knows it; its loop looks around often."""
    found = Clock()
    monkeypatch.setattr(server, "monotonic", found)
    monkeypatch.setattr(channel, "monotonic", found)
    monkeypatch.setattr(limits, "_IDLE_WAKE_UP", 0.05)
    monkeypatch.setattr(limits, "_BUSY_WAKE_UP", 0.05)
    return found


def pass_time(running: Running, clock: Clock, seconds: float) -> None:
    """Let time pass, and wait until the server has looked at its connections afterwards."""
    clock.jump(seconds)
    then = clock()
    wait_until(lambda: running.looked_at > then, "the server has looked at its connections")


def stuck(running: Running) -> bool:
    """Tell whether the server can send nothing more of its last answer: the kernel keeps no more of it."""
    before = [one.total_outbufs_len for one in running.connections()]
    Event().wait(0.05)
    return before[-1] > 0 and [one.total_outbufs_len for one in running.connections()] == before


def received(client: socket.socket) -> int:
    """Read to the end, and return how many bytes came."""
    count = 0
    with suppress(ConnectionResetError):
        while piece := client.recv(1 << 20):
            count += len(piece)
    return count


def read_answer(client: socket.socket) -> None:
    """Read one answer, and no more."""
    with client.makefile("rb") as answer:
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
        while answer.readline() != b"\r\n":
            pass
        assert len(answer.read(SIZE)) == SIZE


def test_a_client_that_takes_nothing_is_let_go(clock: Clock) -> None:
    """After a while without a byte taken its connection is closed, with what it left."""
    with Running() as running:
        client = running.client(REQUEST)
        wait_until(lambda: running.calls and stuck(running), "it is answered")

        def is_let_go() -> bool:
            pass_time(running, clock, channel.STALL_SECONDS + 1)
            return not running.connections()

        wait_until(is_let_go, "it is disconnected")
        assert received(client) < SIZE


def test_a_slow_client_gets_its_answer(clock: Clock) -> None:
    """Who takes a little now and then has all the time it needs."""
    with Running() as running:
        client = running.client(LAST)
        wait_until(lambda: running.calls and stuck(running), "it is answered")
        (slow,) = running.connections()
        count = 0
        while left := slow.total_outbufs_len:
            while slow.total_outbufs_len == left:
                count += len(client.recv(1 << 16))
            pass_time(running, clock, channel.STALL_SECONDS * 0.7)

        assert count + received(client) > SIZE


def test_an_idle_client_is_not_let_go(clock: Clock) -> None:
    """Who has its answer may keep the connection."""
    with Running() as running:
        client = running.client(REQUEST)
        read_answer(client)
        pass_time(running, clock, channel.STALL_SECONDS + 1)

        client.sendall(REQUEST)
        read_answer(client)


def test_requests_wait_until_the_answer_before_them_is_taken(clock: Clock) -> None:
    """However many a client sends together, one answer waits for it; it gets all of them when it reads."""
    with Running() as running:
        client = running.client(REQUEST * 9 + LAST)
        wait_until(lambda: running.calls and stuck(running), "the first is answered")
        pass_time(running, clock, 1)
        assert running.calls == 1

        assert received(client) > 10 * SIZE
        assert running.calls == 10


def test_what_waits_for_slow_clients_is_bounded(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """When it is too much, those that have taken longest are let go; who came last is served."""
    monkeypatch.setattr(limits, "UNSENT_BYTES", 3 * SIZE)
    monkeypatch.setattr(channel, "STALL_SECONDS", 3600.0)
    with Running() as running:
        clients = []
        for count in range(1, 7):
            clients.append(running.client(LAST))

            def is_answered(count: int = count) -> bool:
                return running.calls == count and stuck(running)

            wait_until(is_answered, "it is answered")
            pass_time(running, clock, limits._MOMENT * 2)
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
    monkeypatch.setattr(channel, limit, 0.5)
    with Running() as running:
        client = running.client(beginning)
        wait_until(lambda: not is_open(client, b"x" if beginning else b""), "it is disconnected")
        assert running.calls == 0


def test_a_request_that_waits_is_not_late(clock: Clock) -> None:
    """Neither one behind a large answer that its client takes slowly, nor one that is being answered."""
    with Running() as running:
        client = running.client(REQUEST + LAST[:20])
        wait_until(lambda: running.calls and stuck(running), "it is answered")
        pass_time(running, clock, channel.HEAD_SECONDS + 1)
        client.sendall(LAST[20:])

        assert received(client) > 2 * SIZE


def test_an_idle_connection_is_closed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a time without a request, whatever else it sends."""
    monkeypatch.setattr(channel, "IDLE_SECONDS", 0.5)
    with Running() as running:
        client = running.client(REQUEST)
        read_answer(client)
        wait_until(lambda: not is_open(client, b"\r\n\r\n"), "it is disconnected")


def test_what_was_sent_is_not_kept() -> None:
    """A connection that is kept open holds nothing of its last answer."""
    with Running() as running:
        client = running.client(REQUEST)
        read_answer(client)
        (kept,) = running.connections()
        # The end of an answer may be with the client before the loop has looked at what is left.
        wait_until(lambda: [(one.buf, one.strbuf) for one in kept.outbufs] == [(None, b"")], "nothing is kept")


def test_an_answer_that_comes_after_the_end_disturbs_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its thread wakes the loop, by a descriptor that is not given to another file meanwhile."""
    monkeypatch.setattr(server, "DRAIN_SECONDS", 0.1)
    before = set(threading.enumerate())
    with Running() as running:
        running.gate.clear()
        running.client(LAST)
        wait_until(lambda: running.calls, "it is being answered")
    running.gate.set()
    wait_until(lambda: set(threading.enumerate()) <= before, "its thread has ended")
    running._server._server.trigger.close()

    assert "were cut off" in caplog.text
    assert "failed" not in caplog.text
