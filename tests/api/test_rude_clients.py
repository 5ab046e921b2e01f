"""Clients that are rude, slow or many, and the end of the process: the others are still served."""

from __future__ import annotations

import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final, TypeAlias

import pytest
import requests

from exporter.api.channel import STALL_SECONDS
from exporter.api.places import SHARES, Lane
from exporter.api.server import THREADS
from simulators.engine.__main__ import Engine
from simulators.misbehaving.gated_engine import GatedEngine
from simulators.misbehaving.pages import PAGE, big_page
from simulators.page_server import PageServer
from simulators.reading import resident_memory, samples
from simulators.waiting import PATIENCE, wait_until
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Start: TypeAlias = "Callable[..., Runtime]"

PROBLEM: Final = "application/problem+json"
UP: Final = "kthena_runtime_engine_up"
SCRAPE: Final = b"GET /metrics HTTP/1.1\r\nHost: runtime\r\n\r\n"
HEALTH: Final = b"GET /health HTTP/1.1\r\nHost: runtime\r\n\r\n"
END: Final = b"Host: runtime\r\nConnection: close\r\n\r\n"
MANY: Final = 100
SCRAPES: Final = SHARES[Lane.SCRAPES].places
# Seconds that a loaded machine may take for what is due at once: before a client that stalls is disconnected.
SLACK: Final = STALL_SECONDS * 0.9
# Of one page, what a client may ask for in a packet: 70 MB.
PIPELINED: Final = 200
BIG_PAGE: Final = 370_000


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with Engine() as engine, Runtime(engine.url) as running:
        yield running


def address(runtime: Runtime) -> tuple[str, int]:
    host, _, port = runtime.url.removeprefix("http://").partition(":")
    return host, int(port)


def connect(runtime: Runtime) -> socket.socket:
    return socket.create_connection(address(runtime), timeout=PATIENCE)


def status_of(runtime: Runtime, request: bytes) -> int:
    """Send bytes, and return the status of what comes back."""
    with connect(runtime) as client:
        client.sendall(request)
        return int(client.makefile("rb").readline().split()[1])


def refuses(runtime: Runtime) -> bool:
    try:
        socket.create_connection(address(runtime), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, id="a TLS handshake"),
        pytest.param(b"hello\r\n\r\n", 400, id="a word"),
        pytest.param(b"G@T / HTTP/1.1\r\n" + END, 400, id="no method"),
        pytest.param(b"WEBSOCKET / HTTP/1.1\r\n" + END, 400, id="a method that HTTP does not have"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\n" + END, 400, id="no resource"),
        pytest.param(b"GET health HTTP/1.1\r\n" + END, 400, id="a path without a slash"),
        pytest.param(b"GET http://host/health HTTP/1.1\r\n" + END, 200, id="a URL"),
        pytest.param(b"GET ftp://host/health HTTP/1.1\r\n" + END, 400, id="a URL of another scheme"),
        pytest.param(b"CONNECT host:80 HTTP/1.1\r\n" + END, 400, id="a proxy's request"),
        pytest.param(b"GET /\xff\xfe HTTP/1.1\r\n" + END, 400, id="a path that is no ASCII"),
        pytest.param(b"GET /metrics?name[]=%ff%00 HTTP/1.1\r\n" + END, 200, id="a name that is no UTF-8"),
        pytest.param(b"GET /metrics?" + b"name[]=x&" * 3_000 + b" HTTP/1.1\r\n" + END, 200, id="3,000 names"),
        pytest.param(b"GET /" + b"a" * 30_000 + b" HTTP/1.1\r\n" + END, 404, id="a long path"),
        pytest.param(b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n" + END, 431, id="a path too long"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"a" * 1_000_000 + b"\r\n" + END, 431, id="a header too long"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"X-Y: z\r\n" * 100_000 + END, 431, id="too many headers"),
        pytest.param(b"POST /health HTTP/1.1\r\nContent-Length: many\r\n" + END, 400, id="no length"),
        pytest.param(b"POST /health HTTP/1.1\r\nContent-Length: 9999999999\r\n" + END, 413, id="a body too long"),
        pytest.param(b"POST / HTTP/1.1\r\nTransfer-Encoding: rot13\r\n" + END, 501, id="an unknown encoding"),
    ],
)
def test_a_request_that_makes_no_sense_is_answered(runtime: Runtime, request_bytes: bytes, status: int) -> None:
    """Each gets its status, and whoever comes next is served."""
    assert status_of(runtime, request_bytes) == status
    assert runtime.get("/health").status_code == 200


