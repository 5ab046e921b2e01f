"""One piece of a file: ask, check the answer, copy its body, and try again where that helps."""

from __future__ import annotations

import re
from http import HTTPStatus
from random import random
from threading import Lock, local
from typing import TYPE_CHECKING, Any, Final

from storage.errors import NetworkError, StalledError, StorageError
from storage.growth import Cursor
from storage.responses import (
    MAX_REDIRECTS,
    REDIRECTS,
    check_passing,
    content_length,
    let_go,
    read_head,
    redirected,
)
from storage.transport import Failure, failures, origin_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from threading import Event

    from urllib3 import BaseHTTPResponse

    from storage.growth import Growth
    from storage.ranges import Origin
    from storage.staging import TransferObserver
    from storage.transport import Transport

__all__ = ["Changed", "Fetching"]

# Each turn of a worker waits for the interpreter a few times: few large turns cost less than many small ones.
BUFFER_BYTES: Final = 1 << 20
# What the buffers of all workers may take together.
_BUFFERS_BYTES: Final = 16 << 20
# A try that brings less than this counts as one in vain.
PROGRESS_BYTES: Final = 64 << 10
# A new signature may help once; that the answer stays is a refusal.
MAX_REFUSALS: Final = 2
FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 15.0
_LONGEST_ASKED_PAUSE_SECONDS: Final = 60.0
_MAX_ERROR_BODY: Final = 4096

_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_CHANGED: Final = frozenset((HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE))


