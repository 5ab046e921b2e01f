"""Very many connections, slow ones, and no descriptors left: memory stays small, and /health is answered."""

from __future__ import annotations

import resource
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

import pytest

from simulators.misbehaving.clients import Crowd, connect, many_descriptors, request, seconds_of_health
from simulators.misbehaving.gated_engine import GatedEngine
from simulators.misbehaving.pages import big_page
from simulators.page_server import PageServer
from simulators.waiting import wait_until
from tests.harness.memory import MIB, Watch
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

pytestmark = [pytest.mark.faults, pytest.mark.slow]

PAGE_BYTES: Final = 1_670_000
# They made the runtime grow to 227 MB when their pages were kept.
READERS: Final = 100
# More than the runtime has room for.
MANY: Final = 1_050
ROOM: Final = 1_000
SLACK: Final = 5.0
HEALTH: Final = request("GET", "/health")
BEGINNING: Final = b"GET /health HTTP/1.1\r\nX: "


@pytest.fixture(scope="module", autouse=True)
def descriptors() -> Iterator[None]:
    with many_descriptors(4096):
        yield


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with GatedEngine() as engine, Runtime(engine.url) as running:
        engine.gate.set()
        yield running


def read_answer(client: socket.socket) -> int:
    """Read one answer, and return how long its body is."""
    with client.makefile("rb") as reader:
        lines = iter(reader.readline, b"\r\n")
        length = next(int(line.split()[1]) for line in lines if line.lower().startswith(b"content-length"))
        for _ in lines:
            pass
        return len(reader.read(length))


def test_connections_that_have_read_a_large_page_cost_little() -> None:
    """The page that a connection has read is not kept, while the connection is."""
    page = b"".join(big_page(PAGE_BYTES))
    with (
        PageServer({"/metrics": page}) as engine,
        Runtime(engine.url) as runtime,
        Watch(runtime.pid) as watch,
        Crowd(runtime.url) as crowd,
    ):
        for _ in range(READERS):
            assert read_answer(*crowd.join(1, request("GET", "/metrics"))) > PAGE_BYTES

    assert max(watch.peaks.values()) < 80 * MIB


@pytest.mark.parametrize("raw", [HEALTH, BEGINNING, b""], ids=["idle", "dripping", "silent"])
def test_more_connections_than_there_is_room_for(runtime: Runtime, raw: bytes) -> None:
    """The oldest idle one goes, and the others are served; a client that only drips is let go of."""
    with Watch(runtime.pid) as watch, Crowd(runtime.url) as crowd:
        crowd.join(MANY, raw)
        assert seconds_of_health(runtime.url) < SLACK
        newest = crowd.members[-1]
        newest.sendall(b"\r\n\r\n" + HEALTH)
        assert newest.recv(15) == b"HTTP/1.1 200 OK"
        if raw is not HEALTH:
            wait_until(lambda: crowd.say(b"x") == 0, "all are disconnected", every=0.5)

        assert seconds_of_health(runtime.url) < SLACK
    assert runtime.log.count("no room for another client") == 1
    assert max(watch.peaks.values()) < 80 * MIB


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(BEGINNING + b"x" * 32_000, id="heads"),
        pytest.param(b"POST /health HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 999_000, id="bodies"),
    ],
)
def test_requests_that_never_end_are_bounded(runtime: Runtime, raw: bytes) -> None:
    """However many clients send nearly all of a large request, only some of them are kept."""
    with Watch(runtime.pid) as watch, Crowd(runtime.url) as crowd:
        crowd.join(min(200_000_000 // len(raw), ROOM), b"")
        wait_until(lambda: crowd.say(raw) < len(crowd.members), "some are disconnected")
        assert seconds_of_health(runtime.url) < SLACK

    assert max(watch.peaks.values()) < 100 * MIB


def allow_descriptors(pid: int, limit: int) -> None:
    """Let a process have descriptors below `limit` only."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))


def descriptors_of(pid: int) -> set[int]:
    return {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}


def test_out_of_descriptors() -> None:
    """One line says so, however long it lasts; clients that waited are served when there are descriptors again."""
    # An engine without adapters: nothing but clients takes descriptors, and gives them back.
    with GatedEngine() as engine, Runtime(engine.url, engine="tgi") as runtime:
        taken = descriptors_of(runtime.pid)
        allow_descriptors(runtime.pid, min(set(range(len(taken) + 1)) - taken))
        with connect(runtime.url) as client:
            client.sendall(HEALTH)
            wait_until(lambda: "no client can be accepted" in runtime.log, "it is logged")
            started = monotonic()
            wait_until(lambda: monotonic() > started + 3, "it has tried again")
            allow_descriptors(runtime.pid, 1024)

            assert client.recv(15) == b"HTTP/1.1 200 OK"
    assert runtime.log.count("no client can be accepted") == 1
    assert runtime.log.count("\n") < 5, runtime.log


def test_idle_connections_give_their_descriptors_to_new_ones(runtime: Runtime) -> None:
    """With no descriptor left, the oldest idle connection is closed, and every new client is answered."""
    allow_descriptors(runtime.pid, max(descriptors_of(runtime.pid)) + 5)
    with Crowd(runtime.url) as crowd:
        for _ in range(50):
            (client,) = crowd.join(1, HEALTH)
            assert read_answer(client)
        assert crowd.members[0].recv(1) == b""
        allow_descriptors(runtime.pid, 1024)

    assert runtime.log.count("no room for another client") == 1
