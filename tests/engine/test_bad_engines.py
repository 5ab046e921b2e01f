"""Engines that misbehave: the page comes in time and valid, says why, and shows nothing that is not so."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING, Final

import pytest

from exporter.page.errors import Reason
from exporter.page.repairs import Repair
from exporter.telemetry.names import KV, OWN, STANDARD
from simulators.misbehaving.engine import BEHAVIOURS, BadEngine, Behaviour
from simulators.misbehaving.pages import PAGE, big_length, response
from simulators.prometheus import promtool_check
from simulators.reading import family_names, peak_memory, resident_memory, samples
from simulators.waiting import PATIENCE
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from simulators.misbehaving.exchange import Exchange

pytestmark = pytest.mark.slow

MB: Final = 1_000_000
# Seconds that a loaded machine may take for what is due at once; far from the runtime's own timeout.
SLACK: Final = 10.0
TIMEOUT_HEADER: Final = "X-Prometheus-Scrape-Timeout-Seconds"


@dataclass(frozen=True, slots=True)
class Row:
    """A misbehaviour and what must come of it.

    Attributes:
        behaviour: Its name among the peers.
        reason: Why there is no engine part; none when there is one.
        repairs: What was mended.
        arguments: More flags for the runtime.
        memory: The most bytes that the runtime may ever hold.
        timeout: Seconds that the scraper waits.
    """

    behaviour: str
    reason: str | None = None
    repairs: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    memory: int = 60 * MB
    timeout: float = PATIENCE


ROWS: Final = (
    Row("refused", "refused"),
    Row("slow", "timeout", timeout=2),
    Row("drip", "timeout", timeout=2),
    Row("drip_headers", "timeout", timeout=2),
    Row("status_404", "http_status"),
    Row("status_500", "http_status"),
    Row("html", "not_metrics"),
    Row("json", "not_metrics"),
    Row("binary", "truncated"),
    Row("truncated_line", "truncated"),
    Row("short_body", "truncated"),
    Row("bad_value", "invalid"),
    Row("invalid_utf8", "invalid"),
    Row("empty"),
    # Lines and families count as more than their bytes: these 20 MB in 275,000 lines, as 38 MB.
    Row("big", arguments=("--max-scrape-bytes", "40Mi"), memory=120 * MB),
    Row("big", "too_large", memory=70 * MB),
    Row("endless", "too_large", memory=150 * MB),
    Row("long_line", "too_large"),
    Row("gzip"),
    # 200 MB in 200 kB.
    Row("gzip_bomb", "too_large", memory=150 * MB),
    Row("gzip_of_many", "encoding"),
    Row("gzip_broken", "encoding"),
    Row("chunked"),
    Row("chunked_cut", "truncated"),
    Row("reset_half_way", "connection"),
    Row("openmetrics", repairs=("openmetrics",)),
    Row("redirect"),
    Row("redirect_loop", "redirect"),
    Row("duplicate_family", repairs=("duplicate_family",)),
    Row("kthena_names", repairs=("reserved_name", "standard_name_taken")),
    Row("keepalive_closer"),
    Row("keepalive_dropper"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Two scrapes: one while the engine was well, and one when it was not any more."""

    row: Row
    before: dict[str, float] = field(repr=False)
    after: dict[str, float] = field(repr=False)
    body: bytes = field(repr=False)
    status: int
    content_type: str
    seconds: float
    memory: int

    def counted(self, metric: str, label: str) -> dict[str, float]:
        """Return by how much each child of a counter went up, those that did not left out."""
        pattern = re.compile(rf'kthena_runtime_{metric}\{{{label}="(\w+)"\}}')
        children = {found[1]: series for series in self.after if (found := pattern.fullmatch(series))}
        steps = {value: self.after[series] - self.before[series] for value, series in children.items()}
        return {value: step for value, step in steps.items() if step}


def turning(behaviour: Behaviour) -> Behaviour:
    """Answer one good page, and do what `behaviour` does from then on, on the same connection at first."""
    good = iter([response(PAGE, headers={"Connection": "keep-alive"})])

    def act(exchange: Exchange, size: int) -> None:
        page = next(good, None)
        if page:
            exchange.send(page)
            exchange.keep_open = True
        else:
            behaviour.act(exchange, size)

    return replace(behaviour, act=act)


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: " ".join((row.behaviour, *row.arguments)))
def outcome(request: pytest.FixtureRequest) -> Iterator[Outcome]:
    row: Row = request.param
    engine = BadEngine(turning(BEHAVIOURS[row.behaviour]))
    with engine, Runtime(engine.url, *row.arguments) as runtime:
        before = samples(runtime.page())
        started = monotonic()
        answer = runtime.get(headers={TIMEOUT_HEADER: str(row.timeout), "Accept-Encoding": "identity"})
        seconds = monotonic() - started
        yield Outcome(
            row,
            before,
            samples(answer.content.decode()),
            answer.content,
            answer.status_code,
            answer.headers["Content-Type"],
            seconds,
            peak_memory(runtime.pid),
        )


