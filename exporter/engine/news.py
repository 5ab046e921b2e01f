"""Log lines about scrapes: one line when the state changes, however often the engine is scraped."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from exporter.engine.result import Scrape
    from exporter.page.errors import Reason
    from exporter.standard.twins import Standardized, WrongType

__all__ = ["ScrapeNews"]

logger: Final = logging.getLogger(__name__)


class ScrapeNews:
    """Logs changes of the engine's page: unavailable and available again, no standard metrics, wrong types.

    Not thread-safe: the collector calls it for one scrape at a time.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._failing: Reason | None = None
        self._without_standard = False
        self._wrong_types: set[WrongType] = set()

    def tell(self, scrape: Scrape) -> None:
        """Log the differences between this scrape and the previous one."""
        reason = scrape.error.reason if scrape.error else None
        if reason is not self._failing:
            self._failing = reason
            if scrape.error:
                logger.warning("engine metrics unavailable: %s", scrape.error)
            else:
                logger.info("engine metrics available again: %d samples", scrape.page.samples)
        if not scrape.error:
            self._tell_of_standard(scrape.standard, scrape.page.samples)

    def _tell_of_standard(self, standard: Standardized, samples: int) -> None:
        if not standard.present and not self._without_standard:
            logger.warning(
                "none of the standard metrics is on the engine's page (%d samples): is --engine %s right? "
                "It may be: some engines, SGLang for one, show most metrics only after their first request",
                samples,
                self._engine,
            )
        self._without_standard = not standard.present
        for wrong in standard.wrong_types:
            if wrong not in self._wrong_types:
                self._wrong_types.add(wrong)
                logger.warning("%s: %s is a %s, the rule wants a %s", *wrong)
