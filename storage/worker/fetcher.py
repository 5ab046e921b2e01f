"""The interface of a source to a download, and the one place that knows which class implements which source."""

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
    """A source, as the download uses it."""

    # Whether the listing already has every digest that the source can give.
    lists_digests: bool

    def listing(self) -> Listing:
        """List all files of the source; raises StorageError."""

    def find_digest(self, file: RemoteFile) -> Digest | None:
        """Ask the source for the digest of a file whose listing has none; `None` if the source has none."""

    def fetch(self, files: Sequence[RemoteFile], staging: Staging, *, workers: int) -> list[RemoteFile]:
        """Fetch files into the tree with `workers` threads, and return them as they arrived.

        A file that changed at the source meanwhile is returned as the new one. Raises StorageError.
        """


def open_source(source: Source, request: DownloadRequest, target: Path) -> Fetcher:
    """Return the fetcher of a source. Its libraries are imported only here: each source needs other ones."""
    if isinstance(source, PvcSource):
        from storage.sources.volume import VolumeCopier

        return VolumeCopier(source, target, memory=request.memory)
    from storage.sources.ranged import RangedFetcher

    return RangedFetcher(source, request)
