"""Where files grow, what remembers them, and who is told: what every fetcher is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from storage.disk.journal import Journal
    from storage.disk.listing import RemoteFile

__all__ = ["Staging", "TransferObserver"]


class TransferObserver(Protocol):
    """Told of what a transfer does; called from several threads."""

    def on_bytes(self, path: str, count: int) -> None:
        """Bytes of a file arrived; fewer than none when some are fetched anew."""

    def on_hashed(self, count: int) -> None:
        """Bytes were read to be checked."""

    def on_retry(self, path: str, reason: str, detail: str, pause: float) -> None:
        """A request will be made again after so many seconds."""

    def on_verified(self, file: RemoteFile) -> None:
        """A file is whole, and right as far as the source says what is right."""


@dataclass(frozen=True, slots=True)
class Staging:
    """One download's work.

    Attributes:
        tree: Where the files grow.
        journal: Remembers what has arrived.
        observer: Told of everything.
    """

    tree: Path
    journal: Journal
    observer: TransferObserver
