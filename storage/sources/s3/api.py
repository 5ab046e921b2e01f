"""The API requests to an object store: ListObjectsV2 and HEAD. They need no client of botocore (docs/adr/0012)."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote

from storage.errors import CorruptError
from storage.memory import DEFAULT_MEMORY
from storage.sources.answers import Pages, retried
from storage.sources.s3.page import read_page
from storage.sources.s3.refusals import error_of
from storage.transfer.responses import check_passing, let_go, read_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from urllib3 import BaseHTTPResponse

    from storage.sources.s3.page import Row
    from storage.sources.s3.store import Store
    from storage.transfer.http_client import Transport

__all__ = ["Api"]

_TRIES: Final = 4
_OK: Final = frozenset((HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT))  # 206 is the answer for one part of an object
_MAX_ERROR_BYTES: Final = 64 << 10
_T = TypeVar("_T")


class Api:
    """Lists and heads the objects of a bucket."""

    def __init__(self, store: Store, transport: Transport, *, memory: int = DEFAULT_MEMORY) -> None:
        """Prepare; no request is sent yet.

        Args:
            store: The bucket.
            transport: Sends requests.
            memory: Maximum bytes of a listing.
        """
        self._store = store
        self._transport = transport
        self._memory = memory

    def rows(self, prefix: str, what: str, *, limit: int | None = None) -> Iterator[Row]:
        """Yield the objects whose keys begin with `prefix`: of all pages, or of the first page if there is a `limit`.

        Raises:
            StorageError: The store refuses, or its listing makes no sense or exceeds a limit.
        """
        token: str | None = None
        pages = Pages(self._memory)
        while True:
            page = read_page(self._ask("GET", what, pages.read, query=_query(prefix, limit, token)), what)
            yield from page.rows
            if limit or not page.goes_on:
                return
            # A listing that repeats its token would never end.
            if not page.token or page.token == token:
                raise CorruptError(f"{what}: the listing says that it goes on, and does not say where")
            token = page.token

    def head(self, key: str, what: str, *, part: int | None = None) -> Mapping[str, str]:
        """Return the headers of an object, or of one part of it; names are in lower case.

        Raises:
            StorageError: The store refuses.
        """
        query = f"partNumber={part}" if part else ""
        return self._ask("HEAD", what, _headers, path=quote(key, safe="/~"), query=query)

    def _ask(
        self, method: str, what: str, take: Callable[[BaseHTTPResponse], _T], *, path: str = "", query: str = ""
    ) -> _T:
        """Send a request, with retries, and return the result of `take` for the answer."""
        return retried(what, partial(self._ask_once, method, what, take, path, query), tries=_TRIES)

    def _ask_once(self, method: str, what: str, take: Callable[[BaseHTTPResponse], _T], path: str, query: str) -> _T:
        response = self._send(method, path, query)
        # S3 names the right region in the answer of a wrong one. A store that then names another one is refused.
        if response.status not in _OK and self._moves(response.headers.get("x-amz-bucket-region")):
            let_go(response)
            response = self._send(method, path, query)
        if response.status in _OK:
            return take(response)
        raise error_of(what, response.status, response.headers, read_head(response, _MAX_ERROR_BYTES))[0]

    def _send(self, method: str, path: str, query: str) -> BaseHTTPResponse:
        url = self._store.url(path, query)
        signed = self._store.sign(method, url, {"x-amz-checksum-mode": "ENABLED"} if method == "HEAD" else {})
        response = self._transport.open(method, url, signed)
        check_passing(response)
        return response

    def _moves(self, region: str | None) -> bool:
        """Switch to the AWS region that an answer names; return whether the region is new."""
        if not region or region == self._store.region or self._store.named:
            return False
        self._store.move(region)
        return True


def _headers(response: BaseHTTPResponse) -> Mapping[str, str]:
    response.release_conn()
    return {name.lower(): value for name, value in response.headers.items()}


def _query(prefix: str, limit: int | None, token: str | None) -> str:
    values = {
        "continuation-token": token,
        "encoding-type": "url",
        "list-type": "2",
        "max-keys": limit,
        "prefix": prefix,
    }
    return "&".join(f"{name}={quote(str(value), safe='~')}" for name, value in values.items() if value is not None)
