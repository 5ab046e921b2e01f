"""Adapters whose content changes around a kill, a restart or another user of the volume: nothing is lost or mistaken."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import md5
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
import requests

from simulators.adapters import make_adapter
from simulators.engine.__main__ import Engine
from simulators.engine.lora import weights_of
from simulators.hub.server import Hub
from simulators.waiting import wait_until
from tests.harness.runtime import Runtime
from tests.lora.test_content import FAST, LOAD, UNLOAD, answer_of, fill, make_old_copy, misses, one, post

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lora.test_content import Start

pytestmark = pytest.mark.slow

OTHER_POD = ("--pod", "pod-1.default")
ROUNDS = 4


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory of a volume with an adapter."""
    folder = tmp_path / "volume" / "sql"
    fill(folder, "old")
    return folder


def call_for(source: Path, base: Path, **more: object) -> dict[str, Any]:
    return {"lora_name": "sql", "source": f"pvc:/{source}", "output_dir": str(base)} | more


def refresh(runtime: Runtime, folder: Path, mark: str, /, **call: object) -> Path:
    """Give a source new content, and load it; return its directory."""
    fill(folder, mark)
    return Path(post(runtime, LOAD, refresh=True, **call)["path"])


def wait_for_rounds(engine: Engine) -> None:
    """Wait until a runtime has compared the engine with its desired set several times."""
    seen = sum(call.path == "/v1/models" for call in engine.calls)
    wait_until(lambda: sum(call.path == "/v1/models" for call in engine.calls) > seen + ROUNDS, "rounds go by")


def test_copies_of_others_are_never_removed(start_runtime: Start, tmp_path: Path, source: Path) -> None:
    """A controller names a model's directory by an MD5, which looks like the name of a content."""
    cache = tmp_path / "cache"
    model = cache / md5(b"s3://models/llama", usedforsecurity=False).hexdigest()
    make_old_copy(tmp_path, make_adapter(tmp_path / "volume" / "model"), model)
    with Engine() as engine:
        runtime = start_runtime(engine.url, *FAST)
        first, *_ = [refresh(runtime, source, mark, **call_for(source, cache)) for mark in ("a", "b", "c")]

        wait_until(lambda: not first.exists(), "the first content is removed")
        wait_for_rounds(engine)

        assert (model / "adapter_config.json").exists()


def test_what_a_killed_worker_linked_is_not_written_to(start_runtime: Start, tmp_path: Path, source: Path) -> None:
    """It had linked an unchanged file of the loaded adapter to its work; the file changes at the source after that."""
    call = call_for(source, tmp_path / "lora")
    with Engine() as engine:
        runtime = start_runtime(engine.url, *FAST)
        loaded = Path(post(runtime, LOAD, **call)["path"])
        weights = weights_of(str(loaded))
        tree = loaded.parent / ".kthena" / "work" / "tree"
        tree.mkdir(parents=True)
        os.link(loaded / "adapter_config.json", tree / "adapter_config.json")

        assert refresh(runtime, source, "new", **call) != loaded
        assert weights_of(str(loaded)) == weights


@pytest.mark.parametrize(("flavour", "version"), [("vllm", "0.33.0"), ("sglang", None)])
def test_an_adopted_adapter_is_suspected_only_with_reason(
    tmp_path: Path, source: Path, flavour: Literal["vllm", "sglang"], version: str | None
) -> None:
    """The engine tells the two contents of the name apart, also for a runtime that has loaded nothing yet."""
    call = call_for(source, tmp_path / "lora")
    arguments = ("--state-dir", str(tmp_path / "state"), *FAST)
    with Engine(flavour=flavour, version=version) as engine:
        with Runtime(engine.url, *arguments, engine=flavour) as first:
            post(first, LOAD, **call)
            refresh(first, source, "new", **call)
        with Runtime(engine.url, *arguments, engine=flavour) as second:
            wait_until(lambda: one(second, "sql")["state"] == "loaded", "it is adopted")
            wait_for_rounds(engine)

            assert not one(second, "sql")["possibly_stale"]
            assert not [each for each in engine.calls if "reset" in each.path]


