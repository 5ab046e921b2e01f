"""The result of one scrape of the engine, and the protocol of its observer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from exporter.engine.room import Hold
    from exporter.page.errors import ScrapeError
    from exporter.page.page import Page
    from exporter.standard.twins import Standardized

__all__ = ["Scrape", "ScrapeObserver"]


@dataclass(frozen=True, slots=True)
class Scrape:
    """The result of one scrape of the engine.

    Attributes:
        page: The engine's families; empty when the scrape failed.
        standard: The standard families made from the page.
        size: Bytes of the page as the engine sent it, decompressed.
        duration: Seconds from the request to the result.
        error: Why there is no page; `None` after a success.
        repairs: Number of repairs by `Repair`.
        hold: Counts the page's bytes in the collector's room until nothing refers to this object.
    """

    page: Page
    standard: Standardized
    size: int = 0
    duration: float = 0.0
    error: ScrapeError | None = None
    repairs: dict[str, int] = field(default_factory=dict)
    hold: Hold | None = None

    @property
    def up(self) -> bool:
        """Whether the scrape succeeded: `kthena_runtime_engine_up`."""
        return self.error is None


class ScrapeObserver(Protocol):
    """Observes fetches. Several scrapers may share one fetch, which is reported once."""

    def scraped(self, scrape: Scrape) -> None:
        """Note a finished scrape; must not raise or block, because scrapers wait for it."""