def test_large_requests_leave_no_memory_behind(runtime: Runtime) -> None:
    """What is refused for its size is not kept."""
    status_of(runtime, b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n" + END)
    before = resident_memory(runtime.pid)
    for _ in range(20):
        status_of(runtime, b"GET / HTTP/1.1\r\nX: " + b"a" * 1_000_000 + b"\r\n" + END)

    assert resident_memory(runtime.pid) < before + 8_000_000


def test_clients_that_hang_up_are_let_go(runtime: Runtime) -> None:
    """A scraper that leaves before its answer is no trouble, nor a line in the log."""
    lines = runtime.log.count("\n")
    for _ in range(50):
        with connect(runtime) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: runtime\r\n\r\n")

    assert samples(runtime.page())[UP] == 1
    assert runtime.log.count("\n") == lines


def test_requests_come_one_behind_the_other(runtime: Runtime) -> None:
    """A client may send the next request before the answer to the last one is there."""
    with connect(runtime) as client:
        client.sendall(HEALTH * 3 + b"GET /version HTTP/1.1\r\n" + END)
        answers = client.makefile("rb").read()

    assert answers.count(b"HTTP/1.1 200 OK") == 4
    assert answers.rindex(b'"python"') > answers.rindex(b'"healthy"')


def test_a_client_that_has_said_all_gets_its_answer(start_runtime: Start) -> None:
    """It may shut its side while the engine is still asked, with more requests behind the one under way."""
    with GatedEngine() as engine:
        runtime = start_runtime(engine.url)
        with connect(runtime) as client:
            client.sendall(SCRAPE)
            assert engine.wait_for_requests(1)
            client.sendall(HEALTH)
            client.shutdown(socket.SHUT_WR)
            # Served by the same loop: what came before it has been seen.
            assert status_of(runtime, b"GET /health HTTP/1.1\r\n" + END) == 200
            engine.gate.set()
            answers = client.makefile("rb").read()

    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert answers.index(UP.encode()) < answers.index(b'"healthy"')


def test_a_client_that_leaves_in_the_middle_is_let_go(start_runtime: Start) -> None:
    """One that is gone before the engine answers leaves no connection and no trouble behind."""
    with GatedEngine() as engine:
        runtime = start_runtime(engine.url)
        with connect(runtime) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(SCRAPE)
            assert engine.wait_for_requests(1)
        engine.gate.set()

        assert samples(runtime.page())[UP] == 1
        assert "broken off" not in runtime.log


def test_a_body_is_asked_for_behind_another_request(start_runtime: Start) -> None:
    """A client that waits for 100 Continue gets it also when its request came while another was answered."""
    body = b"{}"
    post = b"POST /v1/unload_lora_adapter HTTP/1.1\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
    with GatedEngine() as engine:
        runtime = start_runtime(engine.url)
        with connect(runtime) as client:
            client.sendall(SCRAPE)
            assert engine.wait_for_requests(1)
            client.sendall(post + b"Content-Length: %d\r\n" % len(body) + END)
            assert status_of(runtime, b"GET /health HTTP/1.1\r\n" + END) == 200
            engine.gate.set()
            with client.makefile("rb") as answers:
                lines = iter(answers.readline, b"")
                assert b"HTTP/1.1 100 Continue\r\n" in lines
                client.sendall(body)
                assert b"HTTP/1.1 400 Bad Request\r\n" in lines


@pytest.mark.parametrize("beginning", [b"", b"GET /metrics HTTP/1.1\r\nHost: runt"], ids=["silent", "in mid-request"])
def test_clients_that_send_nothing_more_do_not_matter(start_runtime: Start, beginning: bytes) -> None:
    """A hundred connections that wait for a request to end keep nobody from a scrape."""
    with Engine() as engine, ExitStack() as clients:
        runtime = start_runtime(engine.url)
        for _ in range(MANY):
            clients.enter_context(connect(runtime)).sendall(beginning)

        with connect(runtime) as scraper:
            scraper.sendall(b"GET /metrics HTTP/1.1\r\n" + END)
            assert scraper.recv(15) == b"HTTP/1.1 200 OK"


def test_idle_clients_do_not_matter(start_runtime: Start) -> None:
    """A hundred clients that keep their connection after an answer keep nobody from a scrape."""
    with Engine() as engine, ExitStack() as clients:
        runtime = start_runtime(engine.url)
        for _ in range(MANY):
            client = clients.enter_context(connect(runtime))
            client.sendall(HEALTH)
            assert client.recv(15) == b"HTTP/1.1 200 OK"

        with connect(runtime) as scraper:
            scraper.sendall(b"GET /metrics HTTP/1.1\r\n" + END)
            assert scraper.recv(15) == b"HTTP/1.1 200 OK"


def test_clients_that_do_not_read_do_not_matter(start_runtime: Start) -> None:
    """More of them than threads, each asking for 70 MB, take neither the threads nor the memory; the end is in time."""
    page = b"".join(big_page(BIG_PAGE))
    with PageServer({"/metrics": page}) as engine, ExitStack() as clients:
        runtime = start_runtime(engine.url)
        for _ in range(THREADS + 8):
            client = clients.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            client.connect(address(runtime))
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost:r\r\n\r\n" * PIPELINED)

        for _ in range(12):
            started = monotonic()
            assert status_of(runtime, b"GET /health HTTP/1.1\r\n" + END) == 200
            assert monotonic() - started < SLACK
            assert resident_memory(runtime.pid) < 250_000_000
            sleep(0.25)
        assert samples(runtime.page())[UP] == 1
        code, seconds = runtime.stop()
    assert code == 0
    assert seconds < 10


def test_slow_scrapes_do_not_hold_up_the_probes(start_runtime: Start) -> None:
    """While more scrapers wait for the engine than there are threads, the liveness probe is answered at once."""
    with GatedEngine() as engine, ThreadPoolExecutor(12) as scrapers:
        runtime = start_runtime(engine.url)
        pages = [scrapers.submit(runtime.page) for _ in range(12)]
        assert engine.wait_for_requests(1)
        try:
            for _ in range(20):
                started = monotonic()
                assert status_of(runtime, b"GET /health HTTP/1.1\r\n" + END) == 200
                assert monotonic() - started < SLACK
        finally:
            engine.gate.set()

        assert [samples(page.result(timeout=PATIENCE))[UP] for page in pages] == [1] * 12


def test_a_flood_of_scrapes_is_dammed(start_runtime: Start) -> None:
    """Beyond the places for them, scrapes are told at once to come later; those that wait get their page."""
    excess = 4
    with GatedEngine() as engine, ThreadPoolExecutor(SCRAPES + excess) as scrapers:
        url = f"{start_runtime(engine.url).url}/metrics"
        answers = [scrapers.submit(requests.get, url, timeout=PATIENCE) for _ in range(SCRAPES + excess)]
        wait_until(lambda: sum(answer.done() for answer in answers) == excess, "some are sent away")
        refused = [answer.result() for answer in answers if answer.done()]
        engine.gate.set()

        assert {(answer.status_code, answer.headers["Content-Type"]) for answer in refused} == {(503, PROBLEM)}
        assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
        assert sorted(answer.result().status_code for answer in answers) == [200] * SCRAPES + [503] * excess


def test_the_end_waits_for_a_scrape_under_way(start_runtime: Start) -> None:
    """SIGTERM closes the port at once, lets the scrape finish, and ends with code 0."""
    with GatedEngine() as engine, ThreadPoolExecutor(1) as scraper:
        runtime = start_runtime(engine.url)
        page = scraper.submit(runtime.page)
        assert engine.wait_for_requests(1)
        runtime.process.terminate()
        wait_until(lambda: refuses(runtime), "the port is closed")
        engine.gate.set()

        assert page.result(timeout=PATIENCE).startswith(PAGE.decode())
        assert runtime.process.wait(timeout=PATIENCE) == 0


def test_the_end_does_not_wait_for_ever(start_runtime: Start) -> None:
    """An engine that does not answer delays the end by seconds, not by its timeout."""
    with GatedEngine() as engine, ThreadPoolExecutor(1) as scraper:
        runtime = start_runtime(engine.url, "--request-timeout", "600")
        scraper.submit(runtime.page)
        assert engine.wait_for_requests(1)

        code, seconds = runtime.stop()
    assert code == 0
    assert seconds < 10


def test_idle_clients_do_not_delay_the_end(start_runtime: Start) -> None:
    """Connections that are kept for later are closed, not waited for."""
    with Engine() as engine, ExitStack() as clients:
        runtime = start_runtime(engine.url)
        for beginning in (HEALTH, b"GET /metr", b""):
            clients.enter_context(connect(runtime)).sendall(beginning)
        runtime.get("/health")

        code, seconds = runtime.stop()
    assert code == 0
    assert seconds < 10
    assert "cut off" not in runtime.log
