"""The memory of downloads: they fit beside the runtime into its container, and say so when they reach their limit."""

from __future__ import annotations

import os
import re
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.peers.bad_proxy import BadProxy
from tests.peers.downloader import Downloader, contents, pod
from tests.peers.hub import Hub
from tests.peers.memory import MIB, Watch, family, limited
from tests.peers.proxy_faults import holds
from tests.peers.runtime import Runtime
from tests.peers.s3 import OWNER, S3Server
from tests.peers.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

NOWHERE: Final = "http://127.0.0.1:9"
MANY: Final = {f"{number}.bin": os.urandom(500_000) for number in range(80)}
WORDS: Final = "--worker-memory"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def downloader(tmp_path: Path) -> Downloader:
    return Downloader(tmp_path)


def volume(folder: Path, count: int) -> str:
    """Make a volume of so many files; return its source."""
    for number in range(count):
        place = folder / str(number // 1000)
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}").touch()
    return f"pvc:/{folder}"


def post(runtime: Runtime, source: str, target: Path, **more: Any) -> dict[str, Any]:
    body = {"source": source, "output_dir": str(target)} | more
    return runtime.session.post(f"{runtime.url}/v1/download_model", json=body, timeout=100).json()


def finished(runtime: Runtime) -> list[dict[str, Any]]:
    """Wait until all downloads have ended."""

    def ended() -> list[dict[str, Any]]:
        jobs = runtime.get("/v1/downloads").json()["downloads"]
        return jobs if all(job["finished"] for job in jobs) else []

    return wait_until(ended, "all downloads ended", seconds=100, every=0.1)


def test_two_downloads_fit_beside_the_runtime(s3: S3Server, tmp_path: Path) -> None:
    """Of many files, by as many workers as there may be, from a store and from a Hub."""
    bucket = s3.bucket()
    bucket.put_many(MANY, prefix="model/")
    with Hub() as hub, limited(256 * MIB) as group:
        hub.create("org/model").commit(MANY)
        runtime = Runtime(NOWHERE, variables=pod(s3.url, OWNER, HF_ENDPOINT=hub.url), group=group)
        with runtime, Watch(runtime.pid) as watch:
            for source in (bucket.uri("model"), "org/model"):
                post(runtime, source, tmp_path / source[:2], max_workers=64, async_download=True)
            jobs = finished(runtime)

    assert [job["state"] for job in jobs] == ["done", "done"], jobs
    assert contents(tmp_path / "s3") == contents(tmp_path / "or") == MANY
    assert watch.proportional < 256 * MIB, f"{watch.proportional / MIB:.0f} MiB"
    assert max(watch.peaks.values()) < 100 * MIB, watch.peaks


def test_a_worker_limits_itself(s3: S3Server, tmp_path: Path) -> None:
    """As the flag says, while it downloads; the runtime does not."""
    bucket, gate = s3.bucket(), Event()
    bucket.put("model/x.bin", b"x")
    with (
        BadProxy(s3.netloc) as proxy,
        Runtime(NOWHERE, "--worker-memory", "96Mi", variables=pod(proxy.url, OWNER)) as runtime,
    ):
        proxy.misbehave(holds(gate), "*/x.bin")
        post(runtime, bucket.uri("model"), tmp_path / "model", async_download=True)
        proxy.wait_for(1, "*/x.bin")
        limits = [_data_limit(pid) for pid in family(runtime.pid)]
        gate.set()
        finished(runtime)

    assert limits == ["unlimited", str(96 * MIB)]


def _data_limit(pid: int) -> str:
    return re.search(r"Max data size +(\w+)", Path(f"/proc/{pid}/limits").read_text())[1]


def test_a_download_that_needs_more_says_so(tmp_path: Path) -> None:
    """The job has failed, with a code and with what to do; the directory is free for the next one."""
    source, target = volume(tmp_path / "claim", 1), tmp_path / "models" / "model"
    journal = target.with_name(".model.kthena") / "parts"
    journal.parent.mkdir(parents=True)
    journal.write_bytes(b"".join(b'["%d",1,"",0,1]\n' % number for number in range(600_000)))
    with limited(256 * MIB) as group, Runtime(NOWHERE, group=group) as runtime:
        with Watch(runtime.pid) as watch:
            answer = post(runtime, source, target)
        (job,) = finished(runtime)
        locks = list(journal.parent.glob("lock-*"))
        journal.unlink()
        again = post(runtime, source, target)

    assert (answer["status"], answer["code"]) == (507, "out_of_memory")
    assert WORDS in answer["detail"]
    assert (job["state"], job["retries"], job["error"]["code"]) == ("failed", 0, "out_of_memory")
    assert locks == []
    assert again["status"] == "success"
    assert watch.proportional < 256 * MIB, f"{watch.proportional / MIB:.0f} MiB"


def test_the_downloader_has_an_exit_code_for_it(downloader: Downloader, tmp_path: Path) -> None:
    """And one line."""
    source, target = volume(tmp_path / "claim", 1), tmp_path / "models" / "model"
    journal = target.with_name(".model.kthena") / "parts"
    journal.parent.mkdir(parents=True)
    journal.write_bytes(b"".join(b'["%d",1,"",0,1]\n' % number for number in range(600_000)))

    run = downloader.run(source, target)

    assert run.code == 10, run.stderr
    assert "[out_of_memory]" in run.stderr
    assert WORDS in run.stderr


def test_a_volume_of_very_many_files(downloader: Downloader, tmp_path: Path) -> None:
    """Is refused with the number that there may be, which grows with the memory."""
    source = volume(tmp_path / "claim", 16_385)

    refused = downloader.run(source, tmp_path / "target", "--dry-run", "--worker-memory", "64Mi")
    taken = downloader.run(source, tmp_path / "target", "--dry-run")

    assert refused.code == 7, refused.stderr
    assert "16384 files" in refused.stderr
    assert WORDS in refused.stderr
    assert taken.code == 0, taken.stderr


def test_records_that_are_huge(downloader: Downloader, tmp_path: Path) -> None:
    """On a volume that others write to: the download starts over, or finds that it does not know what is there."""
    source, target = volume(tmp_path / "claim", 1), tmp_path / "models" / "model"
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
