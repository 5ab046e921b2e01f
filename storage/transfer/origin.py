"""The interface of an HTTP source to the scheduler."""

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
    """A GET request for a file.

    Attributes:
        url: The URL.
        headers: Headers, possibly with credentials: sent to this URL's origin only.
        etag: The ETag that the answer must have, if it comes from this URL without a redirect.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    etag: str | None = None


class Origin(Protocol):
    """An HTTP source. Several threads use it concurrently."""

    def listing(self) -> Listing:
        """List all files; raises StorageError."""

    def request(self, file: RemoteFile) -> Request:
        """Return a request for a file, with a new signature."""

    def digest(self, file: RemoteFile, headers: Mapping[str, str] | None) -> Digest | None:
        """Return a file's digest, from the listing or from an answer's headers (`None` before there is one).

        It may send a request. `None` if the source gives no digest.
        """

    def refresh(self, file: RemoteFile) -> RemoteFile:
        """Return the current state of a file that has changed since the listing."""

    def explain(
        self, file: RemoteFile, status: int, headers: Mapping[str, str], body: bytes
    ) -> tuple[StorageError, bool]:
        """Return the error for an answer, and whether a retry with a new signature may help."""
