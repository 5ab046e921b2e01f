"""HTTP sources (S3, OBS, the Hub): the source lists and signs, `storage.transfer` fetches ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage.request.source import S3Source
from storage.transfer.http_client import Transport
from storage.transfer.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.disk.listing import Digest, Listing, RemoteFile
    from storage.disk.staging import Staging
    from storage.request.download import DownloadRequest
    from storage.request.source import HubSource
    from storage.transfer.origin import Origin

__all__ = ["RangedFetcher"]


class RangedFetcher:
    """A fetcher for a source with an `Origin`."""

    lists_digests = False

    def __init__(self, source: S3Source | HubSource, request: DownloadRequest) -> None:
        """Prepare; no request is sent yet.

        Raises:
            CredentialsError: The source needs credentials, and there are none.
        """
        self._request = request
        self._transport = Transport(connections=request.max_workers, read_timeout=request.read_timeout)
        self._origin = _origin(source, request, self._transport)

    def listing(self) -> Listing:
        return self._origin.listing()

    def find_digest(self, file: RemoteFile) -> Digest | None:
        """Ask the source for a file's digest, which may take a request."""
        return self._origin.digest(file, None)

    def fetch(self, files: Sequence[RemoteFile], staging: Staging, *, workers: int) -> list[RemoteFile]:
        """Fetch files into the tree; return them as they arrived. The connections are closed afterwards."""
        try:
            return Scheduler(self._origin, self._transport, staging, workers=workers, tries=self._request.tries).run(
                files
            )
        finally:
            self._transport.close()


def _origin(source: S3Source | HubSource, request: DownloadRequest, transport: Transport) -> Origin:
    """Return the origin of a source. Only the library of this source is imported."""
    if isinstance(source, S3Source):
        from storage.sources.s3.origin import S3Origin

        return S3Origin(source, request.config, transport, memory=request.memory)
    from storage.sources.hub.origin import HubOrigin

    return HubOrigin(source, request.config, transport, memory=request.memory, tries=min(request.tries, 4))
