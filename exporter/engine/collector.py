"""The collector: one scrape of the engine, from the fetch to the standard families.

Scrapes that arrive while a fetch is in flight share it. Several concurrent
scrapers therefore cost the engine one rendering of its page.
"""

from __future__ import annotations

import logging
import sys
from threading import Event, Lock
from time import perf_counter
from typing import TYPE_CHECKING, Final

from prometheus_client.registry import Collector

from exporter.engine.news import ScrapeNews
from exporter.engine.result import Scrape
from exporter.engine.room import Room
from exporter.page.errors import Reason, ScrapeError
from exporter.page.openmetrics import as_text_format
from exporter.page.parse import InvalidPageError, parse_page
from exporter.page.repairs import Repair
from exporter.page.reserved import OWN_PREFIX
from exporter.standard.twins import Standardized, standardize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from exporter.engine.client import Fetched
    from exporter.engine.result import ScrapeObserver
    from exporter.page.family import TextFamily
    from exporter.page.page import Shape
    from exporter.standard.rules import RuleSet

__all__ = ["EngineCollector"]

logger: Final = logging.getLogger(__name__)

_NO_PAGE: Final = parse_page(b"")


class _Flight:
    """A scrape in flight: one thread leads it, the threads of other scrapes wait for `done`.

    `result` stays `None` if the leading thread ends without one.
    """

    __slots__ = ("done", "result")

    def __init__(self) -> None:
        self.done = Event()
        self.result: Scrape | None = None


