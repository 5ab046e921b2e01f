"""Fetch the engine's page over HTTP, within a deadline and a size.

urllib3 and not requests: at 60 KB a page, requests spends more on its own
session than the rest of a scrape takes (docs/adr/0002).
"""

from __future__ import annotations

import socket
import ssl
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin

import urllib3
from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import Retry, Timeout, parse_url

from exporter.metrics.errors import Reason, ScrapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from urllib3 import BaseHTTPResponse

__all__ = ["LOOP_HEADER", "EngineClient", "Fetched"]

# Names the runtime that asks, so that one which is asked by itself can tell.
LOOP_HEADER: Final = "X-Kthena-Runtime-Instance"

_CHUNK: Final = 1 << 20
_TEXT_FORMAT: Final = "text/plain;version=0.0.4;q=1,*/*;q=0.1"
_OPENMETRICS: Final = "application/openmetrics-text"
_LOOP_STATUS: Final = HTTPStatus.LOOP_DETECTED

# One retry for a connection that the engine closed while it was idle: the
# request had no effect there, and the deadline bounds both tries together.
_RETRY: Final = Retry(total=None, connect=0, read=1, redirect=4, status=0, other=0, raise_on_redirect=True)

# The first class that fits names the reason; urllib3 nests the one that says why.
_REASONS: Final[tuple[tuple[type[BaseException], Reason], ...]] = (
    (exceptions.NameResolutionError, Reason.DNS),
    (socket.gaierror, Reason.DNS),
    (ConnectionRefusedError, Reason.REFUSED),
    (exceptions.TimeoutError, Reason.TIMEOUT),
    (TimeoutError, Reason.TIMEOUT),
    (exceptions.SSLError, Reason.TLS),
    (ssl.SSLError, Reason.TLS),
    (exceptions.DecodeError, Reason.ENCODING),
    (exceptions.IncompleteRead, Reason.TRUNCATED),
    (exceptions.ResponseError, Reason.REDIRECT),
)


class Fetched:
    """A page as it came: the body and whether it is OpenMetrics text."""

    __slots__ = ("body", "openmetrics")

    def __init__(self, body: bytes, *, openmetrics: bool = False) -> None:
        """Hold a decoded body."""
        self.body = body
        self.openmetrics = openmetrics