class Changed(Exception):  # noqa: N818 - the file starts over
    """The file is not the one that was listed."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class _NoRanges(Exception):  # noqa: N818 - the file is taken whole instead
    """The server sends the whole file whatever was asked for."""


class Fetching:
    """Fetches pieces; used by all workers at once."""

    def __init__(  # noqa: PLR0913 - collaborators, and two numbers by name
        self, origin: Origin, transport: Transport, observer: TransferObserver, stopping: Event,
        *, tries: int, workers: int,
    ) -> None:  # fmt: skip
        self._origin = origin
        self._transport = transport
        self._observer = observer
        self._stopping = stopping
        self._max_tries = tries
        self._buffer_bytes = min(BUFFER_BYTES, _BUFFERS_BYTES // workers)
        self._local = local()
        self._lock = Lock()
        self._under_way: set[tuple[Growth, Cursor]] = set()

    def mark(self) -> None:
        """Record how far all pieces have got: what comes after that is fetched again when this process is killed."""
        with self._lock:
            under_way = list(self._under_way)
        for growth, cursor in under_way:
            growth.mark(cursor)

    def fetch(self, growth: Growth, start: int, end: int) -> None:
        """Bring the bytes from `start` to `end`, or all that the server sends when it knows no ranges.

        Raises:
            Changed: The file must start over.
            StorageError: It cannot be had.
        """
        tries = 0
        while start < end and not growth.abandoned and not self._stopping.is_set():
            before = growth.arrived
            cursor = Cursor(start)
            try:
                self._stream(growth, cursor, end)
                break
            except _NoRanges:
                if not growth.take_whole():
                    return
                start, end = 0, growth.file.size
                growth.begin_again()
                self._arrived(growth, -growth.arrived)
                continue
            except Failure as failure:
                tries = 1 if growth.arrived - before >= PROGRESS_BYTES else tries + 1
                self._pause(growth, failure, tries)
            start = cursor.at
            if growth.whole:
                start = 0
                growth.begin_again()
                self._arrived(growth, -growth.arrived)
        growth.catch_up()

    def _pause(self, growth: Growth, failure: Failure, tries: int) -> None:
        path = growth.file.path
        if tries >= self._max_tries:
            raise _given_up(path, failure, tries) from failure
        pause = min(FIRST_PAUSE_SECONDS * 2**tries, LONGEST_PAUSE_SECONDS) * (0.5 + random() / 2)  # noqa: S311 - spreads retries, hides nothing
        pause = max(pause, min(failure.after, _LONGEST_ASKED_PAUSE_SECONDS))
        self._observer.on_retry(path, failure.reason, failure.detail, pause)
        self._stopping.wait(pause)

    def _stream(self, growth: Growth, cursor: Cursor, end: int) -> None:
        ranged = (cursor.at, end) != (0, growth.file.size)
        response = self._open(growth, {"Range": f"bytes={cursor.at}-{end - 1}"} if ranged else {})
        try:
            self._check(growth, response, cursor.at, ranged=ranged)
            growth.learn_digest(lambda: self._origin.digest(growth.file, response.headers))
            self._copy(growth, response, cursor, end)
        except BaseException:
            response.close()
            raise
        response.release_conn()

    def _open(self, growth: Growth, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Ask for a file, over redirects; what comes back is an answer with its body."""
        etag = None
        if growth.location:
            url, own = growth.location
        else:
            request = self._origin.request(growth.file)
            url, own, etag = request.url, dict(request.headers), request.etag
        for _ in range(MAX_REDIRECTS):
            response = self._transport.open("GET", url, {**own, **headers})
            if response.status not in REDIRECTS:
                self._check_status(growth, response, url)
                if etag and _tag(response.headers.get("ETag", etag)) != _tag(etag):
                    response.close()
                    raise Changed(f"its ETag is {response.headers['ETag']}, it was {etag}")
                return response
            let_go(response)
            url, own, etag = *redirected(url, own, response.headers.get("Location", "")), None
            growth.location = (url, own)
        raise NetworkError(f"{growth.file.path}: {origin_of(url)} redirects without end")

    def _check_status(self, growth: Growth, response: BaseHTTPResponse, url: str) -> None:
        status = response.status
        if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return
        check_passing(response)
        body = read_head(response, _MAX_ERROR_BODY)
        if status in _CHANGED:
            raise Changed(f"{origin_of(url)} answered {status}")
        if growth.location:
            growth.location = None  # a signed address that has expired: ask the source for another
            raise Failure("expired", f"{origin_of(url)} answered {status}")
        error, may_pass = self._origin.explain(growth.file, status, response.headers, body)
        growth.refused += 1
        if growth.refused > MAX_REFUSALS or not may_pass:
            raise error
        raise Failure("expired", error.message) from error

    def _check(self, growth: Growth, response: BaseHTTPResponse, at: int, *, ranged: bool) -> None:
        """Make sure that the body is the piece that was asked for."""
        size = growth.file.size
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found:
            if found[3] not in ("*", str(size)):
                raise Changed(f"it has {found[3]} bytes, it had {size}")
            if int(found[1]) != at:
                raise Failure("wrong_range", f"asked for bytes from {at}, got them from {found[1]}")
            return
        length = content_length(response.headers)
        if response.status == HTTPStatus.OK and length is not None and length != size:
            raise Changed(f"it has {length} bytes, it had {size}")
        if ranged:
            raise _NoRanges

    def _copy(self, growth: Growth, response: BaseHTTPResponse, cursor: Cursor, end: int) -> None:
        buffer = self._buffer()
        # urllib3's own readinto copies once more; the body is not encoded, so http.client's is the same.
        source: Any = response._fp  # type: ignore[attr-defined] # noqa: SLF001
        under_way = (growth, cursor)
        with self._lock:
            self._under_way.add(under_way)
        try:
            while cursor.at < end and not growth.abandoned and not self._stopping.is_set():
                with failures(response.url or ""):
                    count = source.readinto(buffer[: end - cursor.at])
                if not count:
                    raise Failure("truncated", f"the body ended at byte {cursor.at} of {end}")
                growth.write(buffer[:count], cursor.at)
                self._arrived(growth, count)
                cursor.at += count
        finally:
            with self._lock:
                self._under_way.discard(under_way)
            growth.mark(cursor)

    def _arrived(self, growth: Growth, count: int) -> None:
        with self._lock:
            growth.arrived += count
        self._observer.on_bytes(growth.file.path, count)

    def _buffer(self) -> memoryview:
        if not hasattr(self._local, "buffer"):
            self._local.buffer = memoryview(bytearray(self._buffer_bytes))
        buffer: memoryview = self._local.buffer
        return buffer


def _given_up(path: str, failure: Failure, tries: int) -> StorageError:
    if isinstance(failure.__cause__, StorageError):
        return failure.__cause__  # a refusal that could have passed, and did not
    if failure.reason == "timeout":
        return StalledError(f"{path}: stalled: {failure.detail}, {tries} times in a row")
    return NetworkError(f"{path}: {failure.detail} ({failure.reason}), {tries} times in a row")


def _tag(text: str) -> str:
    return text.removeprefix("W/").strip('"')
