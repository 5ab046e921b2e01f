"""Fetch the engine's page over HTTP, within a deadline and a size limit (docs/adr/0002).

The client is http.client of the standard library. For a page of 60 KB, urllib3
takes twice its CPU time, and requests up to six times. Neither can bound the
total time of a fetch. The client reads no proxies and no credentials from the
environment.
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

# The header names the runtime that asks, so that a runtime recognises its own scrape and answers 508.
LOOP_HEADER: Final = "X-Kthena-Runtime-Instance"

_CHUNK: Final = 1 << 16
_TEXT_FORMAT: Final = "text/plain;version=0.0.4;q=1,*/*;q=0.1"
_OPENMETRICS: Final = "application/openmetrics-text"
_LOOP_STATUS: Final = HTTPStatus.LOOP_DETECTED
_MAX_REDIRECTS: Final = 4
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# Characters of a URL that are sent as they are: its delimiters, and the percent signs of existing escapes.
_URL_CHARACTERS: Final = "/%?&=+,;:@!$'()*~-._"

# The first class that fits gives the reason and the sentence, so subclasses of OSError and HTTPException come first.
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
    """The engine's answer: the decompressed body, and whether its Content-Type is OpenMetrics."""

    __slots__ = ("body", "openmetrics")

    def __init__(self, body: bytes, *, openmetrics: bool = False) -> None:
        self.body = body
        self.openmetrics = openmetrics


class EngineClient:
    """A keep-alive HTTP client for one URL. Not thread-safe: one fetch at a time.

    Attributes:
        url: The URL of the engine's metrics page.
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
            max_bytes: The largest body that is accepted, in bytes as sent and as decompressed.
            headers: Additional headers of each request.
            clock: A monotonic clock in seconds.
        """
        self.url = url
        self._parts = urlsplit(url)
        self._max_bytes = max_bytes
        self._deadline = Deadline(clock)
        # Created for https only: reading the system's certificates is the slowest step of the start.
        self._tls = _tls_context() if self._parts.scheme == "https" else None
        # By origin: at every scrape, a redirect may lead from the engine's own origin to another one.
        self._connections: dict[_Origin, HTTPConnection] = {}
        self._used: set[_Origin] = set()
        # No compression: between containers of a pod, it would cost the engine more than sending the page.
        self._headers = {"Accept": _TEXT_FORMAT, "Accept-Encoding": "identity", **(headers or {})}

    def fetch(self, budget: float) -> Fetched:
        """Fetch the page within `budget` seconds.

        Raises:
            ScrapeError: The page could not be fetched completely; the error has the reason.
        """
        self._deadline.set(budget)
        self._used.clear()
        try:
            fetched = self._read(self._follow(self._parts))
        except BaseException as error:
            # The answer may be half-read. On a kept connection, its rest would be read as the next answer.
            self.close()
            if isinstance(error, (OSError, HTTPException, zlib.error, UnicodeError)):
                raise _classify(error, budget) from error
            raise
        # Redirects may lead to a new origin each time, so connections that this fetch did not use are closed.
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
                # The rest of a long body would be read as the next answer.
                self._connection(parts).close()
            parts = _redirected(parts, location)
        raise ScrapeError(Reason.REDIRECT, "the engine redirects without end")

    def _request(self, parts: SplitResult) -> HTTPResponse:
        connection = self._connection(parts)
        fresh = connection.sock is None
        try:
            return self._send(connection, parts)
        except (ConnectionResetError, BrokenPipeError, HTTPException):
            # Most likely the engine closed the idle connection and never saw the request: retry once on a new one.
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
        # The first https URL may come from a redirect.
        self._tls = self._tls or _tls_context()
        return self._tls

    def _connect(self, connection: HTTPConnection) -> None:
        sock: Any = self._dial(connection.host, connection.port)
        if isinstance(connection, HTTPSConnection):
            sock = self._encrypted(sock, connection.host)
        # From here on, each read gets only the time that is left (`exporter.engine.deadline`).
        sock.deadline = self._deadline
        connection.sock = sock

    def _dial(self, host: str, port: int) -> DeadlineSocket:
        """Connect to the first address that answers; each address gets an equal share of the time that is left.

        The name lookup itself is bounded by the resolver's own timeouts only.
        """
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
            # Python applies the timeout to the whole handshake.
            sock.settimeout(self._deadline.left())
            return self._trust().wrap_socket(sock, server_hostname=host)
        except BaseException:
            # The socket belongs to no connection yet, so `close` of the client would not reach it.
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
    except ValueError:  # an invalid port or host
        pass
    raise ScrapeError(Reason.REDIRECT, "the engine redirects to what is no http URL")


def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.sslsocket_class = DeadlineTLSSocket
    return context


def _classify(error: BaseException, budget: float) -> ScrapeError:
    """Return the reason and a sentence for an exception.

    The sentence never holds the text of an exception, except the system's own errors and this project's framing
    errors: an engine must not write into the log.
    """
    reason, words = next((reason, words) for kind, reason, words in _REASONS if isinstance(error, kind))
    said = error.strerror if isinstance(error, OSError) else str(error) if isinstance(error, FramingError) else None
    return ScrapeError(
        reason, words.format(budget=budget, error=said or type(error).__name__, kind=type(error).__name__)
    )
