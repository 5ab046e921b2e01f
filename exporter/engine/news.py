"""What the log says about scrapes: each state once when it begins, however many scrapes find it."""

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
    """Logs what is new about the engine's page, for one engine's rules."""

    def __init__(self, engine: str) -> None:
        """Tell of scrapes that use the rules of `engine`."""
        self._engine = engine
        self._failing: Reason | None = None
        self._without_standard = False
        self._wrong_types: set[WrongType] = set()

    def tell(self, scrape: Scrape) -> None:
        """Log what this scrape has that the one before had not."""
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
