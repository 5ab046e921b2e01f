"""Fetch the engine's page over HTTP, within a deadline and a size.

http.client and not a library above it: at 60 KB a page, urllib3 spends twice
and requests three times the time on a request, as much as all the rest of a
scrape (docs/adr/0002).
"""

from __future__ import annotations

import socket
import ssl
import zlib
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from exporter.engine.answer import Answer
from exporter.engine.body import read_body
from exporter.engine.deadline import Deadline, DeadlineSocket, DeadlineTLSSocket
from exporter.page.cost import check_lines
from exporter.page.errors import Reason, ScrapeError
from exporter.values import shown
from storage.framing import FramingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["LOOP_HEADER", "EngineClient", "Fetched"]

# Names the runtime that asks, so that one which is asked by itself can tell.
LOOP_HEADER: Final = "X-Kthena-Runtime-Instance"

_CHUNK: Final = 1 << 16
_TEXT_FORMAT: Final = "text/plain;version=0.0.4;q=1,*/*;q=0.1"
_OPENMETRICS: Final = "application/openmetrics-text"
_LOOP_STATUS: Final = HTTPStatus.LOOP_DETECTED
_MAX_REDIRECTS: Final = 4
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# What a URL may hold as it is: its own delimiters, and escapes.
_URL_CHARACTERS: Final = "/%?&=+,;:@!$'()*~-._"

# The first class that fits names the reason, and its words.
_REASONS: Final[tuple[tuple[type[BaseException], Reason, str], ...]] = (
    (socket.gaierror, Reason.DNS, "the engine's host name does not resolve"),
    (UnicodeError, Reason.DNS, "the engine's host name does not resolve"),
    (
        ConnectionRefusedError,
        Reason.REFUSED,
        "the engine refuses connections: is it running, and is --engine-base-url its address?",
    ),
    (TimeoutError, Reason.TIMEOUT, "the engine did not answer within {budget:.3g} s"),
    (ssl.SSLError, Reason.TLS, "no TLS connection to the engine: {error}"),
    (zlib.error, Reason.ENCODING, "the body cannot be decompressed"),
    (IncompleteRead, Reason.TRUNCATED, "the connection ended before the body did"),
    (FramingError, Reason.CONNECTION, "the engine's answer has {error}"),
    (HTTPException, Reason.CONNECTION, "the engine does not answer in HTTP: {kind}"),
    (OSError, Reason.CONNECTION, "the connection broke: {error}"),
)


_Origin: TypeAlias = "tuple[str, str | None, int | None]"


