"""Requests that are costly to parse, from many clients: memory stays small, and /health goes first."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final

import pytest

from exporter.api.heads import MAX_HEAD_BYTES, MAX_HEAD_LINES
from simulators.misbehaving.clients import CLOSING, Crowd, many_descriptors, request, seconds_of_health, status_of
from simulators.misbehaving.gated_engine import GatedEngine
from tests.harness.memory import MIB, Watch
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.faults, pytest.mark.slow]

CLIENTS: Final = 900
# One read of the server's.
READ_BYTES: Final = 8192
SMALL: Final = b"GET /q HTTP/1.1\r\n\r\n"
PIPELINED: Final = SMALL * (READ_BYTES // len(SMALL))
CHUNKED: Final = b"POST /q HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
TINY_CHUNKS: Final = CHUNKED + b"1\r\nx\r\n" * 1_300 + b"0\r\n\r\n"


@pytest.fixture(scope="module", autouse=True)
def descriptors() -> Iterator[None]:
    with many_descriptors(4096):
        yield


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with GatedEngine() as engine, Runtime(engine.url) as running:
        engine.gate.set()
        yield running


def head(lines: int) -> bytes:
    """Return a request with so many lines: the first one, and headers."""
    headers = "".join(f"X-{number}: 1\r\n" for number in range(lines - 2))
    return request("GET", "/health", headers=headers + CLOSING).replace(b"Host: r\r\n", b"")


def test_many_requests_in_one_read(runtime: Runtime) -> None:
    """Each waits as it came until the one in front of it is answered; another client does not wait for all of them."""
    with Watch(runtime.pid) as watch, Crowd(runtime.url) as crowd:
        crowd.join(CLIENTS, PIPELINED)
        seconds_of_health(runtime.url)
        answers = sum(client.recv(1 << 20).count(b"HTTP/1.1 404 ") for client in crowd.members[-10:])

    assert answers < 10 * (len(PIPELINED) // len(SMALL))
    assert max(watch.peaks.values()) < 80 * MIB


def test_the_requests_in_one_read_are_answered_in_their_order(runtime: Runtime) -> None:
    with Crowd(runtime.url) as crowd:
        last = request("GET", "/version", headers=CLOSING)
        (client,) = crowd.join(1, SMALL * 20 + b"\r\n \r\n" + request("GET", "/health") + last)
        answers = client.makefile("rb").read()

    assert answers.count(b"HTTP/1.1 404 ") == 20
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert answers.rindex(b"HTTP/1.1 404 ") < answers.index(b"HTTP/1.1 200 ")


def test_many_tiny_chunks(runtime: Runtime) -> None:
    """A body of very small chunks takes the server long; a short request goes in front of it."""
    with Watch(runtime.pid) as watch, Crowd(runtime.url) as crowd:
        crowd.join(CLIENTS, TINY_CHUNKS)
        seconds_of_health(runtime.url)
        answered, _, _ = select.select(crowd.members, [], [], 0)

    assert len(answered) < CLIENTS
    assert max(watch.peaks.values()) < 80 * MIB


@pytest.mark.parametrize(("lines", "status"), [(MAX_HEAD_LINES, 200), (MAX_HEAD_LINES + 1, 431)])
def test_the_lines_of_a_head_are_limited(runtime: Runtime, lines: int, status: int) -> None:
    assert status_of(runtime.url, head(lines)) == status


@pytest.mark.parametrize(("size", "status"), [(MAX_HEAD_BYTES - 200, 200), (MAX_HEAD_BYTES, 431)])
def test_the_bytes_of_a_head_are_limited(runtime: Runtime, size: int, status: int) -> None:
    assert status_of(runtime.url, request("GET", "/health", headers=f"X: {'x' * size}\r\n{CLOSING}")) == status
