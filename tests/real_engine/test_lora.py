"""Adapters in a real vLLM: loaded, used, replaced, refused, and back after a crash."""

from __future__ import annotations

import json
import os
import shutil
import signal
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from simulators.s3 import OWNER, S3Server
from simulators.waiting import wait_until
from tests.harness.runtime import Runtime
from tests.real_engine.server import HOME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import requests

    from tests.real_engine.conftest import EventfulEngine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Server, str]]:
    """A real S3 server with the adapter lora-a, and its URI."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        bucket = server.bucket()
        for path in (HOME / "lora-a").iterdir():
            bucket.put(f"adapters/lora-a/{path.name}", path.read_bytes())
        yield server, f"s3://{bucket.name}/adapters/lora-a"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where adapters and state lie."""
    return tmp_path_factory.mktemp("lora")


@pytest.fixture(scope="module")
def runtime(vllm: EventfulEngine, store: tuple[S3Server, str], folder: Path) -> Iterator[Runtime]:
    variables = {"ENDPOINT": store[0].url, "ACCESS_KEY": OWNER.access, "SECRET_KEY": OWNER.secret}
    arguments = ("--lora-dir", str(folder / "lora"), "--state-dir", str(folder / "state"), "--reconcile-interval", "1")
    with Runtime(vllm.url, *arguments, variables=variables) as running:
        yield running


def load(runtime: Runtime, **body: object) -> requests.Response:
    return runtime.session.post(f"{runtime.url}/v1/load_lora_adapter", data=json.dumps(body), timeout=120)


def adapters(vllm: EventfulEngine) -> dict[str, str]:
    """Return what the engine itself says that it has."""
    return {card["id"]: card["root"] for card in vllm.get("/v1/models").json()["data"] if card["parent"]}


def test_adapters_come_from_s3_and_from_a_directory(
    vllm: EventfulEngine, runtime: Runtime, store: tuple[S3Server, str]
) -> None:
    """Both answer requests under their names."""
    first = load(runtime, lora_name="sql", source=store[1])
    second = load(runtime, lora_name="org/local", output_dir=str(HOME / "lora-b"))

    assert (first.status_code, second.status_code) == (200, 200), first.text + second.text
    assert set(adapters(vllm)) == {"sql", "org/local"}
    base = vllm.complete("the word of the one", temperature=0).json()["choices"][0]["text"]
    for name in ("sql", "org/local"):
        assert vllm.complete("the word of the one", model=name, temperature=0).json()["choices"][0]["text"] != base


def test_a_load_of_files_that_are_there_costs_next_to_nothing(vllm: EventfulEngine, runtime: Runtime) -> None:
    """The runtime's part of a synchronous load, beside the engine's own call: printed, not judged here."""
    started = monotonic()
    assert vllm.post("/v1/load_lora_adapter", {"lora_name": "d", "lora_path": str(HOME / "lora-c")}).status_code == 200
    direct = monotonic() - started
    assert vllm.post("/v1/unload_lora_adapter", {"lora_name": "d"}).status_code == 200
    started = monotonic()
    assert load(runtime, lora_name="d", output_dir=str(HOME / "lora-c")).status_code == 200
    ours = monotonic() - started
    print(f"load: {direct * 1000:.1f} ms by the engine's own call, {ours * 1000:.1f} ms through the runtime")
    assert "d" in adapters(vllm)
    answer = runtime.session.post(
        f"{runtime.url}/v1/unload_lora_adapter", data=json.dumps({"lora_name": "d"}), timeout=60
    )
    assert answer.status_code == 200


def test_another_source_replaces(vllm: EventfulEngine, runtime: Runtime) -> None:
    """The same name, other weights."""
    before = vllm.complete("the word of the one", model="org/local", temperature=0).json()["choices"][0]["text"]

    assert load(runtime, lora_name="org/local", output_dir=str(HOME / "lora-c")).status_code == 200

    assert adapters(vllm)["org/local"] == str(HOME / "lora-c")
    assert vllm.complete("the word of the one", model="org/local", temperature=0).json()["choices"][0]["text"] != before


@pytest.mark.parametrize(
    ("name", "path", "code"),
    [
        ("sql", "lora-rank64", "rank_too_large"),
        ("fresh", "lora-rank64", "rank_too_large"),
        ("fresh", "lora-empty", "invalid_adapter"),
        ("tiny-llama", "lora-b", "name_taken"),
    ],
)
def test_what_the_engine_cannot_have_leaves_the_others_alone(
    vllm: EventfulEngine, runtime: Runtime, name: str, path: str, code: str
) -> None:
    """A clear code, and the engine as before."""
    before = adapters(vllm)

    answer = load(runtime, lora_name=name, output_dir=str(HOME / path))

    assert answer.json()["code"] == code, answer.text
    assert adapters(vllm) == before
    assert vllm.complete("the", model="sql").status_code == 200


def test_adapters_come_back_after_a_crash(vllm: EventfulEngine, runtime: Runtime, folder: Path) -> None:
    """Kill -9 on the whole engine: started again, it has them within an interval, from disk."""
    before = adapters(vllm)
    assert set(before) == {"sql", "org/local"}
    os.killpg(vllm.process.pid, signal.SIGKILL)
    vllm.process.wait(timeout=30)

    vllm.start()
    ready = monotonic()
    wait_until(lambda: adapters(vllm) == before, "the adapters are back", seconds=60, every=0.05)

    print(f"adapters back {monotonic() - ready:.2f} s after the engine was ready")
    assert vllm.complete("the", model="sql").status_code == 200
    assert runtime.get("/ready").json()["checks"]["lora"]["status"] == "ok"
    assert (folder / "state" / "lora-adapters.json").exists()


def test_the_model_file_is_followed(vllm: EventfulEngine, tmp_path: Path) -> None:
    """Swapped as a ConfigMap is: added ones are loaded, removed ones unloaded, others left alone."""
    for name in ("a", "b"):
        shutil.copytree(HOME / f"lora-{name}", tmp_path / "volume" / name)

    def write(version: str, names: str) -> None:
        (tmp_path / version).mkdir()
        listed = "".join(f"\n      - {{name: model-{n}, artifactURL: 'pvc://{tmp_path}/volume/{n}'}}" for n in names)
        (tmp_path / version / "model.yaml").write_text(
            f"kind: Model\nspec:\n  backends:\n    - name: one\n      cacheURI: hostpath://{tmp_path}/cache\n      loraAdapters:{listed or ' []'}\n"
        )
        new = tmp_path / "..data.new"
        new.symlink_to(version)
        new.rename(tmp_path / "..data")

    write("v1", "a")
    arguments = ("--model-config", str(tmp_path / "..data" / "model.yaml"), "--reconcile-interval", "1")
    before = adapters(vllm)
    with Runtime(vllm.url, *arguments) as runtime:
        wait_until(lambda: set(adapters(vllm)) == {*before, "model-a"}, "the first is loaded")
        wait_until(lambda: runtime.get("/ready").status_code == 200, "it is ready")
        write("v2", "b")
        wait_until(lambda: set(adapters(vllm)) == {*before, "model-b"}, "the second took its place")
        write("v3", "")
        wait_until(lambda: adapters(vllm) == before, "none is left but those of others")
