"""A source as a download uses it, and the only place that knows which class fetches from which source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from storage.request.source import PvcSource

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from storage.disk.listing import Digest, Listing, RemoteFile
    from storage.disk.staging import Staging
    from storage.request.download import DownloadRequest
    from storage.request.source import Source

__all__ = ["Fetcher", "open_source"]


class Fetcher(Protocol):
    """A source as a download uses it."""

    # Whether a listing has every digest that there will ever be.
    lists_digests: bool

    def listing(self) -> Listing:
        """List all files."""

    def find_digest(self, file: RemoteFile) -> Digest | None:
        """Return what a file must add up to, though the listing does not say."""

    def fetch(self, files: Sequence[RemoteFile], staging: Staging, *, workers: int) -> list[RemoteFile]:
        """Bring files into the tree, and return them as they came."""


def open_source(source: Source, request: DownloadRequest, target: Path) -> Fetcher:
    """Make the fetcher of a source; what it needs is imported only now."""
    if isinstance(source, PvcSource):
        from storage.sources.volume import VolumeCopier

        return VolumeCopier(source, target, memory=request.memory)
    from storage.sources.ranged import RangedFetcher

    return RangedFetcher(source, request)