def test_a_refresh_sees_what_changed_before_it(start_runtime: Start, tmp_path: Path, source: Path) -> None:
    """It does not join one that has listed the source already."""
    call = call_for(source, tmp_path / "lora")
    with Engine() as engine, ThreadPoolExecutor() as pool:
        runtime = start_runtime(engine.url, *FAST)
        post(runtime, LOAD, **call)
        fill(source, "second")
        engine.lora_gate.clear()
        first = pool.submit(requests.post, f"{runtime.url}{LOAD}", json.dumps(call | {"refresh": True}), timeout=60)
        wait_until(lambda: any("unload_lora" in each.path for each in engine.calls), "the first is being loaded")
        new = fill(source, "third")
        second = pool.submit(requests.post, f"{runtime.url}{LOAD}", json.dumps(call | {"refresh": True}), timeout=60)
        assert first.result().json()["code"] == "superseded"
        engine.lora_gate.set()

        assert second.result().status_code == 200
        assert answer_of(engine, "sql") == new


def test_an_old_copy_that_another_tool_updated_is_loaded_again(
    start_runtime: Start, tmp_path: Path, source: Path
) -> None:
    """The engine read it before: the directory is the same, but not what the engine has."""
    call = call_for(source, tmp_path / "lora")
    (tmp_path / "elsewhere").mkdir()
    make_old_copy(tmp_path, source, tmp_path / "lora")
    with Engine() as engine:
        engine.adapters.load("sql", str(tmp_path / "lora"))
        runtime = start_runtime(engine.url, *FAST)
        assert post(runtime, LOAD, **call)["path"] == str(tmp_path / "lora")
        new = fill(source, "new")
        make_old_copy(tmp_path / "elsewhere", source, tmp_path / "lora")  # as an init container of another pod would

        post(runtime, LOAD, refresh=True, **call)

        assert answer_of(engine, "sql") == new


def test_an_old_copy_has_no_records_beside_it(start_runtime: Start, tmp_path: Path, source: Path) -> None:
    """Its own name looks like that of a content; the directory above is nothing of ours."""
    base = tmp_path / "cache" / md5(str(source).encode(), usedforsecurity=False).hexdigest()
    make_old_copy(tmp_path, source, base)
    with Engine() as engine:
        engine.adapters.load("sql", str(base))
        runtime = start_runtime(engine.url, *FAST)
        post(runtime, LOAD, **call_for(source, base))
        wait_for_rounds(engine)

        assert list(base.parent.iterdir()) == [base]


def test_content_that_changes_while_the_engine_restarts(start_runtime: Start, tmp_path: Path) -> None:
    """The new engine has read the new content only, so there is nothing to suspect."""
    folder = tmp_path / "sql"
    fill(folder, "old")
    with Engine(dev_mode=False) as engine:
        port = int(engine.url.rpartition(":")[2])
        runtime = start_runtime(engine.url, *FAST)
        post(runtime, LOAD, lora_name="sql", lora_path=str(folder))
    wait_until(lambda: misses(runtime), "the engine is missed")
    new = fill(folder, "new")
    with Engine(port=port, dev_mode=False) as engine:
        wait_until(lambda: "sql" in engine.adapters.loaded and one(runtime, "sql")["state"] == "loaded", "it is back")

        assert answer_of(engine, "sql") == new
        wait_for_rounds(engine)
        assert not one(runtime, "sql")["possibly_stale"]


def test_an_engine_that_restarted_is_remembered(tmp_path: Path) -> None:
    """The state file no longer has what the engine's former cache held."""
    folder = tmp_path / "sql"
    arguments = ("--state-dir", str(tmp_path / "state"), *FAST)
    fill(folder, "old")
    with restarted_engine(arguments, folder) as engine, Runtime(engine.url, *arguments) as runtime:
        wait_until(lambda: one(runtime, "sql")["state"] == "loaded", "it is adopted")
        wait_for_rounds(engine)

        assert not one(runtime, "sql")["possibly_stale"]


