"""What the engine notices of being scraped: how it is asked, how often, for how long, and on which connection."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias

import pytest

from exporter.engine.client import LOOP_HEADER
from simulators.engine.__main__ import Engine
from simulators.misbehaving.engine import BEHAVIOURS, BadEngine, Behaviour
from simulators.misbehaving.gated_engine import GatedEngine
from simulators.misbehaving.pages import PAGE, TEXT, response
from simulators.ports import free_port
from simulators.reading import samples
from simulators.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.misbehaving.exchange import Exchange
    from tests.harness.runtime import Runtime

Start: TypeAlias = "Callable[..., Runtime]"

TIMEOUT_HEADER: Final = "X-Prometheus-Scrape-Timeout-Seconds"
UP: Final = "kthena_runtime_engine_up"
# Seconds that a loaded machine may take for what is due at once; far from REQUEST_TIMEOUT.
SLACK: Final = 20.0
SECONDS: Final = "kthena_runtime_engine_scrape_duration_seconds"


def failures(runtime: Runtime) -> float:
    """Scrape once more, and return how often the engine could not be read until now."""
    return sum(value for series, value in samples(runtime.page()).items() if "scrape_errors_total" in series)


def connections(runtime: Runtime) -> int:
    """Return how many clients are connected to the runtime."""
    port = int(runtime.url.rpartition(":")[2])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = "01"
    return sum(row[1].endswith(f":{port:04X}") and row[3] == established for row in rows)


def test_the_engine_is_asked_for_plain_uncompressed_text(start_runtime: Start) -> None:
    """It need not compress, and it is not asked for a format that would have to be translated."""
    with Engine() as engine:
        start_runtime(engine.url).page(headers={"Accept": "application/openmetrics-text", "Accept-Encoding": "gzip"})
        (call,) = engine.calls

    assert (call.method, call.path, call.query) == ("GET", "/metrics", "")
    assert call.headers["accept"].startswith("text/plain;version=0.0.4")
    assert call.headers["accept-encoding"] == "identity"
    assert call.headers["user-agent"].startswith("kthena-runtime/")


@pytest.mark.parametrize(("base", "path"), [("/v2/models", "/metrics"), ("", "/prometheus/metrics?detail=1")])
def test_the_engines_page_may_be_anywhere(start_runtime: Start, base: str, path: str) -> None:
    """The base URL may have a path, and the metrics path a query."""
    with Engine() as engine:
        start_runtime(engine.url + base, "--engine-metrics-path", path).page()
        (call,) = engine.calls

    assert f"{call.path}?{call.query}".rstrip("?") == base + path


def test_the_engine_is_asked_once_a_scrape(start_runtime: Start) -> None:
    """No scrape is answered from an earlier one, and nothing asks between them."""
    with Engine() as engine:
        runtime = start_runtime(engine.url)
        runtime.get("/health")
        for count in range(1, 4):
            engine.submit_requests(1)
            before = runtime.page(params={"name[]": "vllm:num_requests_running"})
            assert f"}} {count}.0\n" in before
            assert len(engine.calls) == count


@pytest.mark.parametrize(("timeout", "least"), [("2", 1.5), ("0.8", 0.4)])
def test_the_scrapers_timeout_bounds_the_fetch(start_runtime: Start, timeout: str, least: float) -> None:
    """Half a second before the scraper gives up, or half its time if that is less, it is told that there is nothing."""
    with GatedEngine() as engine:
        runtime = start_runtime(engine.url)
        started = monotonic()
        page = samples(runtime.page(headers={TIMEOUT_HEADER: timeout}))
        took = monotonic() - started

    assert page[UP] == 0
    assert least <= page[SECONDS] <= took < least + SLACK


def test_without_a_timeout_of_the_scraper_the_own_counts(start_runtime: Start) -> None:
    """REQUEST_TIMEOUT bounds the fetch for scrapers that do not say how long they wait."""
    with GatedEngine() as engine:
        runtime = start_runtime(engine.url, variables={"REQUEST_TIMEOUT": "0.4"})
        page = samples(runtime.page())

    assert page[UP] == 0
    assert 0.4 <= page[SECONDS] < SLACK


def test_a_timeout_that_is_none_is_passed_over(start_runtime: Start) -> None:
    """A header that makes no sense changes nothing; nor does one of more seconds than can be counted."""
    with Engine() as engine:
        runtime = start_runtime(engine.url)
        for timeout in ("soon", "", "-1", "0", "nan", "-nan", "inf", "-inf", "1e400", "10s", "1e10", "1e300"):
            assert samples(runtime.page(headers={TIMEOUT_HEADER: timeout}))[UP] == 1


def test_scrapes_at_the_same_time_cost_the_engine_one(start_runtime: Start) -> None:
    """Whoever comes while the engine still renders its page gets that page, too."""
    with GatedEngine() as engine, ThreadPoolExecutor(5) as scrapers:
        runtime = start_runtime(engine.url)
        pages = [scrapers.submit(runtime.page, headers={TIMEOUT_HEADER: "60"}) for _ in range(5)]
        wait_until(lambda: connections(runtime) >= 5, "all scrapers are connected")
        hasty = samples(runtime.page(headers={TIMEOUT_HEADER: "1"}))

        assert hasty[UP] == 0
        assert engine.requests == 1
        engine.gate.set()
        assert all(page.result(timeout=PATIENCE).startswith(PAGE.decode()) for page in pages)


def test_a_short_timeout_does_not_wait_for_a_long_one(start_runtime: Start) -> None:
    """Each scraper keeps its own timeout, though they share one fetch; the patient one is served."""
    with GatedEngine() as engine, ThreadPoolExecutor(1) as patient:
        runtime = start_runtime(engine.url)
        later = patient.submit(runtime.page, headers={TIMEOUT_HEADER: "60"})
        assert engine.wait_for_requests(1)
        started = monotonic()
        hasty = samples(runtime.page(headers={TIMEOUT_HEADER: "1"}))
        assert monotonic() - started < SLACK
        engine.gate.set()

        assert hasty[UP] == 0
        assert samples(later.result(timeout=PATIENCE))[UP] == 1
        assert engine.requests == 1


def test_the_connection_is_kept(start_runtime: Start) -> None:
    """Scrape after scrape goes over one connection."""
    numbers: list[int] = []

    def keep(exchange: Exchange, _: int) -> None:
        numbers.append(exchange.number)
        exchange.send(response(PAGE, headers={"Connection": "keep-alive"}))
        exchange.keep_open = True

    with BadEngine(Behaviour("keeps the connection", keep)) as engine:
        runtime = start_runtime(engine.url)
        assert [failures(runtime) for _ in range(4)] == [0] * 4

    assert numbers == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["keepalive_closer", "keepalive_dropper"])
def test_a_connection_that_ended_while_idle_fails_no_scrape(start_runtime: Start, name: str) -> None:
    """An engine that closed it, before the next request or on it, is asked again on a new one."""
    with BadEngine(name) as engine:
        runtime = start_runtime(engine.url)
        assert [failures(runtime) for _ in range(6)] == [0] * 6


def test_a_restart_between_scrapes_fails_none(start_runtime: Start) -> None:
    """An engine that is back at its address when it is asked next was never away."""
    port = free_port()
    with Engine(port=port) as engine:
        runtime = start_runtime(engine.url)
        assert failures(runtime) == 0
    with Engine(port=port, model="another") as engine:
        assert failures(runtime) == 0
        assert 'model_name="another"' in runtime.page()


def test_an_engine_that_comes_back_is_read_at_once(start_runtime: Start) -> None:
    """No back-off: the scrape after its return has all series again."""
    with BadEngine("refused") as placeholder:
        port = int(placeholder.url.rpartition(":")[2])
        runtime = start_runtime(placeholder.url)
        assert failures(runtime) == 1
    with Engine(port=port):
        assert samples(runtime.page())[UP] == 1
        assert failures(runtime) == 1


def test_a_request_of_its_own_is_refused(start_runtime: Start) -> None:
    """The runtime knows its own scrape by a header, and answers 508 instead of asking itself for ever."""
    with Engine() as engine:
        runtime = start_runtime(engine.url)
        runtime.page()
        instance = engine.calls[-1].headers[LOOP_HEADER.lower()]

        answer = runtime.get(headers={LOOP_HEADER: instance})
        stranger = runtime.get(headers={LOOP_HEADER: "another"})

    assert (answer.status_code, answer.headers["Content-Type"]) == (508, "application/problem+json")
    assert answer.json()["code"] == "scrape_loop"
    assert "--engine-base-url" in answer.json()["detail"]
    assert stranger.status_code == 200


def test_an_engine_that_leads_back_is_noticed(start_runtime: Start) -> None:
    """When what should be the engine sends back to the runtime, the reason is `loop`."""
    home = [b""]
    behaviour = replace(BEHAVIOURS["status_404"], act=lambda exchange, _: exchange.send(home[0]))
    with BadEngine(behaviour) as engine:
        runtime = start_runtime(engine.url)
        location = {"Location": f"{runtime.url}/metrics"}
        home[0] = response(b"", status="302 Found", content_type=TEXT, headers=location)
        page = samples(runtime.page())

    assert page[UP] == 0
    assert page['kthena_runtime_engine_scrape_errors_total{reason="loop"}'] == 1
