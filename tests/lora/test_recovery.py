"""Adapters after a restart, a withdrawal or damage on the volume: what was asked for is carried out, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from simulators.adapters import make_adapter
from simulators.engine.__main__ import Engine
from simulators.engine.lora import weights_of
from simulators.hub.server import Hub
from simulators.waiting import PATIENCE, wait_until
from tests.harness.runtime import Runtime
from tests.lora.test_content import FAST, LOAD, UNLOAD, answer_of, fill, loads_of, one, post, resets_tried

if TYPE_CHECKING:
    from tests.lora.test_content import Start

pytestmark = pytest.mark.slow


def ask(runtime: Runtime, **body: object) -> tuple[int, dict[str, Any]]:
    """Send a load that may fail."""
    answer = requests.post(runtime.url + LOAD, data=json.dumps(body), timeout=PATIENCE)
    return answer.status_code, answer.json()


def fail_to_refresh(runtime: Runtime, folder: Path, /, **call: object) -> None:
    """Ask for a refresh in the background while the source is away."""
    folder.rename(folder.with_name("away"))
    assert ask(runtime, refresh=True, async_download=True, **call)[0] == 202
    wait_until(lambda: one(runtime, "sql")["last_error"], "the source is missed")


def test_a_refresh_that_failed_is_tried_again_after_a_restart(tmp_path: Path) -> None:
    """The adapter is loaded in its old content, and still wanted in the new one."""
    source = tmp_path / "volume" / "sql"
    arguments = ("--lora-dir", str(tmp_path / "lora"), "--state-dir", str(tmp_path / "state"), *FAST)
    call = {"lora_name": "sql", "source": f"pvc:/{source}"}
    fill(source, "old")
    with Engine() as engine:
        with Runtime(engine.url, *arguments) as first:
            old = post(first, LOAD, **call)["path"]
            fail_to_refresh(first, source, **call)
        new = fill(source, "new")
        with Runtime(engine.url, *arguments) as second:
            wait_until(lambda: engine.adapters.loaded.get("sql") not in (None, old), "the new content is loaded")

            assert answer_of(engine, "sql") == new
            wait_until(lambda: is_refresh_written(tmp_path) is False, "it is wanted no more")
            assert one(second, "sql")["last_error"] is None


def test_a_refresh_that_fails_keeps_no_adapter_from_its_engine(tmp_path: Path) -> None:
    """Both have restarted, and the source is still away: the old content is on disk."""
    source = tmp_path / "volume" / "sql"
    arguments = ("--lora-dir", str(tmp_path / "lora"), "--state-dir", str(tmp_path / "state"), *FAST)
    call = {"lora_name": "sql", "source": f"pvc:/{source}"}
    fill(source, "old")
    with Engine() as engine:
        with Runtime(engine.url, *arguments) as first:
            old = post(first, LOAD, **call)["path"]
            fail_to_refresh(first, source, **call)
        engine.restart()
        with Runtime(engine.url, *arguments) as second:
            wait_until(lambda: one(second, "sql").get("last_error"), "the refresh fails")

            assert (one(second, "sql")["state"], engine.adapters.loaded) == ("loaded", {"sql": old})
            assert is_refresh_written(tmp_path)


def is_refresh_written(tmp_path: Path) -> bool:
    (row,) = json.loads((tmp_path / "state" / "lora-adapters.json").read_text())["adapters"]
    return bool(row["refresh"])


def wait_for_a_reset(runtime: Runtime, engine: Engine, folder: Path) -> None:
    """Load new content under an old path while requests run, so that the load waits for a reset."""
    fill(folder, "old")
    post(runtime, LOAD, lora_name="sql", lora_path=str(folder))
    fill(folder, "new")
    engine.prefix_cache.busy = True
    assert ask(runtime, lora_name="sql", lora_path=str(folder), async_download=True)[0] == 202
    wait_until(lambda: resets_tried(engine), "a reset is tried")


def test_an_unload_ends_the_wait_for_a_reset(start_runtime: Start, tmp_path: Path) -> None:
    """The new content is not loaded first."""
    with Engine() as engine:
        runtime = start_runtime(engine.url, *FAST)
        wait_for_a_reset(runtime, engine, tmp_path / "sql")

        assert post(runtime, UNLOAD, lora_name="sql")["state"] == "unloaded"

        assert (engine.adapters.loaded, loads_of(engine)) == ({}, 1)


def test_the_end_of_the_runtime_ends_the_wait_for_a_reset(tmp_path: Path) -> None:
    """Nothing is loaded that may answer from old weights; the next runtime goes on with the reset."""
    arguments = ("--state-dir", str(tmp_path / "state"), *FAST)
    with Engine() as engine:
        with Runtime(engine.url, *arguments) as first:
            wait_for_a_reset(first, engine, tmp_path / "sql")
        assert (engine.adapters.loaded, loads_of(engine)) == ({}, 1)

        engine.prefix_cache.busy = False
        with Runtime(engine.url, *arguments) as second:
            wait_until(lambda: one(second, "sql").get("state") == "loaded", "it is loaded")
            assert (engine.prefix_cache.resets, one(second, "sql")["possibly_stale"]) == (1, False)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_loaded_adapter_whose_copy_is_damaged_is_fetched_again(
    start_runtime: Start, tmp_path: Path, name: str
) -> None:
    """Into the same directory; the engine has what it read before, and is left alone."""
    source = tmp_path / "volume" / "sql"
    call = {"lora_name": "sql", "source": f"pvc:/{source}"}
    fill(source, "one")
    with Engine() as engine:
        runtime = start_runtime(engine.url, "--lora-dir", str(tmp_path / "lora"), *FAST)
        path = Path(post(runtime, LOAD, **call)["path"])
        (path / name).write_bytes(b"{")

        assert post(runtime, LOAD, **call)["path"] == str(path)

        assert weights_of(str(path)) == weights_of(str(source))
        assert loads_of(engine) == 1


def test_a_damaged_copy_that_cannot_be_fetched_again(start_runtime: Start, tmp_path: Path) -> None:
    """The error has both: what is damaged, and why it stays so."""
    source = tmp_path / "volume" / "sql"
    call = {"lora_name": "sql", "source": f"pvc:/{source}"}
    fill(source, "one")
    with Engine() as engine:
        runtime = start_runtime(engine.url, "--lora-dir", str(tmp_path / "lora"), *FAST)
        path = Path(post(runtime, LOAD, **call)["path"])
        (path / "adapter_config.json").write_bytes(b"{")
        source.rename(tmp_path / "away")

        status, problem = ask(runtime, **call)

        assert (status, problem["code"]) == (404, "not_found")
        assert f"{path}/adapter_config.json is not JSON; it cannot be fetched again: " in problem["detail"]
        assert engine.adapters.loaded == {"sql": str(path)}


def test_a_loaded_directory_that_is_damaged_says_what_to_do(start_runtime: Start, tmp_path: Path) -> None:
    """There is no source to fetch it from."""
    folder = make_adapter(tmp_path / "sql")
    with Engine() as engine:
        runtime = start_runtime(engine.url, *FAST)
        post(runtime, LOAD, lora_name="sql", lora_path=str(folder))
        (folder / "adapter_config.json").write_bytes(b"{")

        status, problem = ask(runtime, lora_name="sql", lora_path=str(folder))

        assert (status, problem["code"]) == (400, "invalid_adapter")
        assert "the engine still has what it read before: restore the directory" in problem["detail"]
        assert engine.adapters.loaded == {"sql": str(folder)}


def test_a_damaged_record_costs_no_directory(start_runtime: Start, tmp_path: Path) -> None:
    """It is kept aside with a line in the log, and the contents that it listed stay."""
    source = tmp_path / "volume" / "sql"
    call = {"lora_name": "sql", "source": f"pvc:/{source}"}
    fill(source, "0")
    with Engine() as engine:
        runtime = start_runtime(engine.url, "--lora-dir", str(tmp_path / "lora"), *FAST)
        paths = [Path(post(runtime, LOAD, **call)["path"])]
        record = paths[0].parent / ".kthena" / "generations.json"
        record.write_bytes(b'{"version": 1, "sour')
        for mark in "1234":
            fill(source, mark)
            paths.append(Path(post(runtime, LOAD, refresh=True, **call)["path"]))

        wait_until(lambda: not (paths[1].exists() or paths[2].exists()), "later contents are removed as ever")

        assert [path.is_dir() for path in paths] == [True, False, False, True, True]
        assert record.with_suffix(".damaged").read_bytes() == b'{"version": 1, "sour'
        wait_until(lambda: f"{record} is damaged, and is kept as generations.damaged" in runtime.log, "it is logged")


def test_another_revision_is_another_source(start_runtime: Start, tmp_path: Path) -> None:
    """Named in the call's configuration; equal content is not loaded again."""
    folder = tmp_path / "adapter"
    with Engine() as engine, Hub() as hub:
        repository = hub.create("org/sql")
        commits = []
        for mark in ("one", "two"):
            fill(folder, mark)
            commits.append(repository.commit({path.name: path.read_bytes() for path in folder.iterdir()}))
        variables = {"HF_ENDPOINT": hub.public_url}
        runtime = start_runtime(engine.url, "--lora-dir", str(tmp_path / "lora"), *FAST, variables=variables)
        newest = post(runtime, LOAD, lora_name="sql", source="org/sql")["path"]

        pinned = [
            post(runtime, LOAD, lora_name="sql", source="org/sql", config={"hf_revision": commit})["path"]
            for commit in commits
        ]

        assert [pinned[0] == newest, pinned[1] == newest] == [False, True]
        assert one(runtime, "sql")["source"] == f"hf://org/sql@{commits[1]}"
        loads = loads_of(engine)
        assert post(runtime, LOAD, lora_name="sql", source="org/sql")["path"] == newest
        assert loads_of(engine) == loads
        assert answer_of(engine, "sql") == weights_of(newest)
