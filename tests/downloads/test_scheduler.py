"""The byte engine against a real HTTP server: pieces, resumption, and what it never does."""

from __future__ import annotations

import hashlib
from random import Random
from typing import TYPE_CHECKING, Protocol

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request as Asked
from werkzeug import Response

from storage.disk.journal import Journal
from storage.disk.listing import Digest, Listing, RemoteFile
from storage.disk.staging import Staging, TransferObserver
from storage.errors import CorruptError, DeniedError, StorageError
from storage.transfer.http_client import Transport
from storage.transfer.origin import Origin, Request
from storage.transfer.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DATA = Random(1).randbytes(1000)
FILE = RemoteFile("a/model.bin", 1000, "v1", "model", Digest("sha256", hashlib.sha256(DATA).hexdigest()))


class Told(TransferObserver):
    """Remembers what the engine says."""

    def __init__(self) -> None:
        self.bytes = 0
        self.retries: list[str] = []
        self.verified: list[str] = []

    def on_bytes(self, _path: str, count: int) -> None:
        self.bytes += count

    def on_hashed(self, count: int) -> None:
        pass

    def on_retry(self, _path: str, reason: str, _detail: str, _pause: float) -> None:
        self.retries.append(reason)

    def on_verified(self, file: RemoteFile) -> None:
        self.verified.append(file.path)


class Source(Origin):
    """An origin that needs a token."""

    def __init__(self, url: str) -> None:
        self._url = url

    def listing(self) -> Listing:
        return Listing("x", "", (FILE,))

    def request(self, file: RemoteFile) -> Request:
        return Request(f"{self._url}/{file.origin}", {"Authorization": "Bearer secret"}, None)

    def digest(self, file: RemoteFile, _headers: Mapping[str, str] | None) -> Digest | None:
        return file.digest

    def refresh(self, file: RemoteFile) -> RemoteFile:
        return file

    def explain(
        self, file: RemoteFile, status: int, _headers: Mapping[str, str], _body: bytes
    ) -> tuple[StorageError, bool]:
        return DeniedError(f"{file.path}: {status}"), False


class Fetch(Protocol):
    """Fetches a file in pieces, and returns what was told."""

    def __call__(self, part_size: int = 300, file: RemoteFile = FILE) -> Told: ...


@pytest.fixture
def fetch(httpserver: HTTPServer, tmp_path: Path) -> Fetch:
    """Fetch the file with pieces of 300 bytes; returns what was told."""

    def run(part_size: int = 300, file: RemoteFile = FILE) -> Told:
        (tmp_path / "tree").mkdir(exist_ok=True)
        journal = Journal(tmp_path / "parts")
        told = Told()
        transport = Transport(connections=2, read_timeout=5)
        staging = Staging(tmp_path / "tree", journal, told)
        try:
            Scheduler(Source(httpserver.url_for("")), transport, staging, workers=2, part_size=part_size, tries=3).run(
                [file]
            )
        finally:
            transport.close()
            journal.close()
        return told

    return run


def ranged(asked: Asked) -> Response:
    """Answer as a server that knows ranges."""
    header = asked.headers.get("Range")
    if not header:
        return Response(DATA)
    start, _, last = header.removeprefix("bytes=").partition("-")
    part = DATA[int(start) : int(last) + 1]
    return Response(part, 206, {"Content-Range": f"bytes {start}-{int(start) + len(part) - 1}/{len(DATA)}"})


def asked_for(httpserver: HTTPServer) -> list[str]:
    return sorted(request.headers.get("Range", "all") for request, _ in httpserver.log)


def test_a_file_in_pieces(httpserver: HTTPServer, tmp_path: Path, fetch: Fetch) -> None:
    """Each asked for once, and together they are the file."""
    httpserver.expect_request("/model").respond_with_handler(ranged)

    told = fetch()

    assert (tmp_path / "tree/a/model.bin").read_bytes() == DATA
    assert asked_for(httpserver) == ["bytes=0-299", "bytes=300-599", "bytes=600-899", "bytes=900-999"]
    assert (told.bytes, told.verified, told.retries) == (1000, ["a/model.bin"], [])


def test_a_file_that_changed_has_its_second_try_still(httpserver: HTTPServer, tmp_path: Path, fetch: Fetch) -> None:
    """Bytes that an earlier run lost are fetched again although the file has started over once before."""
    httpserver.expect_ordered_request("/model").respond_with_data(b"", 412)
    httpserver.expect_ordered_request("/model").respond_with_data(bytes(1000))
    httpserver.expect_ordered_request("/model").respond_with_data(DATA)

    told = fetch(part_size=1000)

    assert (tmp_path / "tree/a/model.bin").read_bytes() == DATA
    assert told.retries == ["changed", "changed"]


