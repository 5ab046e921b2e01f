"""One scrape of the engine: what it brings, and what a failure leaves."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from exporter.engine.client import Fetched
from exporter.engine.collector import EngineCollector
from exporter.page.errors import Reason, ScrapeError
from exporter.standard.rules import Rule, RuleSet, Source

if TYPE_CHECKING:
    from exporter.engine.result import Scrape

pytestmark = pytest.mark.unit

RULES = RuleSet(
    "test",
    (
        Rule("k:wait", "gauge", "Waiting.", (Source("e:wait"),)),
        Rule("k:tokens_total", "counter", "Tokens.", (Source("e:tokens_total"),)),
    ),
)
PAGE = b'# HELP e:wait Waiting.\n# TYPE e:wait gauge\ne:wait{model_name="m"} 3.0\n'
TWIN = b'# HELP k:wait Waiting. (from e:wait)\n# TYPE k:wait gauge\nk:wait{model_name="m"} 3.0\n'
REFUSED = ScrapeError(Reason.REFUSED, "nobody listens")
TIMEOUT = ScrapeError(Reason.TIMEOUT, "the engine did not answer within 1 s")


class Engine:
    """Gives its answers one by one, the last one for ever; raises those that are exceptions."""

    def __init__(self, *answers: bytes | Fetched | Exception) -> None:
        self.answers = list(answers)
        self.budgets: list[float] = []

    def __call__(self, budget: float) -> Fetched:
        self.budgets.append(budget)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Fetched) else Fetched(answer)


class Observer:
    def __init__(self) -> None:
        self.seen: list[Scrape] = []

    def scraped(self, scrape: Scrape) -> None:
        self.seen.append(scrape)


def frozen_clock() -> float:
    return 100.0


def test_it_is_a_collector_for_any_registry() -> None:
    """A registry gives the raw families and the standard ones; registering fetches nothing."""
    engine = Engine(PAGE)
    registry = CollectorRegistry()

    registry.register(EngineCollector(engine, RULES))

    assert engine.budgets == []
    assert generate_latest(registry) == PAGE + TWIN
    assert registry.get_sample_value("k:wait", {"model_name": "m"}) == 3.0


def test_a_scrape_says_all_about_itself() -> None:
    """Page, twins, what is missing, size, duration, and no error."""
    ticks = iter([10.0, 10.0, 10.5, 10.5, 12.0])

    scrape = EngineCollector(Engine(PAGE), RULES, clock=lambda: next(ticks)).scrape()

    assert scrape.page.raw == PAGE
    assert [family.text for family in scrape.standard.families] == [TWIN]
    assert scrape.standard.missing == ("k:tokens_total",)
    assert (scrape.up, scrape.error, scrape.size, scrape.duration, scrape.repairs) == (True, None, len(PAGE), 1.5, {})


@pytest.mark.parametrize(("budget", "expected"), [(None, 12.5), (3.0, 3.0)])
def test_the_engine_gets_the_scrapers_budget(budget: float | None, expected: float) -> None:
    """Else the one the collector was made with."""
    engine = Engine(PAGE)

    EngineCollector(engine, RULES, budget=12.5, clock=frozen_clock).scrape(budget)

    assert engine.budgets == [expected]


def test_no_budget_means_no_fetch() -> None:
    """A scrape that is over before it began fails as any that took too long."""
    engine = Engine(PAGE)

    scrape = EngineCollector(engine, RULES, clock=frozen_clock).scrape(0.0)

    assert (engine.budgets, str(scrape.error)) == ([], "timeout: the engine did not answer within 0 s")


def test_a_failure_leaves_nothing_of_the_engine() -> None:
    """No page and no twins, not even those of the scrape before; every standard name is missing."""
    collector = EngineCollector(Engine(PAGE, REFUSED), RULES)
    collector.scrape()

    scrape = collector.scrape()

    assert (scrape.up, str(scrape.error)) == (False, str(REFUSED))
    assert (scrape.page.raw, scrape.size) == (b"", 0)
    assert (scrape.standard.families, scrape.standard.missing) == ((), ("k:wait", "k:tokens_total"))
    assert list(collector.collect()) == []


def test_an_unexpected_exception_is_a_failure_too(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its traceback, and the scrape still has a result."""
    scrape = EngineCollector(Engine(ZeroDivisionError("oh")), RULES).scrape()

    assert str(scrape.error) == "internal: a defect of the runtime, see its log"
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html></html>\n", "not_metrics: the answer is not exposition text: check --engine-metrics-path"),
        (b'\n {"detail":"No"}', "not_metrics: the answer is not exposition text: check --engine-metrics-path"),
        (b"[]\n", "not_metrics: the answer is not exposition text: check --engine-metrics-path"),
        (PAGE[:-2], "truncated: line 3: the page ends in the middle of a line"),
        (PAGE + b"e:", "truncated: line 4: the page ends in the middle of a line"),
        (b"e one\n", "invalid: line 1: not a sample, HELP or TYPE line of the text format"),
        (b"\xff\n", "invalid: line 1: not valid UTF-8"),
    ],
)
def test_what_is_no_page_has_a_reason(body: bytes, error: str) -> None:
    """Pages for people and APIs, cut ones, and damaged ones are told apart."""
    assert str(EngineCollector(Engine(body), RULES).scrape().error) == error


