"""The two questions that an object store is asked besides for bytes: what there is, and what one object is."""

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
_OK: Final = frozenset((HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT))  # a part is the latter
_MAX_ERROR_BYTES: Final = 64 << 10
_T = TypeVar("_T")


class Api:
    """Lists and heads the objects of a bucket."""

    def __init__(self, store: Store, transport: Transport, *, memory: int = DEFAULT_MEMORY) -> None:
        """Prepare; nothing is asked yet.

        Args:
            store: The bucket.
            transport: Sends requests.
            memory: Bytes that a listing may have at most.
        """
        self._store = store
        self._transport = transport
        self._memory = memory

    def rows(self, prefix: str, what: str, *, limit: int | None = None) -> Iterator[Row]:
        """Yield the objects whose keys begin so, over all pages, or those of the first page with a `limit`.

        Raises:
            StorageError: The store refuses, or its listing makes no sense or has no end.
        """
        token: str | None = None
        pages = Pages(self._memory)
        while True:
            page = read_page(self._ask("GET", what, pages.read, query=_query(prefix, limit, token)), what)
            yield from page.rows
            if limit or not page.goes_on:
                return
            if not page.token or page.token == token:
                raise CorruptError(f"{what}: the listing says that it goes on, and does not say where")
            token = page.token

    def head(self, key: str, what: str, *, part: int | None = None) -> Mapping[str, str]:
        """Return the headers of an object, or of one part of it, in small letters.

        Raises:
            StorageError: The store refuses.
        """
        query = f"partNumber={part}" if part else ""
        return self._ask("HEAD", what, _headers, path=quote(key, safe="/~"), query=query)

    def _ask(
        self, method: str, what: str, take: Callable[[BaseHTTPResponse], _T], *, path: str = "", query: str = ""
    ) -> _T:
        """Return what `take` makes of an answer; ask again where that may help."""
        return retried(what, partial(self._ask_once, method, what, take, path, query), tries=_TRIES)

    def _ask_once(self, method: str, what: str, take: Callable[[BaseHTTPResponse], _T], path: str, query: str) -> _T:
        url = self._store.url(path, query)
        signed = self._store.sign(method, url, {"x-amz-checksum-mode": "ENABLED"} if method == "HEAD" else {})
        response = self._transport.open(method, url, signed)
        check_passing(response)
        if response.status in _OK:
            return take(response)
        if self._moves(response.headers.get("x-amz-bucket-region")):
            let_go(response)
            return self._ask_once(method, what, take, path, query)
        raise error_of(what, response.status, response.headers, read_head(response, _MAX_ERROR_BYTES))[0]

    def _moves(self, region: str | None) -> bool:
        """Whether the bucket is in another region of AWS, which is asked from now on."""
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