class EngineCollector(Collector):
    """Collects the engine's families and their standard twins; safe for threads.

    Works in any prometheus_client registry:

        # TYPE vllm:num_requests_waiting gauge
        vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
        # HELP kthena:num_requests_waiting ... (from vllm:num_requests_waiting)
        # TYPE kthena:num_requests_waiting gauge
        kthena:num_requests_waiting{engine="0",model_name="m"} 3.0

    A scrape that fails yields no families. The runtime never serves an earlier page.
    """

    def __init__(
        self,
        fetch: Callable[[float], Fetched],
        rules: RuleSet,
        *,
        budget: float = 30.0,
        limit: int = sys.maxsize,
        room: Room | None = None,
        observer: ScrapeObserver | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        """Prepare to collect; nothing is fetched yet.

        Args:
            fetch: Takes a budget in seconds, and returns the engine's page or raises ScrapeError.
                One thread calls it at a time.
            rules: Which engine family feeds which standard metric.
            budget: Seconds for a scrape when the caller gives none.
            limit: The highest cost of a page in bytes (`exporter.page.cost`).
            room: Counts the bytes of all pages in memory; no scrape begins while it is full.
            observer: Called once with the result of each fetch.
            clock: A monotonic clock in seconds.
        """
        self._fetch = fetch
        self._rules = rules
        self._budget = budget
        self._limit = limit
        self._room = room or Room()
        self._observer = observer
        self._clock = clock
        self._lock = Lock()
        self._flight: _Flight | None = None
        self._shape: Shape | None = None
        self._news = ScrapeNews(rules.engine)

    def collect(self) -> Iterator[TextFamily]:
        """Scrape, and yield all raw families, then the standard ones; nothing if the scrape failed."""
        scrape = self.scrape()
        yield from scrape.page.families()
        yield from scrape.standard.families

    def scrape(self, budget: float | None = None, *, glance: bool = False) -> Scrape:
        """Scrape the engine within `budget` seconds, or share a scrape in flight.

        Does not raise: a failure is the result's `error`.

        Args:
            budget: Seconds; the collector's own budget when `None`.
            glance: Whether the caller waits less than a scraper would. A timeout
                is then neither logged nor reported to the observer, because it
                says nothing about scrapes with more time.
        """
        started = self._clock()
        deadline = started + (self._budget if budget is None else budget)
        while (left := deadline - self._clock()) > 0:
            flight, leads = self._join()
            if leads:
                return self._lead(flight, left, glance=glance)
            if not flight.done.wait(left):
                break
            # The leader may have had less time than this caller. After its timeout, this caller tries again.
            result = flight.result
            if result and not _is_timeout(result):
                return result
        duration = self._clock() - started
        error = ScrapeError(Reason.TIMEOUT, f"the engine did not answer within {duration:.3g} s")
        return self._failed(error, duration)

    def _join(self) -> tuple[_Flight, bool]:
        with self._lock:
            if self._flight:
                return self._flight, False
            self._flight = _Flight()
            return self._flight, True

    def _lead(self, flight: _Flight, budget: float, *, glance: bool) -> Scrape:
        try:
            result = flight.result = self._attempt(budget)
            # Report before `done` is set: the pages of the waiting scrapers must count this fetch, too.
            if not (glance and _is_timeout(result)):
                self._tell(result)
        finally:
            # Clear the flight before `done` is set, so that a waiter that tries again starts a new one.
            with self._lock:
                self._flight = None
            flight.done.set()
        return result

    def _attempt(self, budget: float) -> Scrape:
        started = self._clock()
        try:
            return self._scrape(budget, started)
        except ScrapeError as error:
            # A new error: the caught one refers to its traceback, and so to the frames that hold the page.
            failure = ScrapeError(error.reason, error.detail)
        except Exception:
            logger.exception("scrape failed for a reason that is a defect of the runtime")
            failure = ScrapeError(Reason.INTERNAL, "a defect of the runtime, see its log")
        return self._failed(failure, self._clock() - started)

    def _scrape(self, budget: float, started: float) -> Scrape:
        # The size is not known yet, so nothing is claimed: this waits only while earlier pages fill the room.
        hold = self._room.claim(0, budget)
        if hold is None:
            detail = "readers that are slow to take their answers hold all the memory there is for pages"
            raise ScrapeError(Reason.BACKLOG, detail)
        text, size, repairs = self._text(budget - (self._clock() - started))
        try:
            page = parse_page(text, self._shape, limit=self._limit)
        except InvalidPageError as error:
            raise _unusable(text, error) from None
        if page.shape is not self._shape:
            self._shape = page.shape
        repairs |= page.repairs
        # Two families of one name fail the page in Go's parsers, and these names are the runtime's own.
        if own := page.shape.names_under(OWN_PREFIX):
            page = page.without(own)
            repairs[Repair.RESERVED_NAME] = len(own)
        standard = standardize(page, self._rules)
        if standard.taken:
            repairs[Repair.STANDARD_NAME_TAKEN] = len(standard.taken)
        hold.resize(len(page.raw) + sum(len(family.text) for family in standard.families))
        return Scrape(page, standard, size, self._clock() - started, None, repairs, hold)

    def _text(self, budget: float) -> tuple[bytes, int, dict[str, int]]:
        """Return the engine's page as text 0.0.4, its size in bytes as the engine sent it, and the repairs so far."""
        fetched = self._fetch(budget)
        if not fetched.openmetrics:
            return fetched.body, len(fetched.body), {}
        return as_text_format(fetched.body, limit=self._limit), len(fetched.body), {Repair.OPENMETRICS: 1}

    def _failed(self, error: ScrapeError, duration: float) -> Scrape:
        missing = tuple(rule.name for rule in self._rules.rules)
        return Scrape(_NO_PAGE, Standardized((), missing), 0, duration, error)

    def _tell(self, scrape: Scrape) -> None:
        """Log changes, and report the fetch to the observer."""
        self._news.tell(scrape)
        if self._observer:
            self._observer.scraped(scrape)


def _is_timeout(scrape: Scrape) -> bool:
    return scrape.error is not None and scrape.error.reason is Reason.TIMEOUT


def _unusable(body: bytes, error: InvalidPageError) -> ScrapeError:
    """Return the error for an invalid page: no metrics at all (HTML, JSON), cut off, or damaged."""
    if body[:4096].lstrip()[:1] in (b"<", b"{", b"["):
        return ScrapeError(Reason.NOT_METRICS, "the answer is not exposition text: check --engine-metrics-path")
    if not body.endswith(b"\n"):
        return ScrapeError(Reason.TRUNCATED, str(error))
    return ScrapeError(Reason.INVALID, str(error))
