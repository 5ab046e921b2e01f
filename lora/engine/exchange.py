"""One HTTP request to the engine, bounded in time and bytes.

requests alone bounds neither: its timeout applies to each read, it decompresses any
body, and its session reads the whole body of a redirect even if it does not follow it.
So this module uses requests' adapter without a session. The connections' timeout covers
the whole answer, and the body is read here (docs/adr/0017).
"""

from __future__ import annotations

import json
import socket
import ssl
import zlib
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.util.ssl_ import create_urllib3_context

from storage.framing import StrictResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Answer", "Exchange", "LargeAnswerError"]

CONNECT_SECONDS: Final = 3.0
# Bytes of a successful answer. Of any other answer only the beginning is read: it has the message.
LARGEST: Final = 1024 * 1024
LARGEST_ERROR: Final = 64 * 1024
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
_COMPRESSED: Final = frozenset({"gzip", "x-gzip", "deflate"})


class LargeAnswerError(Exception):
    """The answer is larger than any sensible answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the engine.

    Attributes:
        status_code: The HTTP status.
        content: The body, decompressed; only the beginning if the status is not 200.
    """

    status_code: int
    content: bytes

    @property
    def text(self) -> str:
        """The body as text; invalid UTF-8 is replaced."""
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        """Return the body decoded as JSON.

        Raises:
            ValueError: The body is not JSON, or is nested too deeply.
        """
        try:
            return json.loads(self.content)
        except RecursionError:
            raise ValueError("nested too deeply") from None


class _Timed:
    """A socket whose timeout covers all reads until it is set again, not each single read."""

    _end: float | None = None

    def settimeout(self, value: float | None) -> None:
        # urllib3 sets the read timeout once per answer, so this becomes the deadline of the whole answer.
        self._end = None if value is None else monotonic() + value
        super().settimeout(value)  # type: ignore[misc]

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        if self._end is not None:
            left = self._end - monotonic()
            if left <= 0:
                raise TimeoutError("the answer took too long")
            super().settimeout(left)  # type: ignore[misc]
        return super().recv_into(*args, **kwargs)  # type: ignore[misc, no-any-return]


class _Socket(_Timed, socket.socket):
    pass


class _TLSSocket(_Timed, ssl.SSLSocket):
    pass


class _Connection(HTTPConnection):
    response_class = StrictResponse

    def _new_conn(self) -> socket.socket:
        plain = super()._new_conn()
        # The same connection, in the class with the deadline.
        timed = _Socket(fileno=plain.detach())
        timed.settimeout(self.timeout)
        return timed


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        context = create_urllib3_context()
        context.sslsocket_class = _TLSSocket
        super().init_poolmanager(*args, ssl_context=context, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}


class Exchange:
    """Sends requests over keep-alive connections; safe for threads."""

    def __init__(self) -> None:
        self._adapter = _Adapter()

    def send(self, method: str, url: str, *, body: object = None, headers: Mapping[str, str], timeout: float) -> Answer:
        """Send a request with `body` as JSON, and return the answer. All of it must arrive within `timeout` seconds.

        Raises:
            requests.RequestException: There is no complete answer in time; the innermost cause says why.
            LargeAnswerError: The answer is too large.
        """
        headers = {"Accept-Encoding": "identity", "Accept": "*/*", "User-Agent": "kthena-runtime", **headers}
        request = requests.Request(method, url, json=body, headers=headers).prepare()
        response = self._adapter.send(request, stream=True, timeout=(CONNECT_SECONDS, timeout))
        try:
            return Answer(response.status_code, _body(response))
        except (HTTPError, HTTPException, OSError, zlib.error) as error:
            raise requests.ConnectionError(str(error)) from error
        finally:
            response.close()


def _body(response: requests.Response) -> bytes:
    is_error = response.status_code != HTTPStatus.OK
    limit = LARGEST_ERROR if is_error else LARGEST
    body: bytes = response.raw.read(limit + 1, decode_content=False)
    if response.headers.get("Content-Encoding", "").strip().lower() in _COMPRESSED:
        # At most one byte more than the limit: a small compressed body can expand to gigabytes.
        body = zlib.decompressobj(_GZIP_OR_ZLIB).decompress(body, limit + 1)
    if len(body) > limit and not is_error:
        raise LargeAnswerError(f"it is larger than {limit} bytes")
    return body[:limit]
