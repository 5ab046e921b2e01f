"""HTTP for the transfers: one request gives one answer, and nothing happens implicitly.

Redirects are not followed and requests are not retried here. What may be retried is a
`Failure` with a reason; what may not is a `StorageError`. `storage.transfer.responses`
reads answers.
"""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import contextmanager
from http.client import HTTPException
from threading import Lock
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3 import exceptions
from urllib3.util import Timeout, make_headers
from urllib3.util.ssl_ import create_urllib3_context

from storage.errors import NetworkError
from storage.memory import is_exhaustion
from storage.request.retries import Retry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from urllib3 import BaseHTTPResponse, PoolManager

__all__ = ["Failure", "Transport", "address_of", "failures", "origin_of"]

CONNECT_SECONDS: Final = 10.0
# The first variable that is set names the certificate authorities: boto's, requests' and OpenSSL's variables.
_CA_VARIABLES: Final = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_AGENT: Final = "kthena-downloader"

# The first class that fits names the reason: the `reason` label of the retries metric.
_REASONS: Final[tuple[tuple[type[BaseException], Retry], ...]] = (
    (exceptions.NameResolutionError, Retry.DNS),
    (socket.gaierror, Retry.DNS),
    (ConnectionRefusedError, Retry.REFUSED),
    (exceptions.TimeoutError, Retry.TIMEOUT),
    (TimeoutError, Retry.TIMEOUT),
    (exceptions.SSLError, Retry.TLS),
    (ssl.SSLError, Retry.TLS),
    (exceptions.IncompleteRead, Retry.TRUNCATED),
)


class Failure(Exception):
    """A request failed, and a retry may succeed.

    Attributes:
        reason: A label for metrics: `timeout`, `reset`, `truncated`, `http_503`...
        detail: A sentence for users.
        after: Seconds that the server asked to wait (Retry-After).
    """

    def __init__(self, reason: str, detail: str, *, after: float = 0.0) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.after = after


class Transport:
    """Keep-alive connections to all hosts of one download; safe for threads."""

    def __init__(self, *, connections: int, read_timeout: float) -> None:
        """Prepare; no connection is opened yet.

        Args:
            connections: The number of threads that will use it.
            read_timeout: Seconds without a byte after which a read fails.
        """
        self._connections = connections
        self._timeout = Timeout(connect=min(CONNECT_SECONDS, read_timeout), read=read_timeout)
        self._managers: dict[tuple[str | None, bool], PoolManager] = {}
        self._context: ssl.SSLContext | None = None
        self._lock = Lock()

    def open(self, method: str, url: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Send a request, and return the answer with its body unread.

        Raises:
            Failure: There is no answer; a retry may succeed.
            NetworkError: There is no answer, and a retry cannot succeed.
        """
        with failures(url):
            response = self._manager(url).urlopen(
                method, url, headers={"Accept-Encoding": "identity", "User-Agent": _AGENT, **headers},
                preload_content=False, redirect=False, retries=False, timeout=self._timeout,
            )  # fmt: skip
            response.url = url  # urllib3 sets only the path
            return response

    def _manager(self, url: str) -> PoolManager:
        parts = urlsplit(url)
        proxy = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
        key = (proxy, parts.scheme == "https" or (proxy or "").startswith("https:"))
        with self._lock:
            if key not in self._managers:
                self._managers[key] = self._make(*key)
            return self._managers[key]

    def _make(self, proxy: str | None, is_secure: bool) -> PoolManager:  # noqa: FBT001 - a key of the table
        if is_secure and not self._context:
            # One context for all connections (ADR 17): each context holds all authorities, about a megabyte.
            self._context = _tls_context()
        context = self._context if is_secure else None
        if proxy:
            return urllib3.ProxyManager(
                proxy, maxsize=self._connections, ssl_context=context, proxy_ssl_context=context,
                proxy_headers=_proxy_headers(proxy),
            )  # fmt: skip
        return urllib3.PoolManager(maxsize=self._connections, ssl_context=context)

    def close(self) -> None:
        """Close all idle connections."""
        for manager in self._managers.values():
            manager.clear()


def _tls_context() -> ssl.SSLContext:
    context = create_urllib3_context()
    bundle = next((os.environ[name] for name in _CA_VARIABLES if os.environ.get(name)), None)
    if bundle:
        context.load_verify_locations(bundle)
    else:
        context.load_default_certs()
    return context


def _proxy_headers(proxy: str) -> Mapping[str, str]:
    user, is_named, _ = urlsplit(proxy).netloc.rpartition("@")
    return make_headers(proxy_basic_auth=unquote(user)) if is_named else {}


@contextmanager
def failures(url: str) -> Iterator[None]:
    """Convert errors of urllib3 and the socket to `Failure`, or to `NetworkError` if a retry cannot succeed.

    Exhausted memory becomes a MemoryError.
    """
    try:
        yield
    except exceptions.LocationValueError as error:
        raise NetworkError(f"{origin_of(url)} is no address to connect to: {error}") from error
    except (exceptions.HTTPError, HTTPException, OSError) as error:
        # urllib3 wraps the socket's error several times, partly in `reason` and `args` instead of `__cause__`.
        chain = list(_causes(error))
        if any(map(is_exhaustion, chain)):
            raise MemoryError from error
        if any(isinstance(each, ssl.SSLCertVerificationError) for each in chain):
            hint = f"set {_CA_VARIABLES[0]} to the authority's certificates"
            raise NetworkError(f"the certificate of {origin_of(url)} is not trusted ({chain[-1]}): {hint}") from error
        reason = next((why for kind, why in _REASONS if any(isinstance(each, kind) for each in chain)), Retry.RESET)
        raise Failure(reason, f"{origin_of(url)}: {_text(chain[-1])}") from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        nested = [getattr(error, "reason", None), *reversed(error.args)]
        found = next((each for each in nested if isinstance(each, BaseException)), None)
        error = found or error.__cause__ or error.__context__


def _text(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__


def address_of(url: str) -> str:
    """Return a URL for messages: shortened, and without the query, which may hold a signature."""
    parts = urlsplit(url)
    return f"{origin_of(url)}{parts.path}"[:300]


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL, without user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
