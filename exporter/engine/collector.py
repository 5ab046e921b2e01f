"""The collector: one scrape of the engine, from fetch to standard families.

Scrapes that arrive while one is under way share it, so that several scrapers
cost the engine one rendering of its page.
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
    """A scrape under way, and those who wait for it."""

    __slots__ = ("done", "result")

    def __init__(self) -> None:
        self.done = Event()
        self.result: Scrape | None = None


class EngineCollector(Collector):
    """Collects the engine's families and their standard twins.

    Works in any prometheus_client registry:

        # TYPE vllm:num_requests_waiting gauge
        vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
        # TYPE kthena:num_requests_waiting gauge
        kthena:num_requests_waiting{engine="0",model_name="m"} 3.0
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
        """Collect with `fetch`, which takes a budget in seconds.

        Args:
            fetch: Returns the engine's page or raises ScrapeError.
            rules: Which family feeds which standard metric.
            budget: Seconds for a scrape when the caller names none.
            limit: The most that a page may cost (`exporter.page.cost`).
            room: Where pages are held; no scrape begins while it is full.
            observer: Told of each fetch.
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
        """Scrape, and yield all raw families and the standard ones."""
        scrape = self.scrape()
        yield from scrape.page.families()
        yield from scrape.standard.families

    def scrape(self, budget: float | None = None, *, glance: bool = False) -> Scrape:
        """Scrape the engine within `budget` seconds, or share a scrape under way.

        Never raises: what went wrong is the result's `error`.

        Args:
            budget: Seconds; without it the collector's own.
            glance: Whether the caller waits less than a scraper would. That the
                time was too short for it is then neither logged nor told to the
                observer: it says nothing about the scrapes of others.
        """
        started = self._clock()
        deadline = started + (self._budget if budget is None else budget)
        while (left := deadline - self._clock()) > 0:
            flight, leads = self._join()
            if leads:
                return self._lead(flight, left, glance=glance)
            if not flight.done.wait(left):
                break
            # A leader with less time than we have may have run out of it: try again.
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
            # Before the others have it: the page that they make of it counts it, too.
            if not (glance and _is_timeout(result)):
                self._tell(result)
        finally:
            with self._lock:
                self._flight = None
            flight.done.set()
        return result

    def _attempt(self, budget: float) -> Scrape:
        started = self._clock()
        try:
            return self._scrape(budget, started)
        except ScrapeError as error:
            # Made anew: the one raised holds on to the frames it went through, and to the page in them.
            failure = ScrapeError(error.reason, error.detail)
        except Exception:
            logger.exception("scrape failed for a reason that is a defect of the runtime")
            failure = ScrapeError(Reason.INTERNAL, "a defect of the runtime, see its log")
        return self._failed(failure, self._clock() - started)

    def _scrape(self, budget: float, started: float) -> Scrape:
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
        if own := page.shape.names_under(OWN_PREFIX):
            page = page.without(own)
            repairs[Repair.RESERVED_NAME] = len(own)
        standard = standardize(page, self._rules)
        if standard.taken:
            repairs[Repair.STANDARD_NAME_TAKEN] = len(standard.taken)
        hold.resize(len(page.raw) + sum(len(family.text) for family in standard.families))
        return Scrape(page, standard, size, self._clock() - started, None, repairs, hold)

    def _text(self, budget: float) -> tuple[bytes, int, dict[str, int]]:
        """Return the engine's page as text format, its size as it came, and what was done to it."""
        fetched = self._fetch(budget)
        if not fetched.openmetrics:
            return fetched.body, len(fetched.body), {}
        return as_text_format(fetched.body, limit=self._limit), len(fetched.body), {Repair.OPENMETRICS: 1}

    def _failed(self, error: ScrapeError, duration: float) -> Scrape:
        missing = tuple(rule.name for rule in self._rules.rules)
        return Scrape(_NO_PAGE, Standardized((), missing), 0, duration, error)

    def _tell(self, scrape: Scrape) -> None:
        """Log what is new, and tell the observer."""
        self._news.tell(scrape)
        if self._observer:
            self._observer.scraped(scrape)


def _is_timeout(scrape: Scrape) -> bool:
    return scrape.error is not None and scrape.error.reason is Reason.TIMEOUT


def _unusable(body: bytes, error: InvalidPageError) -> ScrapeError:
    """Tell a page that is not metrics at all from one that is damaged."""
    if body[:4096].lstrip()[:1] in (b"<", b"{", b"["):
        return ScrapeError(Reason.NOT_METRICS, "the answer is not exposition text: check --engine-metrics-path")
    if not body.endswith(b"\n"):
        return ScrapeError(Reason.TRUNCATED, str(error))
    return ScrapeError(Reason.INVALID, str(error))
