"""The client that fetches the engine's page: its connections, the places it is led to, and the time it takes."""

from __future__ import annotations

import itertools
import socket
from contextlib import ExitStack, closing, contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from exporter.engine.client import EngineClient
from exporter.page.errors import Reason, ScrapeError
from simulators.misbehaving.engine import BadEngine, Behaviour
from simulators.misbehaving.pages import PAGE, TEXT, response
from simulators.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from simulators.misbehaving.exchange import Exchange

KEPT = {"Connection": "keep-alive"}
SLACK = 20.0


def client(url: str) -> EngineClient:
    return EngineClient(f"{url}/metrics", max_bytes=1_000_000)


def found(location: str, body: bytes = b"") -> bytes:
    return response(body, status="302 Found", content_type=TEXT, headers={**KEPT, "Location": location})


def keeping(answer: Callable[[str], bytes]) -> Behaviour:
    """Answer what a function makes of the path, and keep the connection."""

    def act(exchange: Exchange, _: int) -> None:
        exchange.send(answer(exchange.path))
        exchange.keep_open = True

    return Behaviour("answers and waits for more", act)


@contextmanager
def busy() -> Iterator[tuple[str, int]]:
    """Give an address at which no connection is ever made: its queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as queue:
        for _ in range(4):
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Let every name have these addresses."""

    def getaddrinfo(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_redirects_to_ever_new_logins_share_a_connection() -> None:
    """An origin is scheme, host and port: what stands before the @ makes no new one."""
    logins = itertools.count()
    home = [""]
    behaviour = keeping(
        lambda path: response(PAGE, headers=KEPT) if path == "/there" else found(home[0].format(next(logins)))
    )
    with BadEngine(behaviour) as engine, closing(client(engine.url)) as fetcher:
        home[0] = engine.url.replace("//", "//{}@") + "/there"
        assert [fetcher.fetch(SLACK).body for _ in range(5)] == [PAGE] * 5

        assert len(engine._open) == 1


def test_connections_of_earlier_redirects_are_closed() -> None:
    """An engine that leads elsewhere each time leaves one connection at the last place, and its own."""
    page = keeping(lambda _: response(PAGE, headers=KEPT))
    with ExitStack() as running:
        places = [running.enter_context(BadEngine(page)) for _ in range(5)]
        locations = iter([f"{place.url}/metrics" for place in places])
        engine = running.enter_context(BadEngine(keeping(lambda _: found(next(locations)))))
        fetcher = running.enter_context(closing(client(engine.url)))
        for _ in places:
            assert fetcher.fetch(SLACK).body == PAGE

        wait_until(lambda: not any(place._open for place in places[:-1]), "the connections are closed")
        assert [len(place._open) for place in (places[-1], engine)] == [1, 1]


def test_the_rest_of_a_long_redirect_is_no_answer() -> None:
    """Its body is not read to the end: what is left of it must not be taken for the page."""
    body = bytes(1 << 18) + response(b"forged 1\n")
    behaviour = keeping(lambda path: response(PAGE, headers=KEPT) if path == "/there" else found("/there", body))
    with BadEngine(behaviour) as engine, closing(client(engine.url)) as fetcher:
        assert [fetcher.fetch(SLACK).body for _ in range(2)] == [PAGE, PAGE]

        assert engine.requests == 4


def test_many_addresses_have_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many addresses a name has, all of them together get the time of one fetch."""
    with busy() as address:
        resolve_to(monkeypatch, *[address] * 20)
        started = monotonic()
        with pytest.raises(ScrapeError) as error:
            client("http://engine").fetch(1.0)

    assert error.value.reason is Reason.TIMEOUT
    assert monotonic() - started < SLACK


def test_an_address_that_does_not_answer_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is found behind one that takes no connection and one that refuses."""
    with busy() as silent, BadEngine("refused") as away, BadEngine.serving_page(PAGE) as engine:
        ports = [int(place.url.rpartition(":")[2]) for place in (away, engine)]
        resolve_to(monkeypatch, silent, *[("127.0.0.1", port) for port in ports])

        assert client("http://engine").fetch(6.0).body == PAGE
