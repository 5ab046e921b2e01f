"""A source that serves files over HTTP, as the scheduler uses it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storage.disk.listing import Digest, Listing, RemoteFile
    from storage.errors import StorageError

__all__ = ["Origin", "Request"]


@dataclass(frozen=True, slots=True)
class Request:
    """How to ask for a file.

    Attributes:
        url: Its address.
        headers: Sent to that address only, never to another host.
        etag: What the answer's ETag must be, when the address is not redirected.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    etag: str | None = None


class Origin(Protocol):
    """A source that serves files over HTTP."""

    def listing(self) -> Listing:
        """List all files."""

    def request(self, file: RemoteFile) -> Request:
        """Return a request for a file, signed now."""

    def digest(self, file: RemoteFile, headers: Mapping[str, str] | None) -> Digest | None:
        """Return what a file must add up to, as the listing or the headers of an answer say."""

    def refresh(self, file: RemoteFile) -> RemoteFile:
        """Return what a file is by now, as it is not what the listing said."""

    def explain(
        self, file: RemoteFile, status: int, headers: Mapping[str, str], body: bytes
    ) -> tuple[StorageError, bool]:
        """Return the error that an answer means, and whether a new signature may help."""
