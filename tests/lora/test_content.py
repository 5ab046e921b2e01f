"""Adapters get new content: the directory, the engine's cache and the answers follow, and nothing else is touched."""

from __future__ import annotations

import json
import os
import re
import shutil
from hashlib import sha256
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import requests

from simulators.adapters import make_adapter
from simulators.engine.__main__ import Engine
from simulators.engine.lora import weights_of
from simulators.waiting import PATIENCE, wait_until
from tests.harness.downloader import Downloader
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

Start: TypeAlias = "Callable[..., Runtime]"

LOAD = "/v1/load_lora_adapter"
UNLOAD = "/v1/unload_lora_adapter"
FAST = ("--reconcile-interval", "0.1")
# vLLM finds blocks by name up to 0.30 and by name and path from 0.31 on; a version that is not one is taken for an old one.
each_version = pytest.mark.parametrize("version", ["0.30.0", "0.31.0", "0.33.0", "0.31.0rc1", "unknown", ""])


def post(runtime: Runtime, path: str, **body: object) -> dict[str, Any]:
    answer = requests.post(runtime.url + path, data=json.dumps(body), timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def answer_of(engine: Engine, name: str) -> str:
    """Return the weights that a completion was computed with."""
    answer = requests.post(f"{engine.url}/v1/completions", data=json.dumps({"model": name}), timeout=PATIENCE)
    text: str = answer.json()["choices"][0]["text"]
    return text


def fill(folder: Path, mark: str) -> str:
    """Make a directory an adapter whose weights no other mark has; return these."""
    shutil.rmtree(folder, ignore_errors=True)
    return weights_of(str(make_adapter(folder, mark=mark)))


def loads_of(engine: Engine) -> int:
    return sum("/load_lora" in call.path for call in engine.calls)


def one(runtime: Runtime, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = runtime.get(f"/v1/lora_adapters/{name}").json()
    return shown


def test_a_directory_is_named_by_its_content(start_runtime: Start, tmp_path: Path) -> None:
    """Below the one that was asked for, whose own files are left alone; equal content has one directory."""
    base = tmp_path / "lora"
    fill(base, "theirs")
    for name in ("one", "two"):
        fill(tmp_path / name, "same")
    with Engine() as engine:
        runtime = start_runtime(engine.url)

        paths = [
            post(runtime, LOAD, lora_name=name, source=f"pvc:/{tmp_path}/{name}", output_dir=str(base))["path"]
            for name in ("one", "two")
        ]

        assert paths == [paths[0]] * 2
        assert Path(paths[0]).parent == base
        assert json.loads((base / "adapter_config.json").read_text())["mark"] == "theirs"
        assert (one(runtime, "one")["path"], one(runtime, "one")["content"]) == (paths[0], Path(paths[0]).name)


@each_version
def test_a_refresh_takes_the_source_as_it_is_now(start_runtime: Start, tmp_path: Path, version: str) -> None:
    """Without it the same source is what is loaded; with it new content replaces, and answers come from it."""
    source = tmp_path / "volume" / "sql"
    call = {"lora_name": "sql", "source": f"pvc:/{source}"}
    fill(source, "old")
    with Engine(version=version) as engine:
        runtime = start_runtime(engine.url, "--lora-dir", str(tmp_path / "lora"))
        first = post(runtime, LOAD, **call)
        answer_of(engine, "sql")
        new = fill(source, "new")
        assert post(runtime, LOAD, **call)["path"] == first["path"]

        second = post(runtime, LOAD, refresh=True, **call)

        assert second["path"] != first["path"]
        assert (answer_of(engine, "sql"), second["possibly_stale"]) == (new, False)
        assert loads_of(engine) == 2
        assert post(runtime, LOAD, refresh=True, **call)["path"] == second["path"]
        assert loads_of(engine) == 2, "what did not change is not loaded again"


@each_version
def test_new_content_after_an_unload(start_runtime: Start, tmp_path: Path, version: str) -> None:
    """The name, and the source, had other weights before."""
    source = tmp_path / "volume" / "sql"
    call = {"lora_name": "sql", "source": f"pvc:/{source}"}
    fill(source, "old")
    with Engine(version=version) as engine:
        runtime = start_runtime(engine.url, "--lora-dir", str(tmp_path / "lora"))
        post(runtime, LOAD, **call)
        answer_of(engine, "sql")
        new = fill(source, "new")
        post(runtime, UNLOAD, lora_name="sql")

        post(runtime, LOAD, **call)

        assert answer_of(engine, "sql") == new


@each_version
def test_another_directory_under_one_name(start_runtime: Start, tmp_path: Path, version: str) -> None:
    """The cache is reset only where it cannot tell the two apart."""
    fill(tmp_path / "one", "one")
    new = fill(tmp_path / "two", "two")
    with Engine(version=version) as engine:
        runtime = start_runtime(engine.url)
        post(runtime, LOAD, lora_name="sql", lora_path=str(tmp_path / "one"))
        answer_of(engine, "sql")

        post(runtime, LOAD, lora_name="sql", lora_path=str(tmp_path / "two"))

        assert answer_of(engine, "sql") == new
        assert engine.prefix_cache.resets == (0 if version in {"0.31.0", "0.33.0"} else 1)


@each_version
@pytest.mark.parametrize("unloaded", [False, True], ids=["loaded", "unloaded"])
def test_new_content_under_one_path(start_runtime: Start, tmp_path: Path, version: str, *, unloaded: bool) -> None:
    """A directory without a source is never copied; no engine can tell its contents apart."""
    folder = tmp_path / "sql"
    fill(folder, "old")
    with Engine(version=version) as engine:
        runtime = start_runtime(engine.url)
        post(runtime, LOAD, lora_name="sql", lora_path=str(folder))
        answer_of(engine, "sql")
        new = fill(folder, "new")
        if unloaded:
            post(runtime, UNLOAD, lora_name="sql")

        assert post(runtime, LOAD, lora_name="sql", lora_path=str(folder))["path"] == str(folder)

        assert answer_of(engine, "sql") == new
        assert engine.prefix_cache.resets == 1


def test_sglang_tells_loads_apart(start_runtime: Start, tmp_path: Path) -> None:
    """It gives each load an identity, so nothing has to be reset."""
    folder = tmp_path / "sql"
    fill(folder, "old")
    with Engine(flavour="sglang") as engine:
        runtime = start_runtime(engine.url, engine="sglang")
        post(runtime, LOAD, lora_name="sql", lora_path=str(folder))
        fill(folder, "new")

        assert not post(runtime, LOAD, lora_name="sql", lora_path=str(folder))["possibly_stale"]
        assert not [call for call in engine.calls if "reset" in call.path]
        assert loads_of(engine) == 2


@pytest.mark.parametrize("version", ["0.30.0", "0.33.0"])
def test_what_the_cache_may_hold_outlives_the_runtime(tmp_path: Path, version: str) -> None:
    """A runtime that restarts between the unload and the load still knows which weights the name had."""
    folder = tmp_path / "sql"
    fill(folder, "old")
    with Engine(version=version) as engine:
        with Runtime(engine.url, "--state-dir", str(tmp_path / "state")) as first:
            post(first, LOAD, lora_name="sql", lora_path=str(folder))
            answer_of(engine, "sql")
            post(first, UNLOAD, lora_name="sql")
        new = fill(folder, "new")
        with Runtime(engine.url, "--state-dir", str(tmp_path / "state")) as second:
            post(second, LOAD, lora_name="sql", lora_path=str(folder))

            assert answer_of(engine, "sql") == new


def test_a_cache_that_cannot_be_reset_is_reported_everywhere(start_runtime: Start, tmp_path: Path) -> None:
    """In the answer, in /ready, in the log and in a metric, until the engine restarts with an empty cache."""
    folder = tmp_path / "sql"
    fill(folder, "old")
    with Engine(dev_mode=False) as engine:
        port = int(engine.url.rpartition(":")[2])
        runtime = start_runtime(engine.url, *FAST)
        post(runtime, LOAD, lora_name="sql", lora_path=str(folder))
        fill(folder, "new")

        answer = post(runtime, LOAD, lora_name="sql", lora_path=str(folder))

        assert (answer["possibly_stale"], "weights" in answer["warning"]) == (True, True)
        ready = runtime.get("/ready").json()["checks"]["lora"]
        assert (ready["status"], "sql" in ready["detail"]) == ("failing", True)
        assert one(runtime, "sql")["possibly_stale"] is True
        assert "adapter sql: answers may come from the weights that had this name before" in runtime.log
        page = runtime.page()
        assert "kthena_runtime_lora_adapters_possibly_stale 1.0" in page
        assert 'kthena_runtime_lora_cache_resets_total{outcome="unsupported"} 1.0' in page
    wait_until(lambda: runtime.get("/ready").json()["checks"]["engine"]["status"] != "ok", "the engine is missed")
    wait_until(lambda: misses(runtime), "the comparison misses it, too")
    with Engine(port=port, dev_mode=False):
        wait_until(
            lambda: one(runtime, "sql")["state"] == "loaded" and not one(runtime, "sql")["possibly_stale"], "well"
        )


def misses(runtime: Runtime) -> bool:
    """Tell whether comparisons found that the engine's process is gone: the first may only find that it hung up."""
    found = re.search(r'lora_reconciles_total\{outcome="engine_unavailable"\} (\S+)', runtime.page())
    return found is not None and float(found[1]) > 2


@pytest.mark.parametrize("says", [True, False], ids=["says false", "says nothing"])
def test_a_reset_counts_only_when_the_engine_says_so(start_runtime: Start, tmp_path: Path, *, says: bool) -> None:
    """A vLLM answers 200 also while requests run and nothing was reset; the load waits until they have ended."""
    folder = tmp_path / "sql"
    fill(folder, "old")
    with Engine() as engine:
        runtime = start_runtime(engine.url, *FAST)
        post(runtime, LOAD, lora_name="sql", lora_path=str(folder))
        answer_of(engine, "sql")
        new = fill(folder, "new")
        engine.prefix_cache.busy, engine.prefix_cache.says = True, says
        assert (
            requests.post(
                runtime.url + LOAD,
                data=json.dumps({"lora_name": "sql", "lora_path": str(folder), "async_download": True}),
                timeout=PATIENCE,
            ).status_code
            == 202
        )
        wait_until(lambda: resets_tried(engine) > 1, "the reset is tried again")
        assert engine.adapters.loaded == {}
        engine.prefix_cache.busy, engine.prefix_cache.says = False, True

        wait_until(lambda: one(runtime, "sql")["state"] == "loaded", "it is loaded")
        assert answer_of(engine, "sql") == new
        assert one(runtime, "sql")["possibly_stale"] is False


def resets_tried(engine: Engine) -> int:
    return sum(call.path == "/reset_prefix_cache" and call.query == "reset_external=true" for call in engine.calls)


def make_old_copy(tmp_path: Path, source: Path, target: Path) -> None:
    """Leave a copy as version 0.1 did: in the directory itself, with its manifest."""
    done = Downloader(tmp_path).run(f"pvc:/{source}", target)
    assert done.code == 0, done


@pytest.mark.parametrize("kept", [True, False], ids=["with a state file", "without"])
def test_what_version_0_1_left_is_adopted(start_runtime: Start, tmp_path: Path, *, kept: bool) -> None:
    """The engine has it from the directory itself; it stays there until its content changes."""
    source, target = tmp_path / "volume" / "sql", tmp_path / "lora"
    fill(source, "old")
    make_old_copy(tmp_path, source, target)
    call = {"lora_name": "sql", "source": f"pvc:/{source}", "output_dir": str(target)}
    if kept:
        write_state_1(tmp_path / "state", call)
    with Engine() as engine:
        engine.adapters.load("sql", str(target))
        runtime = start_runtime(engine.url, "--state-dir", str(tmp_path / "state"), *FAST)
        for refresh in (False, True):
            assert post(runtime, LOAD, refresh=refresh, **call)["path"] == str(target)
        assert loads_of(engine) == 0
        new = fill(source, "new")

        path = post(runtime, LOAD, refresh=True, **call)["path"]

        assert Path(path).parent == target
        assert answer_of(engine, "sql") == new
        assert json.loads((target / "adapter_config.json").read_text())["mark"] == "old"


def write_state_1(folder: Path, call: dict[str, str]) -> None:
    """Write a state file as version 0.1 wrote it."""
    row = {"name": "sql", "path": call["output_dir"], "source": call["source"], "origin": "call", "allow_pickle": False}
    state = {"version": 1, "adapters": [row], "removed": []}
    check = sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
    folder.mkdir()
    (folder / "lora-adapters.json").write_text(json.dumps(state | {"check": check}))


def test_old_content_is_removed_when_nobody_needs_it(start_runtime: Start, tmp_path: Path) -> None:
    """The one before stays; what another runtime refers to stays, until that runtime is gone for a day."""
    source = tmp_path / "volume" / "sql"
    call = {"lora_name": "sql", "source": f"pvc:/{source}"}
    fill(source, "first")
    arguments = ("--lora-dir", str(tmp_path / "lora"), *FAST)
    with Engine() as engine, Engine() as other_engine:
        runtime = start_runtime(engine.url, *arguments)
        other = start_runtime(other_engine.url, *arguments, "--pod", "pod-1.default")
        first = Path(post(runtime, LOAD, **call)["path"])
        assert post(other, LOAD, **call)["path"] == str(first)
        paths = []
        for mark in ("second", "third", "fourth"):
            fill(source, mark)
            paths.append(Path(post(runtime, LOAD, refresh=True, **call)["path"]))

        wait_until(lambda: not paths[0].exists(), "the second is removed")

        assert [path.is_dir() for path in (first, *paths)] == [True, False, True, True]
        assert other_engine.adapters.loaded == {"sql": str(first)}
        reference = first.parent / ".kthena" / "refs" / "pod-1.default"
        os.utime(reference, (time() - 90_000, time() - 90_000))
        fill(source, "fifth")
        fifth = Path(post(runtime, LOAD, refresh=True, **call)["path"])
        wait_until(lambda: directories(first.parent) == {paths[2], fifth}, "only the last two are left")


def directories(base: Path) -> set[Path]:
    return {path for path in base.iterdir() if path.name != ".kthena"}


def test_what_the_engine_still_has_is_not_removed(start_runtime: Start, tmp_path: Path) -> None:
    """Under a name that another client gave it."""
    source = tmp_path / "volume" / "sql"
    call = {"lora_name": "sql", "source": f"pvc:/{source}"}
    fill(source, "first")
    with Engine() as engine:
        runtime = start_runtime(engine.url, "--lora-dir", str(tmp_path / "lora"), *FAST)
        first = Path(post(runtime, LOAD, **call)["path"])
        engine.adapters.load("theirs", str(first))
        paths = []
        for mark in ("second", "third", "fourth"):
            fill(source, mark)
            paths.append(Path(post(runtime, LOAD, refresh=True, **call)["path"]))

        wait_until(lambda: not paths[0].exists(), "the second is removed")

        assert first.is_dir()


def test_going_back_to_old_content_fetches_nothing_and_is_kept(start_runtime: Start, tmp_path: Path) -> None:
    """Its directory is there, and is the newest of its source again."""
    source = tmp_path / "volume" / "sql"
    call = {"lora_name": "sql", "source": f"pvc:/{source}"}
    with Engine() as engine:
        runtime = start_runtime(engine.url, "--lora-dir", str(tmp_path / "lora"), *FAST)
        fill(source, "old")
        old = post(runtime, LOAD, **call)["path"]
        answer_of(engine, "sql")
        fill(source, "new")
        post(runtime, LOAD, refresh=True, **call)
        weights = fill(source, "old")

        assert post(runtime, LOAD, refresh=True, **call)["path"] == old
        assert answer_of(engine, "sql") == weights


def test_a_damaged_directory_is_given_its_content_back(start_runtime: Start, tmp_path: Path) -> None:
    """A file that was truncated on the volume comes again, in the same directory."""
    source = tmp_path / "volume" / "sql"
    call = {"lora_name": "sql", "source": f"pvc:/{source}"}
    fill(source, "one")
    with Engine() as engine:
        runtime = start_runtime(engine.url, "--lora-dir", str(tmp_path / "lora"), *FAST)
        path = Path(post(runtime, LOAD, **call)["path"])
        post(runtime, UNLOAD, lora_name="sql")
        (path / "adapter_model.safetensors").write_bytes(b"short")

        assert post(runtime, LOAD, **call)["path"] == str(path)
        assert weights_of(str(path)) == weights_of(str(source))