def test_every_behaviour_has_its_row() -> None:
    """A misbehaviour that is added to the peers is expected here, too."""
    assert {row.behaviour for row in ROWS} == set(BEHAVIOURS)
    assert {row.reason for row in ROWS if row.reason} <= set(Reason)
    assert {kind for row in ROWS for kind in row.repairs} <= set(Repair)


def test_the_answer_is_a_page(outcome: Outcome) -> None:
    """It is 200 in the one format, and all of the runtime's own families are there, once each."""
    names = family_names(outcome.body.decode())
    own = {description.name for description in OWN if description not in KV}

    assert outcome.status == 200
    assert outcome.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert own <= set(names)
    assert len(names) == len(set(names))


def test_the_page_tells_what_went_wrong(outcome: Outcome) -> None:
    """`engine_up` is 0 with one reason, or 1 with what was mended."""
    row = outcome.row

    assert outcome.after["kthena_runtime_engine_up"] == (0.0 if row.reason else 1.0)
    assert outcome.counted("engine_scrape_errors_total", "reason") == ({row.reason: 1.0} if row.reason else {})
    assert outcome.counted("engine_page_repairs_total", "kind") == dict.fromkeys(row.repairs, 1.0)


def test_nothing_stale_is_shown(outcome: Outcome) -> None:
    """Without an answer that can be used, no series but the runtime's own is left, nor said to be present."""
    strangers = [series for series in outcome.after if not series.startswith("kthena_runtime_")]
    present = [outcome.after[f'kthena_runtime_standard_metric_present{{metric="{name}"}}'] for name in STANDARD]

    has_series = outcome.row.reason is None and outcome.row.behaviour != "empty"
    assert bool(strangers) == has_series
    assert outcome.after["kthena_runtime_engine_scrape_samples"] > 0 or not has_series
    assert any(present) == (has_series and outcome.row.behaviour != "big")


def test_go_can_read_the_page(outcome: Outcome) -> None:
    """Its parser takes it (3 is advice on names that are the engine's), and the runtime's own part is without fault."""
    code, output = promtool_check(outcome.body)

    assert code in ((0,) if outcome.row.reason else (0, 3)), output


def test_the_scraper_is_answered_when_it_would_give_up(outcome: Outcome) -> None:
    """However long the engine would take, the scraper's own timeout counts."""
    assert outcome.seconds < outcome.row.timeout + SLACK


def test_memory_stays_within_bounds(outcome: Outcome) -> None:
    """What an engine sends, or makes of little, does not fill the pod's memory."""
    assert outcome.memory < outcome.row.memory


def test_a_big_page_comes_whole() -> None:
    """All 20 MB are passed on when they are allowed."""
    with BadEngine("big") as engine, Runtime(engine.url, "--max-scrape-bytes", "40Mi") as runtime:
        page = runtime.page(headers={"Accept-Encoding": "identity"})

    own = page.index("# HELP kthena_runtime_engine_up")
    assert own >= big_length(20 * MB)
    assert samples(page[own:])["kthena_runtime_engine_scrape_size_bytes"] == big_length(20 * MB)


@pytest.mark.parametrize("behaviour", ["big", "endless", "gzip_bomb"])
def test_memory_does_not_add_up(start_runtime: Callable[..., Runtime], behaviour: str) -> None:
    """Of one large page after another nothing stays, taken or refused, whichever thread read it."""
    with BadEngine(behaviour) as engine:
        runtime = start_runtime(engine.url, "--max-scrape-bytes", "40Mi")
        for _ in range(2):
            runtime.get(headers={"Accept-Encoding": "identity"})
        soon = resident_memory(runtime.pid)
        for _ in range(10):
            runtime.get(headers={"Accept-Encoding": "identity"})

        assert resident_memory(runtime.pid) < soon + 30 * MB


def test_an_engine_that_ends_leaves_nothing_behind(start_runtime: Callable[..., Runtime]) -> None:
    """As soon as nobody listens any more, the engine's series are gone and the reason is `refused`."""
    with BadEngine("keepalive_dropper") as engine:
        runtime = start_runtime(engine.url)
        assert "vllm:num_requests_waiting" in runtime.page()
    page = runtime.page()

    assert "num_requests_waiting{" not in page
    assert samples(page)['kthena_runtime_engine_scrape_errors_total{reason="refused"}'] == 1


def test_it_is_logged_once(start_runtime: Callable[..., Runtime]) -> None:
    """An engine that stays away fills no log: one line when it goes, with what to do."""
    with BadEngine("refused") as engine:
        runtime = start_runtime(engine.url)
        for _ in range(5):
            runtime.page()
        runtime.stop()

    (line,) = [line for line in runtime.log.splitlines() if "WARNING" in line]
    assert "refused" in line
    assert "--engine-base-url" in line