class Fetched:
    """A page as it came: the body and whether it is OpenMetrics text."""

    __slots__ = ("body", "openmetrics")

    def __init__(self, body: bytes, *, openmetrics: bool = False) -> None:
        """Hold a decoded body."""
        self.body = body
        self.openmetrics = openmetrics


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
        self._parts = urlsplit(url)
        self._max_bytes = max_bytes
        self._deadline = Deadline(clock)
        # Reading the certificates takes longer than all else at start.
        self._tls = _tls_context() if self._parts.scheme == "https" else None
        # By origin: a redirect may lead to another one, at every scrape.
        self._connections: dict[_Origin, HTTPConnection] = {}
        self._used: set[_Origin] = set()
        # Compressing at level 9 would cost the engine more than sending the page.
        self._headers = {"Accept": _TEXT_FORMAT, "Accept-Encoding": "identity", **(headers or {})}

    def fetch(self, budget: float) -> Fetched:
        """Fetch the page within `budget` seconds.

        Raises:
            ScrapeError: There is no whole page to be had, with the reason.
        """
        self._deadline.set(budget)
        self._used.clear()
        try:
            fetched = self._read(self._follow(self._parts))
        except BaseException as error:
            # Half-read: the rest would be taken for the next answer.
            self.close()
            if isinstance(error, (OSError, HTTPException, zlib.error, UnicodeError)):
                raise _classify(error, budget) from error
            raise
        # Redirects may lead to a new place each time: those of the last time are not kept.
        for origin in self._connections.keys() - self._used:
            self._connections.pop(origin).close()
        return fetched

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def _follow(self, parts: SplitResult) -> HTTPResponse:
        """Return the response at the end of the redirects."""
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._request(parts)
            location = response.getheader("Location") if response.status in _REDIRECTS else None
            if not location:
                return response
            response.read(_CHUNK)
            if not response.isclosed():
                # The rest of a long body would be taken for the next answer.
                self._connection(parts).close()
            parts = _redirected(parts, location)
        raise ScrapeError(Reason.REDIRECT, "the engine redirects without end")

    def _request(self, parts: SplitResult) -> HTTPResponse:
        connection = self._connection(parts)
        fresh = connection.sock is None
        try:
            return self._send(connection, parts)
        except (ConnectionResetError, BrokenPipeError, HTTPException):
            # The engine closed the connection while it was idle: the request had no effect there.
            connection.close()
            if fresh:
                raise
            return self._send(connection, parts)

    def _send(self, connection: HTTPConnection, parts: SplitResult) -> HTTPResponse:
        if connection.sock is None:
            self._connect(connection)
        target = quote(parts.path or "/", safe=_URL_CHARACTERS)
        if parts.query:
            target += "?" + quote(parts.query, safe=_URL_CHARACTERS)
        connection.request("GET", target, headers=self._headers)
        return connection.getresponse()

    def _connection(self, parts: SplitResult) -> HTTPConnection:
        origin = (parts.scheme, parts.hostname, parts.port)
        self._used.add(origin)
        if origin not in self._connections:
            self._connections[origin] = self._new_connection(parts)
        return self._connections[origin]

    def _new_connection(self, parts: SplitResult) -> HTTPConnection:
        host = parts.hostname or ""
        if parts.scheme == "http":
            connection = HTTPConnection(host, parts.port)
        else:
            connection = HTTPSConnection(host, parts.port, context=self._trust())
        connection.response_class = Answer
        return connection

    def _trust(self) -> ssl.SSLContext:
        # A redirect may be the first to lead to https.
        self._tls = self._tls or _tls_context()
        return self._tls

    def _connect(self, connection: HTTPConnection) -> None:
        sock: Any = self._dial(connection.host, connection.port)
        if isinstance(connection, HTTPSConnection):
            sock = self._encrypted(sock, connection.host)
        sock.deadline = self._deadline
        connection.sock = sock

    def _dial(self, host: str, port: int) -> DeadlineSocket:
        """Connect to the first address that answers; each may take its share of the time that is left."""
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for count, (family, kind, protocol, _, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
            sock = DeadlineSocket(family, kind, protocol)
            try:
                sock.settimeout(self._deadline.left() / count)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                sock.close()
                if count == 1:
                    raise
            else:
                return sock
        raise socket.gaierror(socket.EAI_NONAME, "no address")

    def _encrypted(self, sock: socket.socket, host: str) -> ssl.SSLSocket:
        try:
            # One timeout is for all of the handshake.
            sock.settimeout(self._deadline.left())
            return self._trust().wrap_socket(sock, server_hostname=host)
        except BaseException:
            sock.close()
            raise

    def _read(self, response: HTTPResponse) -> Fetched:
        if response.status != HTTPStatus.OK:
            response.close()
            reason = Reason.LOOP if response.status == _LOOP_STATUS else Reason.HTTP_STATUS
            raise ScrapeError(reason, f"{shown(self.url)} answered {response.status}")
        body = read_body(response, self._max_bytes)
        check_lines(body)
        if response.will_close:
            self.close()
        return Fetched(body, openmetrics=response.getheader("Content-Type", "").startswith(_OPENMETRICS))


def _redirected(parts: SplitResult, location: str) -> SplitResult:
    try:
        target = urlsplit(urljoin(parts.geturl(), location))
        if target.scheme in ("http", "https") and target.hostname and target.port != 0:
            return target
    except ValueError:  # no port, or no host
        pass
    raise ScrapeError(Reason.REDIRECT, "the engine redirects to what is no http URL")


def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.sslsocket_class = DeadlineTLSSocket
    return context


def _classify(error: BaseException, budget: float) -> ScrapeError:
    """Find the reason in what went wrong."""
    reason, words = next((reason, words) for kind, reason, words in _REASONS if isinstance(error, kind))
    said = error.strerror if isinstance(error, OSError) else str(error) if isinstance(error, FramingError) else None
    return ScrapeError(
        reason, words.format(budget=budget, error=said or type(error).__name__, kind=type(error).__name__)
    )
