"""The memory of downloads: they fit beside the runtime into its container, and say so when they reach their limit."""

from __future__ import annotations

import os
import re
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Final

import pytest

from simulators.hub.server import Hub
from simulators.misbehaving.proxy import BadProxy
from simulators.misbehaving.proxy_faults import holds
from simulators.s3 import OWNER, S3Server
from simulators.waiting import PATIENCE, wait_until
from tests.harness.downloader import Downloader, contents, pod
from tests.harness.memory import MIB, Watch, limited
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.faults, pytest.mark.slow]

NOWHERE: Final = "http://127.0.0.1:9"
WEIGHTS: Final = os.urandom(300_000)
WORDS: Final = "--worker-memory"
# More lists than fit into a worker; a manifest of so many bytes is read.
GREEDY: Final = b"[" + b"[]," * (10 * MIB)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def downloader(tmp_path: Path) -> Downloader:
    return Downloader(tmp_path)


def model(count: int) -> dict[str, bytes]:
    return dict.fromkeys((f"{number}.bin" for number in range(count)), WEIGHTS)


def volume(folder: Path, count: int = 1) -> str:
    """Make a volume of so many empty files; return its source."""
    for number in range(count):
        place = folder / str(number // 1000)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}").touch()
    return f"pvc:/{folder}"


def post(runtime: Runtime, source: str, target: Path, **more: Any) -> None:
    body = {"source": source, "output_dir": str(target), "async_download": True} | more
    answer = runtime.session.post(f"{runtime.url}/v1/download_model", json=body, timeout=PATIENCE)
    assert answer.status_code == 202, answer.text


def finished(runtime: Runtime) -> list[dict[str, Any]]:
    """Wait until all downloads have ended."""

    def ended() -> list[dict[str, Any]]:
        jobs = runtime.get("/v1/downloads").json()["downloads"]
        return jobs if all(job["finished"] for job in jobs) else []

    return wait_until(ended, "all downloads have ended", every=0.1)


def test_two_downloads_fit_beside_the_runtime(s3: S3Server, tmp_path: Path) -> None:
    """One from a store and one from a Hub, both under way at the same time."""
    bucket, gate = s3.bucket(), Event()
    bucket.put_many(model(12), prefix="model/")
    with Hub() as hub, BadProxy(s3.netloc) as store, BadProxy(hub.cdn_netloc) as cdn, limited(256 * MIB) as group:
        hub.create("org/model").commit(model(12))
        hub.cdn_url = cdn.url
        runtime = Runtime(NOWHERE, variables=pod(store.url, OWNER, HF_ENDPOINT=hub.url), group=group)
        for proxy, path in ((store, "*/model/*"), (cdn, "*")):
            proxy.misbehave(holds(gate), path)
        with runtime, Watch(runtime.pid) as watch:
            post(runtime, bucket.uri("model"), tmp_path / "store")
            post(runtime, "org/model", tmp_path / "hub")
            for proxy, path in ((store, "*/model/*"), (cdn, "*")):
                proxy.wait_for(8, path)
            gate.set()
            jobs = finished(runtime)

    assert [job["state"] for job in jobs] == ["done", "done"], jobs
    assert contents(tmp_path / "store") == contents(tmp_path / "hub") == model(12)
    assert watch.proportional < 256 * MIB, f"{watch.proportional / MIB:.0f} MiB"
    assert max(watch.peaks.values()) < 64 * MIB, watch.peaks


def test_as_many_requests_as_there_may_be(downloader: Downloader, s3: S3Server, tmp_path: Path) -> None:
    """At a time, within the default limit: stacks and buffers are small."""
    bucket, gate = s3.bucket(), Event()
    bucket.put_many(model(64), prefix="model/")
    with BadProxy(s3.netloc) as proxy:
        proxy.misbehave(holds(gate), "*/model/*")
        variables = pod(proxy.url, OWNER)
        with downloader.start(bucket.uri("model"), tmp_path / "model", "-w", "64", variables=variables) as running:
            with Watch(running.process.pid) as watch:
                proxy.wait_for(64, "*/model/*")
                gate.set()
                running.process.wait(timeout=PATIENCE)
            ended = running.end()

    assert ended.code == 0, ended.stderr
    assert contents(tmp_path / "model") == model(64)
    assert max(watch.peaks.values()) < 80 * MIB, watch.peaks


def test_a_worker_limits_itself(downloader: Downloader, s3: S3Server, tmp_path: Path) -> None:
    """As the flag says, while it downloads; the program that started it does not."""
    bucket, gate = s3.bucket(), Event()
    bucket.put("model/x.bin", b"x")
    with BadProxy(s3.netloc) as proxy:
        proxy.misbehave(holds(gate), "*/x.bin")
        arguments = (bucket.uri("model"), tmp_path / "model", "--worker-memory", "96Mi")
        with downloader.start(*arguments, variables=pod(proxy.url, OWNER)) as running:
            proxy.wait_for(1, "*/x.bin")
            limits = [_data_limit(pid) for pid in running.family()]
            gate.set()
            ended = running.end()

    assert ended.code == 0, ended.stderr
    assert limits == ["unlimited", str(96 * MIB)]


def _data_limit(pid: int) -> str:
    found = re.search(r"Max data size +(\w+)", Path(f"/proc/{pid}/limits").read_text())
    assert found is not None
    return found[1]


def test_a_job_that_needs_more_says_so(tmp_path: Path) -> None:
    """It has failed, with a code and with what to do, and is not tried again; the directory is free for the next."""
    source, target = volume(tmp_path / "claim"), tmp_path / "models" / "model"
    manifest = target / ".kthena" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_bytes(GREEDY)
    with limited(256 * MIB) as group, Runtime(NOWHERE, "--worker-memory", "72Mi", group=group) as runtime:
        with Watch(runtime.pid) as watch:
            post(runtime, source, target)
            (job,) = finished(runtime)
        manifest.unlink()
        post(runtime, source, target)
        _, again = finished(runtime)

    assert (job["state"], job["retries"], job["error"]["code"]) == ("failed", 0, "out_of_memory")
    assert WORDS in job["error"]["message"]
    assert again["state"] == "done"
    assert watch.proportional < 256 * MIB, f"{watch.proportional / MIB:.0f} MiB"
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_the_downloader_has_an_exit_code_for_it(downloader: Downloader, tmp_path: Path) -> None:
    """And one line; no lock is left."""
    source, target = volume(tmp_path / "claim"), tmp_path / "models" / "model"
    (target / ".kthena").mkdir(parents=True)
    (target / ".kthena" / "manifest.json").write_bytes(GREEDY)

    run = downloader.run(source, target)

    assert run.code == 10, run.stderr
    assert run.stderr.count("\n") == 1
    assert "[out_of_memory]" in run.stderr
    assert WORDS in run.stderr
    assert list(target.parent.rglob("lock-*")) == []


def test_a_volume_of_very_many_files(downloader: Downloader, tmp_path: Path) -> None:
    """Is refused with the number that there may be, which grows with the memory."""
    run = downloader.run(volume(tmp_path / "claim", 16_385), tmp_path / "target", "--worker-memory", "64Mi")

    assert run.code == 7, run.stderr
    assert "16384 files" in run.stderr
    assert WORDS in run.stderr


def test_records_that_are_huge(downloader: Downloader, tmp_path: Path) -> None:
    """On a volume that others write to: the download starts over, or finds that it does not know what is there."""
    source, target = volume(tmp_path / "claim"), tmp_path / "models" / "model"
    (target / "0").mkdir(parents=True)
    (target / "0" / "0").write_text("mine")
    for record in (target / ".kthena" / "manifest.json", target.with_name(".model.kthena") / "parts"):
        record.parent.mkdir()
        with record.open("wb") as file:
            file.truncate(1 << 40)

    refused = downloader.run(source, target)
    run = downloader.run(source, target, "--replace")

    assert refused.code == 9, refused.stderr
    assert run.code == 0, run.stderr
    assert contents(target) == {"0/0": b""}
