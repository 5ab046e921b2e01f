"""Handles answers: reads them up to a limit, discards them, decides about retries, and follows redirects."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin

from storage.errors import NetworkError, TooLargeError
from storage.transfer.http_client import Failure, address_of, failures, origin_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3 import BaseHTTPResponse

__all__ = [
    "MAX_REDIRECTS",
    "REDIRECTS",
    "check_passing",
    "content_length",
    "let_go",
    "read_head",
    "read_whole",
    "redirected",
]

MAX_REDIRECTS: Final = 5
REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
# Statuses that may pass: a retry may succeed.
_PASSING: Final = frozenset((408, 425, 429, 500, 502, 503, 504))
_BLOCK: Final = 64 << 10
_NUMBER: Final = re.compile(r"[0-9]{1,18}")


def read_whole(response: BaseHTTPResponse, limit: int) -> bytearray:
    """Read the whole body of an answer, and release its connection.

    Raises:
        TooLargeError: The body is longer than `limit` bytes.
        NetworkError: The body is compressed, which no request asks for: few bytes could expand to very many.
        Failure: The connection broke.
    """
    url = response.url or ""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        response.close()
        raise NetworkError(f"{address_of(url)} answers with the encoding {encoding[:40]!r}, which was not asked for")
    body = bytearray()
    with failures(url):
        while data := response.read(_BLOCK, decode_content=False):
            body += data
            if len(body) > limit:
                response.close()
                raise TooLargeError(f"{address_of(url)}: the answer is longer than {limit} bytes, the limit for it")
    response.release_conn()
    return body


def read_head(response: BaseHTTPResponse, limit: int) -> bytes:
    """Return the first bytes of a body that explains a refusal; empty if it cannot be read."""
    try:
        with failures(response.url or ""):
            return response.read(limit, decode_content=False)
    except (Failure, NetworkError):
        return b""
    finally:
        response.close()


def let_go(response: BaseHTTPResponse) -> None:
    """Discard an answer. The connection is kept only if the rest of the body is short."""
    length = content_length(response.headers)
    if length is None or length > _BLOCK:
        response.close()
    else:
        response.drain_conn()
        response.release_conn()


def check_passing(response: BaseHTTPResponse) -> None:
    """Raise if a retry may get a better answer.

    Raises:
        Failure: The status may pass; `after` is the server's Retry-After, if it is a number of seconds.
    """
    if response.status in _PASSING:
        response.close()
        detail = f"{origin_of(response.url or '')} answers {response.status}"
        text = response.headers.get("Retry-After", "")
        after = float(text) if _NUMBER.fullmatch(text) else 0.0
        raise Failure(f"http_{response.status}", detail, after=after)


def content_length(headers: Mapping[str, str]) -> int | None:
    """Return the length of an answer's body; `None` if the headers do not give a valid one."""
    text = headers.get("Content-Length", "")
    return int(text) if _NUMBER.fullmatch(text) and "Transfer-Encoding" not in headers else None


def redirected(url: str, headers: Mapping[str, str], location: str) -> tuple[str, dict[str, str]]:
    """Return a redirect's URL and which of `headers` go there: none to another origin, as they may hold credentials.

    `Range` and the client's own headers are added to each request elsewhere; they go everywhere.

    Raises:
        NetworkError: The redirect leads from https to http, or to another scheme.
    """
    target = urljoin(url, location)
    if not target.startswith(("http://", "https://")) or (url.startswith("https:") and target.startswith("http:")):
        raise NetworkError(f"{origin_of(url)} redirects to {origin_of(target)}, which is not safe")
    return target, dict(headers) if origin_of(target) == origin_of(url) else {}