@contextmanager
def restarted_engine(arguments: tuple[str, ...], folder: Path) -> Iterator[Engine]:
    """Let a runtime load suspicious content, and see the engine restart; then the runtime is gone."""
    with Engine(dev_mode=False) as engine:
        port = int(engine.url.rpartition(":")[2])
        runtime = Runtime(engine.url, *arguments).__enter__()
        post(runtime, LOAD, lora_name="sql", lora_path=str(folder))
        fill(folder, "new")
        assert post(runtime, LOAD, lora_name="sql", lora_path=str(folder))["possibly_stale"]
    wait_until(lambda: misses(runtime), "the engine is missed")
    with Engine(port=port, dev_mode=False) as engine:
        wait_until(lambda: "sql" in engine.adapters.loaded and not one(runtime, "sql")["possibly_stale"], "it is well")
        runtime.__exit__(None, None, None)
        yield engine


def test_what_an_engine_kept_is_referred_to(start_runtime: Start, tmp_path: Path, source: Path) -> None:
    """Its runtime restarted without a state directory: the adapter is unmanaged, and other runtimes must leave it."""
    call = call_for(source, tmp_path / "lora")
    with Engine() as engine, Engine() as other_engine:
        with Runtime(other_engine.url, *FAST, *OTHER_POD) as before:
            kept = Path(post(before, LOAD, **call)["path"])
        other = start_runtime(other_engine.url, *FAST, *OTHER_POD)
        runtime = start_runtime(engine.url, *FAST)
        refresh(other, source, "second", **call | {"lora_name": "another"})
        third, *_ = [refresh(runtime, source, mark, **call) for mark in ("third", "fourth", "fifth")]

        wait_until(lambda: not third.exists(), "the third is removed")

        assert other_engine.adapters.loaded["sql"] == str(kept)
        assert kept.is_dir()


def test_the_name_of_a_directory_tells_its_content(tmp_path: Path, source: Path) -> None:
    """So a runtime that remembers nothing suspects nothing when it loads the same content again."""
    call = call_for(source, tmp_path / "lora")
    with Engine(version="0.33.0", dev_mode=False) as engine:
        with Runtime(engine.url, *FAST) as first:
            post(first, LOAD, **call)
        with Runtime(engine.url, *FAST) as second:
            post(second, UNLOAD, lora_name="sql")

            assert not post(second, LOAD, **call)["possibly_stale"]


def test_a_missing_file_that_no_engine_reads(start_runtime: Start, tmp_path: Path, source: Path) -> None:
    """A copy whose README was removed is still an adapter."""
    (source / "README.md").write_text("what it is")
    make_old_copy(tmp_path, source, tmp_path / "lora")
    (tmp_path / "lora" / "README.md").unlink()
    with Engine() as engine:
        runtime = start_runtime(engine.url)

        post(runtime, LOAD, lora_name="sql", lora_path=str(tmp_path / "lora"))


def test_a_pinned_repository_is_fetched_once(start_runtime: Start, tmp_path: Path) -> None:
    """A source that names a revision has a newest content, too."""
    folder = make_adapter(tmp_path / "adapter")
    with Engine() as engine, Hub() as hub:
        hub.create("org/sql").commit({path.name: path.read_bytes() for path in folder.iterdir()})
        runtime = start_runtime(engine.url, *FAST, variables={"HF_ENDPOINT": hub.public_url})
        call = {"lora_name": "sql", "source": "hf://org/sql@main", "output_dir": str(tmp_path / "lora")}
        path = post(runtime, LOAD, **call)["path"]

        assert post(runtime, LOAD, refresh=True, **call)["path"] == path

        downloads = runtime.get("/v1/downloads").json()["downloads"]
        assert [job["bytes_fetched"] > 0 for job in downloads] == [True, False]
