"""Engines that cannot even be asked: no name, no connection, no trust. Each has its reason, in time."""

from __future__ import annotations

import socket
import socketserver
import ssl
from contextlib import ExitStack, contextmanager
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Final

import pytest
from pytest_httpserver import HTTPServer

from simulators.files import CERTIFICATE
from simulators.misbehaving.pages import PAGE, TEXT
from simulators.reading import samples
from simulators.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.harness.runtime import Runtime

TRUST: Final = {"SSL_CERT_FILE": str(CERTIFICATE)}
# Seconds that a loaded machine may take for what is due at once; far from the runtime's own timeout.
SLACK: Final = 20.0


def reasons_of(runtime: Runtime, *, timeout: float = PATIENCE) -> list[str]:
    """Scrape once, and return the reasons for which that failed."""
    page = samples(runtime.page(headers={"X-Prometheus-Scrape-Timeout-Seconds": str(timeout)}))
    errors = {series: value for series, value in page.items() if "scrape_errors_total" in series}
    return [series.split('"')[1] for series, value in errors.items() if value]


@contextmanager
def plain_engine() -> Iterator[int]:
    """Answer any first bytes as uvicorn answers a TLS handshake."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\nInvalid HTTP request received.")

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def tls_engine() -> Iterator[HTTPServer]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    with HTTPServer(host="0.0.0.0", ssl_context=context) as engine:
        engine.expect_request("/metrics").respond_with_data(PAGE, content_type=TEXT)
        yield engine


def test_a_name_that_nobody_has(start_runtime: Callable[..., Runtime]) -> None:
    """A host name that does not resolve is `dns`: the address is wrong, not the engine."""
    assert reasons_of(start_runtime("http://engine.invalid:8000")) == ["dns"]


def test_a_certificate_that_nobody_trusts(start_runtime: Callable[..., Runtime], tls_engine: HTTPServer) -> None:
    """An engine whose certificate no authority signed is not read: `tls`."""
    runtime = start_runtime(f"https://localhost:{tls_engine.port}")

    assert reasons_of(runtime) == ["tls"]
    assert not tls_engine.log


def test_a_certificate_for_another_name(start_runtime: Callable[..., Runtime], tls_engine: HTTPServer) -> None:
    """A trusted certificate that is not for the host is `tls`, too."""
    runtime = start_runtime(f"https://127.0.0.2:{tls_engine.port}", variables=TRUST)

    assert reasons_of(runtime) == ["tls"]


def test_a_certificate_of_an_own_authority(start_runtime: Callable[..., Runtime], tls_engine: HTTPServer) -> None:
    """With SSL_CERT_FILE the same engine is trusted, and read on one connection after another."""
    runtime = start_runtime(f"https://localhost:{tls_engine.port}", variables=TRUST)

    assert [reasons_of(runtime), reasons_of(runtime)] == [[], []]
    assert "vllm:num_requests_waiting{" in runtime.page()


def test_tls_asked_of_an_engine_that_has_none(start_runtime: Callable[..., Runtime]) -> None:
    """An https URL for an engine that speaks plain HTTP, and says that it does not understand, is `tls`."""
    with plain_engine() as port:
        assert reasons_of(start_runtime(f"https://localhost:{port}")) == ["tls"]


def test_a_handshake_that_does_not_end(start_runtime: Callable[..., Runtime]) -> None:
    """An engine that is silent in the handshake costs no more than the scraper's timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        runtime = start_runtime(f"https://127.0.0.1:{silent.getsockname()[1]}")
        started = monotonic()

        assert reasons_of(runtime, timeout=2) == ["timeout"]
        assert monotonic() - started < 2 + SLACK


def test_an_engine_too_busy_to_accept(start_runtime: Callable[..., Runtime]) -> None:
    """A connection that is never made costs no more than the scraper's timeout."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as busy, ExitStack() as queue:
        for _ in range(4):  # fill its queue; Linux lets in one more than the backlog
            client = queue.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(busy.getsockname())
        runtime = start_runtime(f"http://127.0.0.1:{busy.getsockname()[1]}")
        started = monotonic()

        assert reasons_of(runtime, timeout=2) == ["timeout"]
        assert monotonic() - started < 2 + SLACK
