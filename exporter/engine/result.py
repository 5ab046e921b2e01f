"""What one scrape of the engine brought, and who is told."""

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
    """What one scrape of the engine brought.

    Attributes:
        page: The engine's families; empty when the scrape failed.
        standard: The standard families made of it.
        size: Bytes of the page as it came, decoded.
        duration: Seconds from request to result.
        error: Why there is no page, if there is none.
        repairs: How often each kind of flaw was mended or left out.
        hold: Counts the page as held, for as long as anything refers to it.
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
        """Whether the engine's metrics could be read."""
        return self.error is None


class ScrapeObserver(Protocol):
    """Told of each fetch that was made, however many scrapers share it."""

    def scraped(self, scrape: Scrape) -> None:
        """Take note of a finished scrape; must not raise."""
