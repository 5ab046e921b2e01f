"""Downloads that go wrong, each in one way: what comes of it, and what the next run makes of it."""

from __future__ import annotations

import os
import random
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from simulators.misbehaving.proxy_faults import (
    EXPIRED,
    answers,
    changes_headers,
    corrupts,
    cut,
    drip,
    first,
    ignores_range,
    resets,
    rewrites,
    stalls,
)
from simulators.ports import free_port
from simulators.s3 import OWNER
from tests.harness.downloader import contents, pod

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from simulators.misbehaving.proxy import BadProxy
    from simulators.misbehaving.proxy_faults import Fault
    from simulators.s3 import Bucket, S3Server
    from tests.harness.downloader import Downloader

pytestmark = pytest.mark.slow

MB: Final = 1_000_000
WEIGHTS: Final = random.Random(1).randbytes(12 * MB)
MODEL: Final = {"config.json": b"{}", "model.safetensors": WEIGHTS, "tokenizer.json": b"[]" * 1000}
BIG: Final = "/*/model/model.safetensors"
GETS: Final = "/*/model/*"
QUICK: Final = ("--stall-timeout", "5")
TOKEN: Final = "token-that-nobody-may-see"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")


@pytest.fixture
def bucket(s3: S3Server) -> Bucket:
    """A bucket with a model below `model/`."""
    bucket = s3.bucket()
    bucket.put_many(MODEL, prefix="model/")
    return bucket


@dataclass(frozen=True, slots=True)
class Row:
    """A fault, and what must come of it.

    Attributes:
        fault: What the proxy does.
        times: How often; always when None.
        code: What the program ends with.
        words: Something that it says, when it fails.
        path: To which requests.
        method: To which of their kinds.
        waste: The most bytes that may come a second time.
        stalls: Whether it lies in time, so that a short stall timeout is what ends it.
    """

    fault: Fault
    times: int | None = 1
    code: int = 0
    words: str = ""
    path: str = BIG
    method: str = "GET"
    waste: int = 1 * MB
    stalls: bool = False


