"""Reads complete answers with limits, and retries requests that may succeed later (docs/adr/0017)."""

from __future__ import annotations

from time import sleep
from typing import TYPE_CHECKING, Final, TypeVar

from storage.errors import NetworkError, TooLargeError
from storage.transfer.http_client import Failure, address_of
from storage.transfer.responses import read_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from urllib3 import BaseHTTPResponse

__all__ = ["MAX_PAGES", "MAX_PAGE_BYTES", "Pages", "retried"]

# A page of 1,000 names of 1,024 bytes, with each byte percent-encoded, has 3.4 MB.
MAX_PAGE_BYTES: Final = 4 << 20
MAX_PAGES: Final = 500

_FIRST_PAUSE_SECONDS: Final = 0.25
_LONGEST_ASKED_PAUSE_SECONDS: Final = 15.0
_T = TypeVar("_T")


def retried(what: str, ask: Callable[[], _T], *, tries: int) -> _T:
    """Call `ask` until it returns; at most `tries` times, with backoff.

    Raises:
        NetworkError: All attempts failed; `what` names the source in the message.
    """
    for number in range(tries):
        try:
            return ask()
        except Failure as failure:
            if number + 1 == tries:
                raise NetworkError(f"{what} cannot be reached: {failure.detail} ({failure.reason})") from failure
            sleep(max(_FIRST_PAUSE_SECONDS * 2**number, min(failure.after, _LONGEST_ASKED_PAUSE_SECONDS)))
    raise AssertionError  # the last try returns or raises


class Pages:
    """Reads the pages of one listing, and limits their number and their size."""

    def __init__(self, limit: int) -> None:
        """Start a listing.

        Args:
            limit: Maximum bytes of all pages together.
        """
        self._limit = limit
        self._count = 0
        self._bytes = 0

    def read(self, response: BaseHTTPResponse) -> bytearray:
        """Return the body of the next page.

        Raises:
            TooLargeError: The page or the listing exceeds a limit.
        """
        self._count += 1
        if self._count > MAX_PAGES:
            response.close()
            raise self._error(response, f"more than {MAX_PAGES} pages")
        body = read_whole(response, MAX_PAGE_BYTES)
        self._bytes += len(body)
        if self._bytes > self._limit:
            raise self._error(response, f"more than {self._limit} bytes")
        return body

    @staticmethod
    def _error(response: BaseHTTPResponse, much: str) -> TooLargeError:
        return TooLargeError(f"{address_of(response.url or '')}: the listing has {much}, the limit for it")
