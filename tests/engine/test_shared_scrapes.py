"""Scrapes that arrive while one is under way share it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from exporter.engine.client import Fetched
from exporter.engine.collector import EngineCollector
from exporter.page.errors import Reason, ScrapeError
from exporter.standard.rules import Rule, RuleSet, Source
from simulators.waiting import wait_until

if TYPE_CHECKING:
    from exporter.engine.result import Scrape

pytestmark = pytest.mark.unit

RULES = RuleSet("test", (Rule("k:wait", "gauge", "Waiting.", (Source("e:wait"),)),))
PAGE = b"# TYPE e:wait gauge\ne:wait 3.0\n"
REFUSED = ScrapeError(Reason.REFUSED, "nobody listens")
TIMEOUT = ScrapeError(Reason.TIMEOUT, "the engine did not answer within 1 s")
PATIENCE = 30.0


class GatedEngine:
    """Lets no fetch go on before the gate is opened; then gives its answers one by one."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)
        self.budgets: list[float] = []
        self.entered = Event()
        self.gate = Event()

    def __call__(self, budget: float) -> Fetched:
        self.budgets.append(budget)
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Fetched(answer)


class Observer:
    def __init__(self) -> None:
        self.seen: list[Scrape] = []

    def scraped(self, scrape: Scrape) -> None:
        self.seen.append(scrape)


def done_of(collector: EngineCollector) -> Event:
    """Return what is set when the fetch under way has ended."""
    assert collector._flight is not None
    return collector._flight.done


def wait_for_waiters(collector: EngineCollector, number: int) -> None:
    """Wait until this many scrapes wait for the one under way."""
    done: Any = done_of(collector)
    waiters = done._cond._waiters
    wait_until(lambda: len(waiters) == number, f"{number} scrapes wait for another's result")


@pytest.mark.parametrize("answer", [PAGE, REFUSED, ZeroDivisionError("oh")], ids=["page", "failure", "defect"])
def test_concurrent_scrapes_share_one_fetch(answer: bytes | Exception) -> None:
    """All get the same result, good or bad, and the observer hears of it once."""
    engine, observer = GatedEngine(answer), Observer()
    collector = EngineCollector(engine, RULES, observer=observer)

    with ThreadPoolExecutor(6) as pool:
        leader = pool.submit(collector.scrape)
        assert engine.entered.wait(PATIENCE)
        waiters = [pool.submit(collector.scrape) for _ in range(5)]
        wait_for_waiters(collector, 5)
        engine.gate.set()

    assert len(engine.budgets) == 1
    assert all(waiter.result() is leader.result() for waiter in waiters)
    assert observer.seen == [leader.result()]


def test_a_waiter_with_more_time_tries_again() -> None:
    """A leader that ran out of its own short time does not fail those who can wait longer."""
    engine = GatedEngine(TIMEOUT, PAGE)
    collector = EngineCollector(engine, RULES)

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(collector.scrape, 1.0)
        assert engine.entered.wait(PATIENCE)
        waiter = pool.submit(collector.scrape, PATIENCE)
        wait_for_waiters(collector, 1)
        engine.gate.set()

    assert str(leader.result().error) == str(TIMEOUT)
    assert (waiter.result().up, waiter.result().page.raw) == (True, PAGE)
    assert [budget > 1.0 for budget in engine.budgets] == [False, True]


def test_a_waiter_with_less_time_gives_up_alone() -> None:
    """It fails by its own budget, without a fetch; the leader goes on."""
    engine = GatedEngine(PAGE)
    collector = EngineCollector(engine, RULES)

    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(collector.scrape)
        assert engine.entered.wait(PATIENCE)
        impatient = collector.scrape(0.01)
        engine.gate.set()

    assert impatient.error is not None
    assert impatient.error.reason is Reason.TIMEOUT
    assert (leader.result().up, len(engine.budgets)) == (True, 1)


def test_a_scrape_is_counted_before_anybody_has_it() -> None:
    """Else the page of one that shares it could lack what the page of the first has."""
    flights: list[bool] = []

    class Watcher:
        def scraped(self, _scrape: Scrape) -> None:
            flights.append(done_of(collector).is_set())

    engine = GatedEngine(PAGE)
    engine.gate.set()
    collector = EngineCollector(engine, RULES, observer=Watcher())
    collector.scrape()

    assert flights == [False]