ROWS: Final = {
    "cut": Row(cut(after=5 * MB)),
    "cut at once": Row(cut(after=0)),
    "cut three times": Row(cut(after=1 * MB), times=3, waste=3 * MB),
    "reset": Row(resets(after=5 * MB), waste=6 * MB),
    "stall": Row(stalls(after=5 * MB), stalls=True),
    "stall at once": Row(stalls(after=0), stalls=True),
    "drip": Row(drip(after=5 * MB), stalls=True),
    "503": Row(answers(503, b"", {"Retry-After": "1"}), times=2),
    "500": Row(answers(500), times=2),
    "429": Row(answers(429, b"", {"Retry-After": "1"})),
    "503 in the listing": Row(answers(503), path="/bucket-*[0-9]", times=2),
    "link or signature expired": Row(answers(403, EXPIRED)),
    "corrupt": Row(corrupts(at=7 * MB), waste=13 * MB),
    "range ignored": Row(ignores_range(WEIGHTS), waste=13 * MB),
    "other ETag": Row(changes_headers(etag='"d41d8cd98f00b204e9800998ecf8427e"'), waste=13 * MB),
    "always cut at once": Row(cut(after=0), times=None, code=6),
    "always reset at once": Row(resets(after=0), times=None, code=6),
    "always stalls": Row(stalls(after=0), times=None, code=6, words="stall", stalls=True),
    "always 503": Row(answers(503), times=None, code=6, words="503"),
    "always 403": Row(answers(403, EXPIRED), times=None, code=4),
    "always 404": Row(answers(404), times=None, code=3),
    "always corrupt": Row(corrupts(at=7 * MB), times=None, code=7, words="model.safetensors"),
    "listed too short": Row(rewrites(b"<Size>12000000<", b"<Size>11999999<"), None, 7, path="/bucket-*[0-9]"),
    "listed too long": Row(rewrites(b"<Size>12000000<", b"<Size>12000001<"), None, 7, path="/bucket-*[0-9]"),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_server_that_fails(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path, row: Row
) -> None:
    """Once is mended, with little fetched twice; for good is an error by its cause, and nothing is published."""
    s3_proxy.misbehave(row.fault, row.path, method=row.method, times=row.times)
    variables = pod(s3_proxy.url, OWNER)
    patience = (*(() if row.times else ("--retries", "2")), *(QUICK if row.stalls else ()))

    run = downloader.run(bucket.uri("model"), target, *patience, variables=variables)

    assert run.code == row.code, run.stderr
    assert row.words in run.stderr.lower() if row.code else contents(target) == MODEL
    if row.code:
        assert not target.exists() or contents(target) == {}
    else:
        assert s3_proxy.sent(BIG) <= len(WEIGHTS) + row.waste
    s3_proxy.behave()
    assert downloader.run(bucket.uri("model"), target, variables=variables).code == 0
    assert contents(target) == MODEL


def test_a_pause_that_is_asked_for_is_no_stall(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path
) -> None:
    """A server may ask to wait for longer than it may be silent."""
    s3_proxy.misbehave(answers(503, b"", {"Retry-After": "8"}), BIG, times=1)

    run = downloader.run(bucket.uri("model"), target, *QUICK, variables=pod(s3_proxy.url, OWNER))

    assert run.code == 0, run.stderr
    assert "stall" not in run.stderr


def test_nobody_is_there(downloader: Downloader, target: Path) -> None:
    """The endpoint is named."""
    url = f"http://127.0.0.1:{free_port()}"

    run = downloader.run("s3://models/model", target, "--retries", "2", variables=pod(url, OWNER))

    assert run.code == 6, run.stderr
    assert url.removeprefix("http://") in run.stderr


def test_an_object_that_changes_under_way(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path
) -> None:
    """It is fetched anew, from its beginning: bytes of the two never come together."""
    new = WEIGHTS[::-1]
    s3_proxy.misbehave(cut(after=5 * MB), BIG, times=1)
    s3_proxy.misbehave(first(lambda: bucket.put("model/model.safetensors", new)), BIG, times=1)

    run = downloader.run(bucket.uri("model"), target, variables=pod(s3_proxy.url, OWNER))

    assert run.code == 0, run.stderr
    assert contents(target) == MODEL | {"model.safetensors": new}


def test_an_object_that_never_stays(downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path) -> None:
    """Is given up, as a source that changes."""
    versions = iter(range(10_000))
    change = first(lambda: bucket.put("model/model.safetensors", b"%d" % next(versions) * 1000))
    s3_proxy.misbehave(change, BIG)

    run = downloader.run(bucket.uri("model"), target, variables=pod(s3_proxy.url, OWNER))

    assert run.code == 7, run.stderr
    assert "chang" in run.stderr
    assert not target.exists() or contents(target) == {}


def test_an_object_that_goes_away(downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path) -> None:
    """Between the listing and its turn."""
    s3_proxy.misbehave(first(lambda: bucket.delete("model/model.safetensors")), BIG, times=1)

    run = downloader.run(bucket.uri("model"), target, variables=pod(s3_proxy.url, OWNER))

    assert run.code in {0, 3, 7}, run.stderr
    expected = {name: data for name, data in MODEL.items() if name != "model.safetensors"} if run.code == 0 else {}
    assert (contents(target) if target.exists() else {}) == expected


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount a file system of so many bytes."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@needs_root
def test_no_room_is_seen_before_the_first_byte(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, tmp_path: Path
) -> None:
    """And said with both numbers."""
    with small_disk(tmp_path / "small", 8 * MB) as disk:
        run = downloader.run(bucket.uri("model"), disk / "model", variables=pod(s3_proxy.url, OWNER))

        assert run.code == 5, run.stderr
        assert contents(disk) == {}
    assert s3_proxy.sent(GETS) == 0
    assert len({word for word in run.stderr.split() if word[0].isdigit()}) >= 2


@needs_root
def test_room_that_goes_under_way(downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, tmp_path: Path) -> None:
    """Somebody else fills the disk; with room again the next run goes on."""
    variables = pod(s3_proxy.url, OWNER)
    with small_disk(tmp_path / "small", 20 * MB) as disk:
        filler = disk / "filler"
        s3_proxy.misbehave(first(lambda: filler.write_bytes(bytes(14 * MB))), BIG, times=1)
        full = downloader.run(bucket.uri("model"), disk / "model", variables=variables)
        filler.unlink()
        s3_proxy.behave()
        after = downloader.run(bucket.uri("model"), disk / "model", variables=variables)

        assert full.code == 5, full.stderr
        assert after.code == 0, after.stderr
        assert contents(disk / "model") == MODEL


@needs_root
def test_a_target_that_is_a_mount(downloader: Downloader, bucket: Bucket, tmp_path: Path) -> None:
    """Nothing can be renamed onto it, so work lies in it; in the end only the model does."""
    with small_disk(tmp_path / "small", 30 * MB) as disk:
        run = downloader.run(bucket.uri("model"), disk, variables=pod(bucket.server.url, OWNER))

        assert run.code == 0, run.stderr
        assert contents(disk) == MODEL
        assert {path.name for path in disk.iterdir()} == {*MODEL, ".kthena"}