def test_what_is_recorded_is_not_asked_for(httpserver: HTTPServer, tmp_path: Path, fetch: Fetch) -> None:
    """Bytes of an earlier run count towards the digest."""
    httpserver.expect_request("/model").respond_with_handler(ranged)
    (tmp_path / "tree/a").mkdir(parents=True)
    (tmp_path / "tree/a/model.bin").write_bytes(DATA[:500] + bytes(500))
    Journal(tmp_path / "parts").add(FILE, 0, 500)

    told = fetch()

    assert asked_for(httpserver) == ["bytes=500-799", "bytes=800-999"]
    assert (tmp_path / "tree/a/model.bin").read_bytes() == DATA
    assert told.bytes == 1000


def test_bytes_that_were_lost_after_they_were_recorded(httpserver: HTTPServer, tmp_path: Path, fetch: Fetch) -> None:
    """A machine that crashed: the digest tells, and the file is fetched again."""
    httpserver.expect_request("/model").respond_with_handler(ranged)
    (tmp_path / "tree/a").mkdir(parents=True)
    (tmp_path / "tree/a/model.bin").write_bytes(bytes(1000))
    Journal(tmp_path / "parts").add(FILE, 0, 1000)

    told = fetch()

    assert (tmp_path / "tree/a/model.bin").read_bytes() == DATA
    assert (told.retries, told.bytes) == (["changed"], 1000)


def test_a_server_without_ranges(httpserver: HTTPServer, tmp_path: Path, fetch: Fetch) -> None:
    """Is asked once more, for all of it, by one worker."""
    httpserver.expect_request("/model").respond_with_data(DATA)

    told = fetch()

    assert (tmp_path / "tree/a/model.bin").read_bytes() == DATA
    assert told.bytes == 1000
    assert asked_for(httpserver).count("all") == 1


def test_ranges_under_the_status_of_a_whole(httpserver: HTTPServer, tmp_path: Path, fetch: Fetch) -> None:
    """200 with Content-Range, as rclone answers."""

    def answer(asked: Asked) -> Response:
        response = ranged(asked)
        response.status_code = 200
        return response

    httpserver.expect_request("/model").respond_with_handler(answer)

    fetch()

    assert (tmp_path / "tree/a/model.bin").read_bytes() == DATA
    assert len(httpserver.log) == 4


def test_wrong_bytes_are_no_file(httpserver: HTTPServer, tmp_path: Path, fetch: Fetch) -> None:
    """Twice: then it is an error, and nothing of it is left."""
    httpserver.expect_request("/model").respond_with_data(DATA[::-1])

    with pytest.raises(CorruptError, match="sha256"):
        fetch(part_size=2000)

    assert not (tmp_path / "tree/a/model.bin").exists()
    assert (tmp_path / "parts").read_bytes() == b""
    assert len(httpserver.log) == 2


def test_a_token_stays_with_its_host(httpserver: HTTPServer, tmp_path: Path, fetch: Fetch) -> None:
    """A redirect to another takes no credentials along; it is followed once for all pieces of one worker or more."""
    with HTTPServer() as cdn:
        cdn.expect_request("/cdn").respond_with_handler(ranged)
        httpserver.expect_request("/model").respond_with_data(b"", 302, {"Location": cdn.url_for("/cdn?signed=1")})

        fetch()

        assert [request.headers.get("Authorization") for request, _ in cdn.log] == [None] * 4
    assert {request.headers.get("Authorization") for request, _ in httpserver.log} == {"Bearer secret"}
    assert (tmp_path / "tree/a/model.bin").read_bytes() == DATA


def test_a_redirect_out_of_http_is_refused(httpserver: HTTPServer, fetch: Fetch) -> None:
    """Files of this machine, say."""
    httpserver.expect_request("/model").respond_with_data(b"", 302, {"Location": "file:///etc/passwd"})

    with pytest.raises(Exception, match="not safe"):
        fetch()


def test_an_error_page_is_no_model(httpserver: HTTPServer, fetch: Fetch) -> None:
    """Whatever its length."""
    httpserver.expect_request("/model").respond_with_data(DATA, 403)

    with pytest.raises(DeniedError, match="403"):
        fetch()


def test_an_empty_file_is_not_asked_for(httpserver: HTTPServer, tmp_path: Path, fetch: Fetch) -> None:
    """There is nothing to say about it."""
    empty = RemoteFile("empty", 0, "v", "empty", Digest("md5", "d41d8cd98f00b204e9800998ecf8427e"))

    told = fetch(file=empty)

    assert (tmp_path / "tree/empty").read_bytes() == b""
    assert (httpserver.log, told.verified) == ([], ["empty"])
