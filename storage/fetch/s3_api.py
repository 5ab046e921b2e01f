"""The two questions that an object store is asked besides for bytes: what there is, and what one object is."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from time import sleep
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree as ET

from storage.errors import CorruptError, NetworkError
from storage.fetch.s3_errors import error_of
from storage.transport import Failure, failures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from storage.fetch.s3_store import Store
    from storage.transport import Transport

__all__ = ["Api", "Row"]

_TRIES: Final = 4
_FIRST_PAUSE_SECONDS: Final = 0.25
_RETRIED: Final = frozenset((408, 429, 500, 502, 503, 504))
_OK: Final = frozenset((HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT))  # a part is the latter
_MAX_BODY: Final = 32 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a listing."""

    key: str
    size: int
    etag: str


class Api:
    """Lists and heads the objects of a bucket."""

    def __init__(self, store: Store, transport: Transport) -> None:
        self._store = store
        self._transport = transport

    def rows(self, prefix: str, what: str, *, limit: int | None = None) -> Iterator[Row]:
        """Yield the objects whose keys begin so, over all pages, or those of the first page with a `limit`.

        Raises:
            StorageError: The store refuses, or its listing makes no sense.
        """
        token: str | None = None
        while True:
            page = _Page(self._ask("GET", what, query=_query(prefix, limit, token)), what)
            yield from page.rows
            if limit or not page.goes_on:
                return
            if not page.token or page.token == token:
                raise CorruptError(f"{what}: the listing says that it goes on, and does not say where")
            token = page.token

    def head(self, key: str, what: str, *, part: int | None = None) -> Mapping[str, str]:
        """Return the headers of an object, or of one part of it.

        Raises:
            StorageError: The store refuses.
        """
        query = f"partNumber={part}" if part else ""
        headers: dict[str, str] = {}
        self._ask("HEAD", what, path=quote(key, safe="/~"), query=query, headers=headers)
        return headers

    def _ask(
        self, method: str, what: str, *, path: str = "", query: str = "", headers: dict[str, str] | None = None
    ) -> bytes:
        """Return the body of an answer, and put its headers into `headers`; ask again where that may help."""
        for left in reversed(range(_TRIES)):
            try:
                return self._ask_once(method, what, path, query, headers)
            except Failure as failure:
                if not left:
                    raise NetworkError(f"{what} cannot be reached: {failure.detail} ({failure.reason})") from failure
                sleep(max(_FIRST_PAUSE_SECONDS * 2 ** (_TRIES - 1 - left), min(failure.after, 15.0)))
        raise AssertionError

    def _ask_once(self, method: str, what: str, path: str, query: str, headers: dict[str, str] | None) -> bytes:
        url = self._store.url(path, query)
        signed = self._store.sign(method, url, {"x-amz-checksum-mode": "ENABLED"} if method == "HEAD" else {})
        response = self._transport.open(method, url, signed)
        with failures(url):
            body = response.read(_MAX_BODY)
        response.release_conn()
        if response.status in _RETRIED:
            after = response.headers.get("Retry-After", "")
            raise Failure(
                f"http_{response.status}",
                f"the store answers {response.status}",
                after=float(after) if after.isdigit() else 0,
            )
        if response.status not in _OK:
            if self._moves(response.headers.get("x-amz-bucket-region")):
                return self._ask_once(method, what, path, query, headers)
            raise error_of(what, response.status, response.headers, body)[0]
        if headers is not None:
            headers.update((name.lower(), value) for name, value in response.headers.items())
        return body

    def _moves(self, region: str | None) -> bool:
        """Whether the bucket is in another region of AWS, which is asked from now on."""
        if not region or region == self._store.region or self._store.named:
            return False
        self._store.move(region)
        return True


def _query(prefix: str, limit: int | None, token: str | None) -> str:
    values = {
        "continuation-token": token,
        "encoding-type": "url",
        "list-type": "2",
        "max-keys": limit,
        "prefix": prefix,
    }
    return "&".join(f"{name}={quote(str(value), safe='~')}" for name, value in values.items() if value is not None)


class _Page:
    """One answer to ListObjectsV2."""

    def __init__(self, body: bytes, what: str) -> None:
        try:
            root = ET.fromstring(body)  # noqa: S314 - expat bounds what entities may grow to
            self._space = root.tag.removesuffix("ListBucketResult")
            if self._space == root.tag:
                raise ValueError
            decode = unquote_plus if self._text(root, "EncodingType") == "url" else str
            self.rows = [self._row(each, decode) for each in root.iterfind(f"{self._space}Contents")]
        except (ET.ParseError, ValueError):
            raise NetworkError(f"{what}: the answer to the request for a listing is none") from None
        self.goes_on = self._text(root, "IsTruncated") == "true"
        self.token = self._text(root, "NextContinuationToken")

    def _row(self, element: ET.Element, decode: Callable[[str], str]) -> Row:
        key, size, etag = (self._text(element, name) for name in ("Key", "Size", "ETag"))
        return Row(decode(key), int(size), etag.strip('"'))

    def _text(self, element: ET.Element, name: str) -> str:
        return element.findtext(f"{self._space}{name}") or ""