@pytest.mark.parametrize(
    ("answer", "raw", "repairs"),
    [
        (PAGE + b"kthena_runtime_engine_up 1\nkthena_runtime_x 2\n", PAGE, {"reserved_name": 2}),
        (PAGE + b"k:wait 1\n", PAGE + b"k:wait 1\n", {"standard_name_taken": 1}),
        (
            PAGE + b"a 1\n" + PAGE,
            PAGE + PAGE[-len(b'e:wait{model_name="m"} 3.0\n') :] + b"a 1\n",
            {"duplicate_family": 1},
        ),
        (Fetched(PAGE + b"# EOF\n", openmetrics=True), PAGE, {"openmetrics": 1}),
    ],
)
def test_flaws_are_mended_and_counted(answer: bytes | Fetched, raw: bytes, repairs: dict[str, int]) -> None:
    """What would clash with the runtime's own series, or fail the page, is taken out."""
    scrape = EngineCollector(Engine(answer), RULES).scrape()

    assert (scrape.page.raw, scrape.repairs, scrape.error) == (raw, repairs, None)


def test_invalid_openmetrics_is_a_failure() -> None:
    """It has the same reason as any invalid page."""
    scrape = EngineCollector(Engine(Fetched(PAGE, openmetrics=True)), RULES).scrape()

    assert str(scrape.error) == "invalid: not valid OpenMetrics text: line 4"


def test_pages_of_one_shape_share_it() -> None:
    """Later pages are recognised, with their own values; a failure in between changes nothing."""
    later, other = PAGE.replace(b" 3.0", b" 4.5"), PAGE + b"e:new 1\n"
    collector = EngineCollector(Engine(PAGE, REFUSED, later, other), RULES)

    first, _, second, third = (collector.scrape() for _ in range(4))

    assert second.page.shape is first.page.shape
    assert [family.text for family in second.page.families()] == [later]
    assert second.standard.families[0].text == TWIN.replace(b" 3.0", b" 4.5")
    assert [family.text for family in third.page.families()] == [PAGE, b"e:new 1\n"]


def test_the_log_tells_when_the_engine_goes_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    """Once each, and once more when it fails for another reason."""
    collector = EngineCollector(Engine(PAGE, REFUSED, REFUSED, b"<html>", b"<html>", PAGE, PAGE), RULES)

    with caplog.at_level(logging.INFO):
        for _ in range(7):
            collector.scrape()

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "engine metrics unavailable: refused: nobody listens"),
        (
            "WARNING",
            ("engine metrics unavailable: not_metrics: the answer is not exposition text: check --engine-metrics-path"),
        ),
        ("INFO", "engine metrics available again: 1 samples"),
    ]


def warnings_of(caplog: pytest.LogCaptureFixture, *answers: bytes | Exception) -> list[str]:
    """Return what is logged, good news left out, while an engine gives these answers."""
    collector = EngineCollector(Engine(*answers), RULES)
    for _ in answers:
        collector.scrape()
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


NO_STANDARD = (
    "none of the standard metrics is on the engine's page ({} samples): is --engine test right? "
    "It may be: some engines, SGLang for one, show most metrics only after their first request"
)


@pytest.mark.parametrize(
    ("answers", "warnings"),
    [
        ([PAGE, PAGE], []),
        ([b"other 1\n"] * 3, [NO_STANDARD.format(1)]),
        ([b"", b""], [NO_STANDARD.format(0)]),
        ([b"", b"other 1\n", b""], [NO_STANDARD.format(0)]),
        ([PAGE, b"", PAGE, b"other 1\n"], [NO_STANDARD.format(0), NO_STANDARD.format(1)]),
        ([b"", REFUSED, b""], [NO_STANDARD.format(0), f"engine metrics unavailable: {REFUSED}"]),
        ([b"k:wait 1\n"], []),
    ],
)
def test_a_page_without_any_standard_metric_is_doubted_once(
    answers: list[bytes | Exception], warnings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """It looks healthy and may be another engine's; a failure in between is no news about it."""
    assert warnings_of(caplog, *answers) == warnings


def test_a_source_of_the_wrong_type_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """When it is first seen, however the page changes later."""
    tokens = b"# TYPE e:tokens_total gauge\ne:tokens_total 1\n"

    warnings = warnings_of(caplog, PAGE + tokens, PAGE + tokens + b"other 1\n", PAGE, PAGE + tokens)

    assert warnings == ["k:tokens_total: e:tokens_total is a gauge, the rule wants a counter"]


def test_the_observer_is_told_of_each_fetch() -> None:
    """With the very result that the scraper gets, failures too."""
    observer = Observer()
    collector = EngineCollector(Engine(PAGE, REFUSED), RULES, observer=observer)

    scrapes = [collector.scrape(), collector.scrape()]

    assert observer.seen == scrapes


def test_a_glance_that_is_too_short_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """Its caller is told; the log and the observer are not, or they would flap between it and patient scrapes."""
    observer = Observer()
    collector = EngineCollector(Engine(PAGE, TIMEOUT, PAGE, TIMEOUT, PAGE), RULES, observer=observer)

    scrapes = [collector.scrape(glance=glance) for glance in (False, True, False, True, False)]

    assert [scrape.up for scrape in scrapes] == [True, False, True, False, True]
    assert observer.seen == [scrapes[0], scrapes[2], scrapes[4]]
    assert not caplog.records


def test_what_else_a_glance_finds_is_news(caplog: pytest.LogCaptureFixture) -> None:
    """An engine that is away is away for all; and a scraper's own timeout always counts."""
    observer = Observer()
    collector = EngineCollector(Engine(REFUSED, TIMEOUT), RULES, observer=observer)

    scrapes = [collector.scrape(glance=True), collector.scrape(1.0)]

    assert observer.seen == scrapes
    assert [record.getMessage() for record in caplog.records] == [
        f"engine metrics unavailable: {error}" for error in (REFUSED, TIMEOUT)
    ]
