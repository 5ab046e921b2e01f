"""What downloads leave in the runtime that asked for them: nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from simulators.s3 import OWNER
from tests.harness.downloader import contents, pod
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from simulators.s3 import Bucket, S3Server

ADAPTER: Final = {"adapter_config.json": b'{"r": 8}', "adapter_model.safetensors": bytes(range(256)) * 40_000}
LIBRARIES: Final = {"boto3", "botocore", "s3transfer", "huggingface_hub", "hf_xet", "tqdm"}
MEGABYTES: Final = 3.0


@pytest.fixture
def bucket(s3: S3Server) -> Bucket:
    """A bucket with an adapter of ten megabytes below `adapter/`."""
    bucket = s3.bucket()
    bucket.put_many(ADAPTER, prefix="adapter/")
    return bucket


def resident(pid: int) -> float:
    """Return the megabytes that a process has in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def test_ten_downloads_leave_nothing(bucket: Bucket, tmp_path: Path) -> None:
    """Memory is what it was before them, and the libraries that know the sources were never imported."""
    (tmp_path / "home").mkdir()
    (tmp_path / "modules").mkdir()
    variables = pod(bucket.server.url, OWNER, HOME=str(tmp_path / "home"), PYTHONPATH=str(_telling(tmp_path)))
    with Runtime("http://127.0.0.1:9", variables=variables) as runtime:
        runtime.session.get(f"{runtime.url}/metrics", timeout=10)
        before = resident(runtime.process.pid)
        for number in range(10):
            target = tmp_path / "models" / str(number)
            body = {"source": bucket.uri("adapter"), "output_dir": str(target)}
            answer = runtime.session.post(f"{runtime.url}/v1/download_model", json=body, timeout=60)
            assert answer.status_code == 200, answer.text
            assert contents(target) == ADAPTER
        after = resident(runtime.process.pid)
        pid = runtime.process.pid

    assert abs(after - before) <= MEGABYTES, f"{before:.1f} MB before, {after:.1f} MB after"
    modules = set((tmp_path / "modules" / str(pid)).read_text().split())
    assert "storage.supervisor.supervisor" in modules
    assert not {name.partition(".")[0] for name in modules} & LIBRARIES


def _telling(folder: Path) -> Path:
    """Return where Python finds an order to write down, at its end, what it has imported."""
    (folder / "order").mkdir()
    (folder / "order" / "sitecustomize.py").write_text(
        "import atexit, os, pathlib, sys\n"
        f"file = pathlib.Path({str(folder / 'modules')!r}, str(os.getpid()))\n"
        "atexit.register(lambda: file.write_text('\\n'.join(sys.modules)))\n"
    )
    return folder / "order"
