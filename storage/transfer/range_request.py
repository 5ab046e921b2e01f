"""Fetches one piece of a file: sends the request, checks the answer, writes its body, and retries if that may help."""

from __future__ import annotations

import re
from http import HTTPStatus
from random import random
from threading import local
from typing import TYPE_CHECKING, Any, Final

from storage.errors import NetworkError, StalledError, StorageError
from storage.request.retries import Retry
from storage.transfer.http_client import Failure, failures, origin_of
from storage.transfer.responses import (
    MAX_REDIRECTS,
    REDIRECTS,
    check_passing,
    content_length,
    let_go,
    read_head,
    redirected,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from threading import Event

    from urllib3 import BaseHTTPResponse

    from storage.disk.staging import TransferObserver
    from storage.transfer.http_client import Transport
    from storage.transfer.origin import Origin
    from storage.transfer.partial_file import PartialFile, Piece

__all__ = ["Changed", "RangeRequests"]

# Each read and write of a worker waits for the interpreter's lock: few large buffers cost less than many small ones.
BUFFER_BYTES: Final = 1 << 20
# Bytes of the buffers of all workers together (ADR 17).
_BUFFERS_BYTES: Final = 16 << 20
# An attempt that brings fewer bytes counts as failed.
PROGRESS_BYTES: Final = 64 << 10
# Retries of a refused file: a new signature may help, but a repeated refusal is final.
MAX_REFUSALS: Final = 2
FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 15.0
_LONGEST_ASKED_PAUSE_SECONDS: Final = 60.0
_MAX_ERROR_BODY: Final = 4096

_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_CHANGED: Final = frozenset((HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE))


class Changed(Exception):
    """The file is not the one that was listed: it must start over."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class _NoRanges(Exception):
    """The server ignores ranges and sends the whole file."""


class RangeRequests:
    """Fetches pieces of partial files; safe for threads."""

    def __init__(
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

    def fetch(self, partial: PartialFile, piece: Piece) -> None:
        """Fetch a piece, or the whole file if the server supports no ranges.

        Returns early if the file was abandoned or the scheduler stops.

        Raises:
            Changed: The file changed at the source and must start over.
            StorageError: The piece cannot be fetched.
        """
        tries = 0
        while piece.at < piece.end and self._goes_on(partial):
            before = partial.arrived  # of all workers: a server may serve some of them only
            try:
                self._stream(partial, piece)
                break
            except _NoRanges:
                if not partial.take_whole(piece):
                    return
                continue
            except Failure as failure:
                tries = 1 if partial.arrived - before >= PROGRESS_BYTES else tries + 1
                self._pause(partial, failure, tries)
            # Without ranges, an interrupted body cannot be resumed.
            if partial.whole:
                partial.begin_again(piece)
        partial.catch_up()

    def _goes_on(self, partial: PartialFile) -> bool:
        return not partial.abandoned and not self._stopping.is_set()

    def _pause(self, partial: PartialFile, failure: Failure, tries: int) -> None:
        path = partial.file.path
        if tries >= self._max_tries:
            raise _given_up(path, failure, tries) from failure
        # A random part, so that workers which failed together do not retry together.
        pause = min(FIRST_PAUSE_SECONDS * 2**tries, LONGEST_PAUSE_SECONDS) * (0.5 + random() / 2)
        pause = max(pause, min(failure.after, _LONGEST_ASKED_PAUSE_SECONDS))
        self._observer.on_retry(path, failure.reason, failure.detail, pause)
        self._stopping.wait(pause)

    def _stream(self, partial: PartialFile, piece: Piece) -> None:
        ranged = (piece.at, piece.end) != (0, partial.file.size)
        response = self._open(partial, {"Range": f"bytes={piece.at}-{piece.end - 1}"} if ranged else {})
        try:
            self._check(partial, response, piece.at, ranged=ranged)
            partial.learn_digest(lambda: self._origin.digest(partial.file, response.headers))
            self._copy(partial, response, piece)
        # The rest of the body is unread, so the connection cannot be reused.
        except BaseException:
            response.close()
            raise
        response.release_conn()

    def _open(self, partial: PartialFile, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Send a request for a file, and follow redirects; return a successful answer with its body unread."""
        etag = None
        if partial.location:
            url, own = partial.location
        else:
            request = self._origin.request(partial.file)
            url, own, etag = request.url, dict(request.headers), request.etag
        for _ in range(MAX_REDIRECTS + 1):
            response = self._transport.open("GET", url, {**own, **headers})
            if response.status not in REDIRECTS:
                self._check_status(partial, response, url)
                if etag and _tag(response.headers.get("ETag", etag)) != _tag(etag):
                    response.close()
                    raise Changed(f"its ETag is {response.headers['ETag']}, it was {etag}")
                return response
            let_go(response)
            url, own, etag = *redirected(url, own, response.headers.get("Location", "")), None
            # Kept for the file's other pieces: one redirect per file, not per piece.
            partial.location = (url, own)
        raise NetworkError(f"{partial.file.path}: {origin_of(url)} redirects without end")

    def _check_status(self, partial: PartialFile, response: BaseHTTPResponse, url: str) -> None:
        status = response.status
        if status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            return
        check_passing(response)
        body = read_head(response, _MAX_ERROR_BODY)
        if status in _CHANGED:
            raise Changed(f"{origin_of(url)} answered {status}")
        if partial.location:
            partial.location = None  # the signed URL has expired: request a new one from the source
            raise Failure(Retry.EXPIRED, f"{origin_of(url)} answered {status}")
        error, may_pass = self._origin.explain(partial.file, status, response.headers, body)
        partial.refused += 1
        if partial.refused > MAX_REFUSALS or not may_pass:
            raise error
        raise Failure(Retry.EXPIRED, error.message) from error

    def _check(self, partial: PartialFile, response: BaseHTTPResponse, at: int, *, ranged: bool) -> None:
        """Check that the body is the requested piece."""
        size = partial.file.size
        # Whatever the status: rclone sends 200 with Content-Range.
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found:
            if found[3] not in ("*", str(size)):
                raise Changed(f"it has {found[3]} bytes, it had {size}")
            if int(found[1]) != at:
                raise Failure(Retry.WRONG_RANGE, f"asked for bytes from {at}, got them from {found[1]}")
            return
        length = content_length(response.headers)
        if response.status == HTTPStatus.OK and length is not None and length != size:
            raise Changed(f"it has {length} bytes, it had {size}")
        if ranged:
            raise _NoRanges

    def _copy(self, partial: PartialFile, response: BaseHTTPResponse, piece: Piece) -> None:
        buffer = self._buffer()
        # urllib3's readinto copies the bytes once more. The body is not encoded, so http.client's gives the same bytes.
        source: Any = response._fp  # type: ignore[attr-defined] # noqa: SLF001
        try:
            while piece.at < piece.end and self._goes_on(partial):
                with failures(response.url or ""):
                    count = source.readinto(buffer[: piece.end - piece.at])
                if not count:
                    raise Failure(Retry.TRUNCATED, f"the body ended at byte {piece.at} of {piece.end}")
                partial.write(piece, buffer[:count])
        finally:
            partial.mark()

    def _buffer(self) -> memoryview:
        if not hasattr(self._local, "buffer"):
            self._local.buffer = memoryview(bytearray(self._buffer_bytes))
        buffer: memoryview = self._local.buffer
        return buffer


def _given_up(path: str, failure: Failure, tries: int) -> StorageError:
    if isinstance(failure.__cause__, StorageError):
        return failure.__cause__  # a refusal that retries did not overcome
    if failure.reason == Retry.TIMEOUT:
        return StalledError(f"{path}: stalled: {failure.detail}, {tries} times in a row")
    return NetworkError(f"{path}: {failure.detail} ({failure.reason}), {tries} times in a row")


def _tag(text: str) -> str:
    return text.removeprefix("W/").strip('"')
