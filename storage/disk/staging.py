"""The work of one download as fetchers see it: the tree, the journal and the observer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from storage.disk.journal import Journal
    from storage.disk.listing import RemoteFile

__all__ = ["Staging", "TransferObserver"]


class TransferObserver(Protocol):
    """Receives the steps of a transfer. Called from several threads."""

    def on_bytes(self, path: str, count: int) -> None:
        """Bytes of a file arrived; `count` is negative if bytes are discarded and fetched again."""

    def on_hashed(self, count: int) -> None:
        """Bytes were read for verification."""

    def on_retry(self, path: str, reason: str, detail: str, pause: float) -> None:
        """A request will be retried after `pause` seconds."""

    def on_verified(self, file: RemoteFile) -> None:
        """A file is complete, and has the source's digest if the source gives one."""


@dataclass(frozen=True, slots=True)
class Staging:
    """The work of one download.

    Attributes:
        tree: The directory of the growing files.
        journal: Records which bytes have arrived.
        observer: Receives all steps.
    """

    tree: Path
    journal: Journal
    observer: TransferObserver
