"""S3 and OBS: lists a bucket, signs requests and finds digests; `storage.transfer.scheduler` fetches.

Each request is signed again, with headers. So no signature expires during a long download, and rotating credentials
(IRSA, instance roles) are always current.

A checksum that the store keeps comes first: it is cheap to compute, and holds for encrypted objects, too. Otherwise an
ETag can be the digest: the MD5 of an object uploaded in one piece, or the MD5 over the parts' MD5s of a multipart
upload ("...-12"). Neither holds for objects encrypted with SSE-KMS or SSE-C (docs/adr/0012).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from storage.disk.listing import Digest, RemoteFile, gather
from storage.errors import NetworkError, StorageError
from storage.memory import DEFAULT_MEMORY
from storage.sources.s3.api import Api
from storage.sources.s3.digests import checksum, composite, etag_digest, is_opaque, likely_part_size, multipart
from storage.sources.s3.refusals import error_of
from storage.sources.s3.store import find_store
from storage.transfer.origin import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from storage.disk.listing import Listing
    from storage.request.config import Config
    from storage.request.source import S3Source
    from storage.sources.s3.page import Row
    from storage.transfer.http_client import Transport

__all__ = ["S3Origin"]

# The MD5 of no bytes.
_NOTHING: Final = Digest("md5", "d41d8cd98f00b204e9800998ecf8427e")
_EXPIRED: Final = frozenset(("ExpiredToken", "RequestExpired"))


class S3Origin:
    """The objects below a prefix of a bucket."""

    def __init__(self, source: S3Source, config: Config, transport: Transport, *, memory: int = DEFAULT_MEMORY) -> None:
        """Find the store's address and credentials; no request is sent to it yet.

        Args:
            source: The prefix.
            config: Credentials and endpoint.
            transport: Sends requests.
            memory: Memory limit of this process in bytes.

        Raises:
            CredentialsError: There are none, and anonymous access was not requested.
        """
        self._source = source
        self._store = find_store(source, config)
        self._memory = memory
        self._api = Api(self._store, transport, memory=memory)

    def listing(self) -> Listing:
        """List the objects below the prefix, or the one object of that name.

        Raises:
            StorageError: The bucket cannot be listed.
        """
        prefix = self._source.prefix
        below = f"{prefix}/" if prefix else ""
        # An empty object whose key ends with a slash is a folder's marker.
        rows = (row for row in self._rows(below) if row.size or not row.key.endswith("/"))
        listing = self._gather(_file(row, row.key.removeprefix(below)) for row in rows)
        if listing.files or not prefix:
            return listing
        # An empty object with the prefix's own name is the marker of a folder that has become empty: it is no file.
        exact = (row for row in self._rows(prefix, limit=1) if row.key == prefix and row.size)
        return self._gather(_file(row, prefix.rpartition("/")[2]) for row in exact)

    def _gather(self, files: Iterable[RemoteFile]) -> Listing:
        return gather(self._source.uri, "", files, self._memory)

    def _rows(self, prefix: str, *, limit: int | None = None) -> Iterator[Row]:
        return self._api.rows(prefix, self._source.uri, limit=limit)

    def request(self, file: RemoteFile) -> Request:
        """Return a GET request for an object, with a new signature and If-Match."""
        url = self._store.url(quote(file.origin, safe="/~"))
        headers = self._store.sign("GET", url, {"x-amz-checksum-mode": "ENABLED"} if file.size else {})
        if file.validator:
            # The pieces of a file come from many requests: all must be of the listed version.
            headers["If-Match"] = f'"{file.validator}"'
        return Request(url, headers, file.validator or None)

    def digest(self, file: RemoteFile, headers: Mapping[str, str] | None) -> Digest | None:
        """Return an object's digest from its ETag and the headers of an answer; sends a HEAD if those do not tell."""
        if not file.size:
            # There are no bytes to doubt: an ETag other than the MD5 of no bytes is that of an encrypted object.
            return file.digest if file.digest == _NOTHING else None
        if headers is None or "Content-Range" in headers:
            headers = self._head(file)  # an answer to a range has no checksum of the whole object
        return checksum(headers) or self._parts_digest(file, headers) or (None if is_opaque(headers) else file.digest)

    def _head(self, file: RemoteFile, part: int | None = None) -> Mapping[str, str]:
        return self._api.head(file.origin, f"{file.path} of {self._source.uri}", part=part)

    def _parts_digest(self, file: RemoteFile, headers: Mapping[str, str]) -> Digest | None:
        """Return a digest over parts. It is certain if the store confirms the sizes of the first and the last part."""
        found = composite(headers) or (None if is_opaque(headers) else multipart(file.validator))
        if found is None:
            return None
        algorithm, value, count = found
        first, last = self._part_length(file, 1), self._part_length(file, count)
        if first and last and first * (count - 1) + last == file.size:
            return Digest(algorithm, value, first)
        guess = likely_part_size(file.size, count)
        return Digest(algorithm, value, guess, certain=False) if guess else None

    def _part_length(self, file: RemoteFile, number: int) -> int | None:
        try:
            headers = self._head(file, number)
        except StorageError:
            return None
        # A store that ignores `partNumber` answers with the whole object.
        return _length(headers, file) if headers.get("x-amz-mp-parts-count") else None

    def refresh(self, file: RemoteFile) -> RemoteFile:
        """Return the current state of an object."""
        headers = self._head(file)
        etag = headers.get("etag", "").strip('"')
        return RemoteFile(file.path, _length(headers, file), etag, file.origin, etag_digest(etag))

    def explain(
        self, file: RemoteFile, status: int, headers: Mapping[str, str], body: bytes
    ) -> tuple[StorageError, bool]:
        """Return the error for an answer of the store, and whether a new signature may help."""
        error, code = error_of(f"{file.path} of {self._source.uri}", status, headers, body)
        # The listing was allowed, so a refusal may be temporary: keys were rotated since, or a proxy is not up to date.
        return error, status == HTTPStatus.FORBIDDEN or code in _EXPIRED


def _length(headers: Mapping[str, str], file: RemoteFile) -> int:
    text = headers.get("content-length", "")
    if not text.isascii() or not text.isdigit():
        raise NetworkError(f"{file.path}: the store does not say how long it is")
    return int(text)


def _file(row: Row, path: str) -> RemoteFile:
    return RemoteFile(path, row.size, row.etag, row.key, etag_digest(row.etag))
