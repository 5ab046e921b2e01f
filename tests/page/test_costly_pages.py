"""Pages that are as large as is allowed, in bytes, lines or families, and pages that are larger."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import pytest
import requests

from exporter.page.cost import FAMILY, LINE
from simulators.misbehaving.engine import BadEngine, Behaviour
from simulators.misbehaving.pages import response
from simulators.reading import samples
from simulators.waiting import wait_until
from tests.harness.memory import MIB, Watch, limited
from tests.harness.runtime import Runtime
from tests.page.costly_pages import SHAPES

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.faults, pytest.mark.slow]

# The default of --max-scrape-bytes, for which the memory limit in deploy/sidecar.yaml is enough.
LIMIT: Final = 16 * MIB
MEMORY: Final = 256 * MIB
UP: Final = "kthena_runtime_engine_up"
PATIENCE: Final = {"X-Prometheus-Scrape-Timeout-Seconds": "100"}
IDENTITY: Final = PATIENCE | {"Accept-Encoding": "identity"}
GZIP: Final = PATIENCE | {"Accept-Encoding": "gzip"}
SELECTED: Final = f"/metrics?name[]=a&name[]=f1&name[]=vllm:num_requests_waiting&name[]={UP}"
# What an HA pair of Prometheus, an autoscaler and a curious person ask for at the same time.
READERS: Final = (
    ("/metrics", GZIP),
    ("/metrics", GZIP),
    (SELECTED, GZIP),
    (SELECTED, IDENTITY),
    ("/metrics", IDENTITY),
)


class Turn:
    """An engine that serves the page whose turn it is."""

    def __init__(self) -> None:
        self.answer = b""

    def __call__(self) -> BadEngine:
        return BadEngine(Behaviour("serves one page after another", lambda exchange, _: exchange.send(self.answer)))

    def serve(self, name: str, limit: int = LIMIT) -> None:
        """Serve a page of this shape that costs nearly `limit`."""
        self.answer = response(SHAPES[name].page(limit), content_type=SHAPES[name].content_type)


@contextmanager
def confined(turn: Turn, *arguments: str) -> Iterator[Runtime]:
    """Start a runtime under the memory limit, and check what it took."""
    with (
        limited(MEMORY) as group,
        turn() as engine,
        Runtime(engine.url, *arguments, group=group) as runtime,
        Watch(runtime.pid) as watch,
    ):
        yield runtime
    assert max(watch.peaks.values()) < MEMORY
    assert watch.proportional < MEMORY


def read(url: str, headers: dict[str, str]) -> int:
    """Read an answer as it is sent, and forget it; return its size."""
    with requests.Session() as session:
        session.trust_env = False
        with session.get(url, headers=headers, stream=True, timeout=110) as answer:
            assert answer.status_code == 200
            return sum(map(len, iter(lambda: answer.raw.read(1 << 16), b"")))


def own(runtime: Runtime) -> dict[str, float]:
    """Scrape, and return some of the runtime's own series."""
    names = ("engine_up", "engine_scrape_errors_total", "engine_scrape_samples")
    query = "&".join(f"name[]=kthena_runtime_{name}" for name in names)
    return samples(runtime.page(f"/metrics?{query}", headers=PATIENCE))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_page_that_is_allowed_fits_into_memory(shape: str) -> None:
    """Whatever fills it, however it is asked for, and whatever page was there before."""
    turn = Turn()
    with confined(turn) as runtime, ThreadPoolExecutor(len(READERS)) as pool:
        turn.serve("a long HELP")
        assert own(runtime)[UP] == 1
        turn.serve(shape)
        assert own(runtime)[UP] == 1, runtime.log
        assert all(pool.map(lambda reader: read(runtime.url + reader[0], reader[1]), READERS))


@pytest.mark.parametrize("shape", ["very short lines", "families", "a long HELP", "OpenMetrics"])
def test_a_page_that_costs_more_is_refused(shape: str) -> None:
    """The page, the log and /ready say so, and what is counted."""
    turn = Turn()
    with confined(turn) as runtime:
        turn.serve(shape, 4 * LIMIT)
        page = own(runtime)
        ready = runtime.get("/ready").json()["checks"]["engine"]

    assert page[UP] == 0
    assert page['kthena_runtime_engine_scrape_errors_total{reason="too_large"}'] == 1
    assert (ready["reason"], "--max-scrape-bytes" in ready["detail"]) == ("too_large", True)
    assert runtime.log.count("too_large") == 1


def test_forty_megabytes_of_short_lines_are_refused() -> None:
    """They took 2 GB."""
    turn = Turn()
    turn.answer = response(b"a 1\n" * 10_000_000)
    with confined(turn) as runtime:
        page = own(runtime)

    assert page['kthena_runtime_engine_scrape_errors_total{reason="too_large"}'] == 1


def test_a_page_of_fifty_thousand_lines_is_allowed() -> None:
    """As large as engines' pages get: 3.9 MB, 500 families."""
    line = b'vllm:request_latency_of_family_%03d_seconds{engine="0",model_name="demo",n="%03d"} 1.0\n'
    body = b"".join(line % (family, number) for family in range(500) for number in range(100))
    assert len(body) + 50_000 * LINE + 500 * FAMILY < LIMIT / 2
    turn = Turn()
    turn.answer = response(body)
    with confined(turn) as runtime:
        page = own(runtime)

    assert (page[UP], page["kthena_runtime_engine_scrape_samples"]) == (1, 50_000)


def test_a_larger_limit_allows_a_larger_page() -> None:
    """With more memory for it."""
    turn = Turn()
    turn.serve("very short lines", 2 * LIMIT)
    with turn() as engine, Runtime(engine.url, "--max-scrape-bytes", "32Mi") as runtime:
        assert own(runtime)[UP] == 1


def stop_reading(url: str, headers: dict[str, str]) -> socket.socket:
    """Ask for the page, and take nothing of it."""
    host, _, port = url.removeprefix("http://").partition(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((host, int(port)))
    lines = [f"{name}: {value}" for name, value in headers.items()]
    client.sendall("\r\n".join(["GET /metrics HTTP/1.1", "Host: r", *lines, "", ""]).encode())
    return client


@pytest.mark.parametrize("headers", [IDENTITY, GZIP], ids=["as it is", "compressed"])
def test_readers_that_stop_reading_hold_little(headers: dict[str, str]) -> None:
    """Forty readers of a large page, none of which takes it, and one that does."""
    turn = Turn()
    turn.serve("one standard family of one line")
    with confined(turn) as runtime, ExitStack() as readers:
        assert own(runtime)[UP] == 1
        for _ in range(40):
            readers.callback(stop_reading(runtime.url, headers).close)
        # As long as the forty wait for the engine, there is no place for another scrape.
        wait_until(lambda: runtime.get("/metrics?name[]=none", headers=PATIENCE).ok, "there is a place again")
        assert own(runtime)[UP] == 1