class _Deadline:
    """The moment by which the request under way must be over.

    urllib3's timeouts count from one read to the next, so an engine that sends
    a byte now and then would hold a scrape for ever. Sockets made here give
    each read only what is left.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = 0.0

    def set(self, budget: float) -> None:
        self._at = self._clock() + budget

    def left(self) -> float:
        """Return the seconds left; raises TimeoutError when there are none."""
        left = self._at - self._clock()
        if left <= 0:
            message = "the deadline is over"
            raise TimeoutError(message)
        return left


class _DeadlineSocket(socket.socket):
    deadline: _Deadline

    def recv_into(self, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401 - the signature of socket.socket
        self.settimeout(self.deadline.left())
        return super().recv_into(*args, **kwargs)


class _DeadlineSSLSocket(ssl.SSLSocket):
    deadline: _Deadline

    def recv_into(self, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401 - the signature of ssl.SSLSocket
        # The handshake reads too, before the deadline has been put on.
        if hasattr(self, "deadline"):
            self.settimeout(self.deadline.left())
        return super().recv_into(*args, **kwargs)


class EngineClient:
    """A keep-alive HTTP client for one URL; one fetch at a time.

    Attributes:
        url: The page that is fetched.
    """

    def __init__(
        self,
        url: str,
        *,
        max_bytes: int,
        headers: Mapping[str, str] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Prepare for fetches of `url`; nothing is sent yet.

        Args:
            url: An absolute http or https URL.
            max_bytes: The largest body, decoded, that is taken.
            headers: Sent with each request besides the usual ones.
            clock: A monotonic clock in seconds.
        """
        self.url = url
        self._max_bytes = max_bytes
        self._deadline = _Deadline(clock)
        self._manager = _pool_manager(self._deadline, secure=url.startswith("https:"))
        self._pool = self._manager.connection_from_url(url)
        self._target = parse_url(url).request_uri
        # Compressing at level 9 would cost the engine more than sending the page.
        self._headers = {"Accept": _TEXT_FORMAT, "Accept-Encoding": "identity", **(headers or {})}

    def fetch(self, budget: float) -> Fetched:
        """Fetch the page within `budget` seconds.

        Raises:
            ScrapeError: There is no whole page to be had, with the reason.
        """
        self._deadline.set(budget)
        try:
            response = self._open(Timeout(connect=budget, read=budget))
            try:
                return self._read(response)
            except BaseException:
                # Half-read: the rest would be taken for the next answer.
                response.close()
                raise
            finally:
                response.release_conn()
        except ScrapeError:
            raise
        except (exceptions.HTTPError, OSError) as error:
            raise _classify(error, budget) from error

    def close(self) -> None:
        """Close the idle connection."""
        self._manager.clear()

    def _open(self, timeout: Timeout) -> BaseHTTPResponse:
        # Straight to the pool: the manager would take the URL apart at each scrape.
        response = self._pool.urlopen(
            "GET",
            self._target,
            headers=self._headers,
            preload_content=False,
            redirect=False,
            retries=_RETRY,
            timeout=timeout,
        )
        location = response.get_redirect_location()
        if not location:
            return response
        response.drain_conn()
        response.release_conn()
        return self._manager.urlopen(
            "GET",
            urljoin(self.url, location),
            headers=self._headers,
            preload_content=False,
            retries=_RETRY,
            timeout=timeout,
        )

    def _read(self, response: BaseHTTPResponse) -> Fetched:
        if response.status != HTTPStatus.OK:
            response.close()
            reason = Reason.LOOP if response.status == _LOOP_STATUS else Reason.HTTP_STATUS
            raise ScrapeError(reason, f"{self.url} answered {response.status}")
        body = b"".join(self._chunks(response))
        return Fetched(body, openmetrics=response.headers.get("Content-Type", "").startswith(_OPENMETRICS))

    def _chunks(self, response: BaseHTTPResponse) -> Iterator[bytes]:
        size = 0
        while chunk := response.read1(_CHUNK, decode_content=True):
            size += len(chunk)
            if size > self._max_bytes:
                detail = f"the page is larger than {self._max_bytes} bytes (--max-scrape-bytes)"
                raise ScrapeError(Reason.TOO_LARGE, detail)
            yield chunk


def _pool_manager(deadline: _Deadline, *, secure: bool) -> urllib3.PoolManager:
    class Connection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            self.timeout = deadline.left()
            with super()._new_conn() as plain:
                made = _DeadlineSocket(fileno=plain.detach())
            made.deadline = deadline
            return made

    class SecureConnection(HTTPSConnection):
        def connect(self) -> None:
            self.timeout = deadline.left()
            super().connect()
            if isinstance(self.sock, _DeadlineSSLSocket):
                self.sock.deadline = deadline

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = SecureConnection

    context = None
    if secure:  # reading the certificates takes longer than all else at start
        context = ssl.create_default_context()
        context.sslsocket_class = _DeadlineSSLSocket
    manager = urllib3.PoolManager(num_pools=2, maxsize=1, ssl_context=context)
    manager.pool_classes_by_scheme = {"http": Pool, "https": SecurePool}
    return manager


def _classify(error: BaseException, budget: float) -> ScrapeError:
    """Find the reason in an exception of urllib3 and those it came from."""
    chain = list(_causes(error))
    for kind, reason in _REASONS:
        if any(isinstance(cause, kind) for cause in chain):
            return ScrapeError(reason, _DETAILS.get(reason, "{}").format(_innermost(chain), budget=budget))
    return ScrapeError(Reason.CONNECTION, f"the connection broke: {_innermost(chain)}")


_DETAILS: Final = {
    Reason.DNS: "the engine's host name does not resolve",
    Reason.REFUSED: "the engine refuses connections: is it running, and is --engine-base-url its address?",
    Reason.TIMEOUT: "the engine did not answer within {budget:g} s",
    Reason.TLS: "no TLS connection to the engine: {}",
    Reason.ENCODING: "the body cannot be decompressed",
    Reason.TRUNCATED: "the connection ended before the body did",
    Reason.REDIRECT: "the engine redirects without end",
}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        reason = getattr(error, "reason", None)
        error = reason if isinstance(reason, BaseException) else error.__cause__ or error.__context__


def _innermost(chain: list[BaseException]) -> str:
    error = chain[-1]
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
