"""Requests that ask for as much as they can: what is remembered of them stays small, and so does what is shown."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any, Final

import pytest

from simulators.misbehaving.proxy import BadProxy
from simulators.misbehaving.proxy_faults import holds
from simulators.s3 import OWNER
from simulators.waiting import PATIENCE
from tests.harness.downloader import pod
from tests.harness.memory import MIB, Watch, limited
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.faults, pytest.mark.slow]

NOWHERE: Final = "http://127.0.0.1:9"
DOWNLOAD: Final = "/v1/download_model"
LOAD: Final = "/v1/load_lora_adapter"
UNLOAD: Final = "/v1/unload_lora_adapter"
# Downloads that run, and that may wait.
JOBS: Final = 34
MOST: Final = 2048
BODY: Final = 65_536
REMEMBERED: Final = 100
DEEP: Final = b'{"config": {"a": ' + b"[" * 30_000
SOURCE: Final = "s3://bucket/"


@pytest.fixture(scope="module")
def store() -> Iterator[BadProxy]:
    """A store that does not answer before the test is over."""
    gate = Event()
    with BadProxy() as proxy:
        proxy.misbehave(holds(gate), "*")
        yield proxy
        gate.set()


@pytest.fixture
def runtime(store: BadProxy, tmp_path: Path) -> Iterator[Runtime]:
    with (
        limited(256 * MIB) as group,
        Runtime(NOWHERE, "--lora-dir", str(tmp_path), variables=pod(store.url, OWNER), group=group) as running,
    ):
        yield running


def post(runtime: Runtime, path: str, body: dict[str, Any] | bytes) -> tuple[int, dict[str, Any]]:
    data = {"data": body} if isinstance(body, bytes) else {"json": body}
    answer = runtime.session.post(runtime.url + path, timeout=PATIENCE, **data)
    return answer.status_code, answer.json()


def longest(begin: str, number: int, most: int = MOST) -> str:
    """Return a path of the longest length, other than those of other numbers."""
    part = f"{number:04}" + "x" * 195 + "/"
    return (begin + part * (most // len(part) + 1))[:most]


def large_download(number: int, folder: Path) -> dict[str, Any]:
    return {
        "source": longest(SOURCE, number),
        "output_dir": longest(f"{folder}/", number),
        "allow_patterns": ["*"] * 1000,
        "ignore_patterns": ["x" * 1000] * 50,
        "async_download": True,
    }


def test_many_large_downloads(runtime: Runtime, tmp_path: Path) -> None:
    """As many as there may be, each as large as it may be, listed by several callers; then all have ended."""
    with Watch(runtime.pid) as watch, ThreadPoolExecutor(6) as callers:
        answers = [post(runtime, DOWNLOAD, large_download(number, tmp_path)) for number in range(JOBS)]
        listings = list(callers.map(lambda _: runtime.get("/v1/downloads"), range(12)))
        ids = [answer["download"]["id"] for _, answer in answers]
        for number in range(REMEMBERED):
            runtime.session.delete(f"{runtime.url}/v1/downloads/{ids[-1]}", timeout=PATIENCE)
            ids.append(post(runtime, DOWNLOAD, large_download(JOBS + number, tmp_path))[1]["download"]["id"])
        ended = runtime.get("/v1/downloads")

    assert [status for status, _ in answers] == [202] * JOBS
    assert {len(one.json()["downloads"]) for one in listings} == {JOBS}
    assert max(len(one.content) for one in listings) < 0.25 * MIB
    assert len(ended.json()["downloads"]) == JOBS + REMEMBERED
    assert len(ended.content) < MIB
    assert watch.peaks[runtime.pid] < 80 * MIB, watch.peaks
    assert watch.proportional < 256 * MIB


def test_many_large_adapters(runtime: Runtime, tmp_path: Path) -> None:
    """They are refused when they cost too much together; another load under a name that is there is not."""

    def body(number: int) -> dict[str, Any]:
        config = {"access_key": "k" * 8000, "secret_key": "s" * 8000, "endpoint": f"http://x/{'p' * 8000}"}
        texts = {"source": longest(SOURCE, number), "output_dir": longest(f"{tmp_path}/", number)}
        return {"lora_name": f"{number:0200}", "config": config, "async_download": True} | texts

    with Watch(runtime.pid) as watch, ThreadPoolExecutor(6) as callers:
        answers = [post(runtime, LOAD, body(number)) for number in range(200)]
        listings = list(callers.map(lambda _: runtime.get("/v1/lora_adapters"), range(12)))
        again = post(runtime, LOAD, body(0) | {"allow_pickle": True})

    accepted = [status for status, _ in answers].count(202)
    assert 50 < accepted < 200
    assert all(answer["code"] == "too_many_adapters" for status, answer in answers if status != 202)
    assert all(word in answers[-1][1]["detail"] for word in (f"{accepted} adapters", "bytes", "2,097,152", "unload"))
    assert again[0] == 202
    assert max(len(one.content) for one in listings) < 2 * MIB
    assert watch.peaks[runtime.pid] < 80 * MIB, watch.peaks
    assert watch.proportional < 256 * MIB


LARGE: Final[dict[str, tuple[str, dict[str, object], int, str, tuple[str, ...]]]] = {
    "a body": (DOWNLOAD, {"allow_patterns": ["x"] * 131_072}, 413, "body_too_large", ("65,536",)),
    "the body of a load": (LOAD, {"config": {"x": "x" * BODY}}, 413, "body_too_large", ("65,536",)),
    "the body of an unload": (UNLOAD, {"x": "x" * BODY}, 413, "body_too_large", ("65,536",)),
    "a source": (DOWNLOAD, {"source": SOURCE + "x" * MOST}, 400, "invalid_source", ("source has 2,060", "2,048")),
    "a directory": (
        DOWNLOAD, {"output_dir": "/m/" + "x" * MOST}, 400, "forbidden_target", ("output directory has 2,051", "2,048")
    ),
    "patterns": (DOWNLOAD, {"allow_patterns": ["x"] * 1025}, 400, "usage", ("allow_patterns has 1,025", "1,024")),
    "a pattern": (DOWNLOAD, {"ignore_patterns": ["x" * 1025]}, 400, "usage", ("ignore_patterns has 1,025", "1,024")),
    "a credential": (
        DOWNLOAD, {"config": {"hf_token": "x" * 8193}}, 400, "invalid_config", ("config.hf_token has 8,193", "8,192")
    ),
    "the source of an adapter": (
        LOAD, {"source": SOURCE + "x" * MOST}, 400, "invalid_source", ("source has 2,060", "2,048")
    ),
    "the directory of an adapter": (
        LOAD, {"output_dir": "/m/" + "x" * MOST}, 400, "invalid_path", ("output_dir has 2,051", "2,048")
    ),
    "the path of an adapter": (
        LOAD, {"source": None, "output_dir": None, "lora_path": "/m/" + "x" * MOST}, 400, "invalid_path",
        ("lora_path has 2,051", "2,048"),
    ),
    "the name of an adapter": (LOAD, {"lora_name": "x" * 256}, 400, "invalid_name", ("256", "255")),
    "a credential of an adapter": (
        LOAD, {"config": {"hf_token": "x" * 8193}}, 400, "invalid_config", ("config.hf_token has 8,193", "8,192")
    ),
}  # fmt: skip


def test_a_field_that_is_too_large_is_named(runtime: Runtime) -> None:
    """With its size and its limit; nothing is remembered of it."""
    usual: dict[str, dict[str, object]] = {DOWNLOAD: {"source": SOURCE + "m", "output_dir": "/m/m"}}
    usual[LOAD] = usual[UNLOAD] = {"lora_name": "a"} | usual[DOWNLOAD]
    for what, (path, fields, status, code, words) in LARGE.items():
        got, answer = post(runtime, path, usual[path] | fields)

        assert (got, answer["code"]) == (status, code), (what, answer)
        assert all(word in answer["detail"] for word in words), (what, answer)
        assert len(answer["detail"]) < 2100, what

    assert runtime.get("/v1/downloads").json() == {"downloads": []}


@pytest.mark.parametrize("path", [DOWNLOAD, LOAD, UNLOAD])
def test_a_body_that_is_nested_deeply(runtime: Runtime, path: str) -> None:
    """Is a mistake of its caller, not of the runtime: nothing is logged."""
    status, answer = post(runtime, path, DEEP)

    assert (status, answer["code"]) == (400, "bad_request")
    assert answer["detail"] == "The body is nested too deeply."
    assert "internal" not in runtime.log
    assert "Traceback" not in runtime.log
