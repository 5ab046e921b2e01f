"""What callers were promised, where it is hard to keep: askers that meet, files that are no files, disks that are full."""

from __future__ import annotations

import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import requests

from simulators.adapters import make_adapter
from simulators.engine.__main__ import Engine
from simulators.hub.server import Hub
from simulators.misbehaving.engine import BadEngine
from simulators.misbehaving.proxy import BadProxy
from simulators.misbehaving.proxy_faults import holds
from simulators.waiting import PATIENCE, wait_until
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

Start: TypeAlias = "Callable[..., Runtime]"

LOAD = "/v1/load_lora_adapter"
UNLOAD = "/v1/unload_lora_adapter"
ADAPTERS = "/v1/lora_adapters"
NOWHERE = "http://127.0.0.1:9"
FAST = ("--reconcile-interval", "0.2")


def post(runtime: Runtime, path: str, **body: object) -> tuple[int, dict[str, Any]]:
    answer = requests.post(runtime.url + path, data=json.dumps(body), timeout=PATIENCE)
    return answer.status_code, answer.json()


def one(runtime: Runtime, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = runtime.get(f"{ADAPTERS}/{name}").json()
    return shown


def loads_of(engine: Engine) -> int:
    return sum("/load_lora" in call.path for call in engine.calls)


def write_model(path: Path, *sources: str) -> None:
    adapters = [{"name": "sql", "artifactURL": source} for source in sources]
    path.write_text(json.dumps({"kind": "Model", "spec": {"backends": [{"name": "b", "loraAdapters": adapters}]}}))


def test_who_waits_for_what_the_background_wants_is_told_of_the_next_failure(
    start_runtime: Start, tmp_path: Path
) -> None:
    """Not kept waiting until the engine comes; and what is loaded at last is no error any more."""
    folder = str(make_adapter(tmp_path / "sql"))
    with Engine() as engine:
        port = int(engine.url.rpartition(":")[2])
        url = engine.url
    runtime = start_runtime(url, *FAST)
    assert post(runtime, LOAD, lora_name="sql", lora_path=folder, async_download=True)[0] == 202
    wait_until(lambda: one(runtime, "sql")["last_error"], "the engine is missed")

    status, problem = post(runtime, LOAD, lora_name="sql", lora_path=folder)

    assert (status, problem["code"]) == (503, "engine_unavailable")
    with Engine(port=port) as back:
        wait_until(lambda: one(runtime, "sql")["state"] == "loaded", "it is still wanted")
        assert back.adapters.loaded == {"sql": folder}
        assert post(runtime, LOAD, lora_name="sql", lora_path=folder)[0] == 200


def test_a_wish_for_the_background_outlives_the_call_that_it_met(start_runtime: Start, tmp_path: Path) -> None:
    """The same adapter is being loaded for somebody who waits; that fails, and it is wanted all the same."""
    folder = make_adapter(tmp_path / "sql")
    with Engine() as engine, ThreadPoolExecutor(1) as callers:
        engine.lora_gate.clear()
        runtime = start_runtime(engine.url, "--state-dir", str(tmp_path / "state"))
        waiting = callers.submit(post, runtime, LOAD, lora_name="sql", lora_path=str(folder))
        wait_until(lambda: one(runtime, "sql").get("state") == "loading", "it is on its way")

        assert post(runtime, LOAD, lora_name="sql", lora_path=str(folder), async_download=True)[0] == 202

        assert '"sql"' in (tmp_path / "state" / "lora-adapters.json").read_text()
        (folder / "adapter_config.json").rename(folder / "away.json")
        engine.lora_gate.set()
        assert waiting.result()[1]["code"] == "adapter_not_found"
        assert one(runtime, "sql")["state"] == "failed"
        assert one(runtime, "sql")["next_retry"]


def test_an_unload_that_waits_for_the_engine_outlives_a_load_in_vain(start_runtime: Start, tmp_path: Path) -> None:
    """The load never was; the adapter still has to go."""
    folder = str(make_adapter(tmp_path / "sql"))
    with Engine() as engine:
        port = int(engine.url.rpartition(":")[2])
        runtime = start_runtime(engine.url, *FAST)
        assert post(runtime, LOAD, lora_name="sql", lora_path=folder)[0] == 200
    assert post(runtime, UNLOAD, lora_name="sql")[1]["state"] == "unloading"

    assert post(runtime, LOAD, lora_name="sql", lora_path=folder)[0] == 503

    back = Engine(port=port)
    back.adapters.load("sql", folder)  # before it can be asked: what is not there counts as unloaded
    with back:
        wait_until(lambda: back.adapters.loaded == {}, "it is unloaded")


def test_unloads_of_one_adapter_do_not_take_each_others_place(start_runtime: Start, tmp_path: Path) -> None:
    """Who asks for the same is not superseded."""
    with Engine() as engine, ThreadPoolExecutor(4) as callers:
        runtime = start_runtime(engine.url)
        post(runtime, LOAD, lora_name="sql", lora_path=str(make_adapter(tmp_path / "sql")))
        engine.lora_gate.clear()
        answers: list[Future[tuple[int, dict[str, Any]]]] = []
        for _ in range(4):
            answers.append(callers.submit(post, runtime, UNLOAD, lora_name="sql"))
            wait_until(lambda: one(runtime, "sql")["state"] == "unloading", "it is on its way")
        engine.lora_gate.set()

        statuses = {answer.result()[0] for answer in answers}
        assert statuses - {404} == {200}, "who asks when it is gone already is told so, and nobody else is refused"


def test_a_load_of_what_the_engine_has_just_lost_loads_it(start_runtime: Start, tmp_path: Path) -> None:
    """200 means that the engine has it, even between two comparisons."""
    folder = str(make_adapter(tmp_path / "sql"))
    with Engine() as engine:
        runtime = start_runtime(engine.url, "--reconcile-interval", "60")
        post(runtime, LOAD, lora_name="sql", lora_path=folder)
        engine.restart()

        assert post(runtime, LOAD, lora_name="sql", lora_path=folder)[0] == 200
        assert engine.adapters.loaded == {"sql": folder}


def test_another_spelling_is_the_same_source(start_runtime: Start, tmp_path: Path) -> None:
    """No second copy, no replacement."""
    make_adapter(tmp_path / "sql")
    with Engine() as engine:
        runtime = start_runtime(engine.url, "--lora-dir", str(tmp_path / "lora"))
        for source in (f"pvc://{tmp_path}/sql", f"pvc://{tmp_path}/sql/"):
            assert post(runtime, LOAD, lora_name="sql", source=source)[0] == 200

        assert loads_of(engine) == 1


@pytest.mark.parametrize("volume", ["one", "two"])
def test_files_that_the_engine_has_from_before_are_not_touched(
    start_runtime: Start, tmp_path: Path, volume: str
) -> None:
    """Without a state file the adapter is nobody's; the engine dies of a change in its files all the same."""
    make_adapter(tmp_path / "one", rank=4)
    call = {"lora_name": "sql", "output_dir": str(tmp_path / "lora")}
    with Engine() as engine:
        with Runtime(engine.url) as first:
            status, answer = post(first, LOAD, source=f"pvc://{tmp_path}/one", **call)
            assert status == 200
        opened = Path(answer["path"], "adapter_config.json")
        before = opened.stat()
        make_adapter(tmp_path / volume, rank=16)

        status, answer = post(start_runtime(engine.url), LOAD, source=f"pvc://{tmp_path}/{volume}", **call)

        assert (status, opened.stat()) == (200, before)
        assert engine.adapters.loaded == {"sql": answer["path"]}
        assert Path(answer["path"]) != opened.parent


def test_the_same_call_again_loads_nothing(start_runtime: Start, tmp_path: Path) -> None:
    """The engine has the source's content already, in a directory below the one that was asked for."""
    with Engine() as engine:
        runtime = start_runtime(engine.url)
        for rank, name in enumerate(("one", "two", "two"), start=1):
            make_adapter(tmp_path / name, rank=rank)
            call = {"source": f"pvc://{tmp_path}/{name}", "output_dir": str(tmp_path / "lora")}
            assert post(runtime, LOAD, lora_name="sql", **call)[0] == 200

        assert loads_of(engine) == 2


def test_a_refused_replacement_is_tried_again_after_restarts_of_both(start_runtime: Start, tmp_path: Path) -> None:
    """First the runtime's, then the engine's with a larger --max-lora-rank."""
    old, big = str(make_adapter(tmp_path / "old")), str(make_adapter(tmp_path / "big", rank=64))
    arguments = ("--state-dir", str(tmp_path / "state"), *FAST)
    with Engine() as engine:
        with Runtime(engine.url, *arguments) as first:
            post(first, LOAD, lora_name="sql", lora_path=old)
            post(first, LOAD, lora_name="sql", lora_path=big, async_download=True)
            wait_until(lambda: one(first, "sql")["last_error"], "it is refused")
            assert (one(first, "sql")["state"], one(first, "sql")["path"]) == ("loaded", old)
        second = start_runtime(engine.url, *arguments)
        wait_until(lambda: one(second, "sql")["last_error"], "it is refused again")
        assert (one(second, "sql")["state"], one(second, "sql")["path"]) == ("loaded", old)

        engine.restart()
        engine.adapters.max_rank = 64

        wait_until(lambda: engine.adapters.loaded == {"sql": big}, "it is loaded")


def test_an_unload_does_not_take_away_the_download_of_another(start_runtime: Start, tmp_path: Path) -> None:
    """Two names, one source, one directory: one download."""
    call = {"source": "org/sql", "output_dir": str(tmp_path / "lora")}
    gate = Event()
    with Hub() as hub, BadProxy(hub.netloc) as proxy, Engine() as engine, ThreadPoolExecutor(2) as callers:
        hub.public_url = proxy.url
        hub.create("org/sql").commit(
            {path.name: path.read_bytes() for path in make_adapter(tmp_path / "sql").iterdir()}
        )
        proxy.misbehave(holds(gate), method="*")
        runtime = start_runtime(engine.url, variables={"HF_ENDPOINT": proxy.url})
        post(runtime, LOAD, lora_name="one", async_download=True, **call)
        waiting = callers.submit(post, runtime, LOAD, lora_name="two", **call)
        wait_until(lambda: one(runtime, "two").get("state") == "downloading", "both wait for it")

        unloading = callers.submit(post, runtime, UNLOAD, lora_name="one")
        wait_until(lambda: one(runtime, "one").get("state") == "unloading", "one of them is not wanted any more")
        gate.set()

        assert waiting.result()[0] == 200, waiting.result()
        assert unloading.result()[0] == 200
        assert list(engine.adapters.loaded) == ["two"]


def test_what_http_asks_for_stays_when_the_file_lets_it_go(start_runtime: Start, tmp_path: Path) -> None:
    """The same files under the same name as the Model's."""
    model, source = tmp_path / "model.yaml", f"pvc://{make_adapter(tmp_path / 'sql')}"
    write_model(model, source)
    with Engine() as engine:
        runtime = start_runtime(engine.url, "--model-config", str(model), "--lora-dir", str(tmp_path / "lora"), *FAST)
        wait_until(lambda: one(runtime, "sql").get("state") == "loaded", "the Model's is loaded")
        assert post(runtime, LOAD, lora_name="sql", source=source, output_dir=one(runtime, "sql")["path"])[0] == 200

        write_model(model)

        wait_until(lambda: "the Model asks for 0 adapters" in runtime.log, "the file is followed")
        assert one(runtime, "sql")["origin"] == "call"
        assert list(engine.adapters.loaded) == ["sql"]
        assert loads_of(engine) == 1


@pytest.mark.parametrize(
    "text",
    [
        "kind: Model\nspec: {backends: [{name: b}]}\nx: 2025-13-45\n",
        "kind: Model\nspec: {backends: [{name: b}]}\nx: !!float abc\n",
        "kind: Model\nspec: {backends: [{cacheURI: 'hostpath://[a', loraAdapters: [{name: a, artifactURL: a/b}]}]}\n",
        "#" * (4 << 20) + "\nkind: Model\nspec: {backends: [{name: b}]}\n",
        None,
    ],
    ids=["a date that is none", "a number that is none", "a URI that is none", "too large", "no file"],
)
def test_a_model_file_that_is_not_valid_is_told_and_got_over(
    start_runtime: Start, tmp_path: Path, text: str | None
) -> None:
    """It changes nothing; the file as it was before is followed again."""
    model, source = tmp_path / "model.yaml", f"pvc://{make_adapter(tmp_path / 'sql')}"
    write_model(model, source)
    good = model.read_text()
    with Engine() as engine:
        runtime = start_runtime(engine.url, "--model-config", str(model), "--lora-dir", str(tmp_path / "lora"), *FAST)

        def lora() -> str:
            status: str = runtime.get("/ready").json()["checks"]["lora"]["status"]
            return status

        wait_until(lambda: lora() == "ok", "it is loaded")
        model.write_text(text) if text else model.unlink()
        wait_until(lambda: lora() == "failing", "it is told")
        assert list(engine.adapters.loaded) == ["sql"]
        model.write_text(good)
        wait_until(lambda: lora() == "ok", "it is got over")


@pytest.mark.parametrize(
    "text", [b"null", b"7", b'"x"', b"[" * 100_000], ids=["null", "a number", "a text", "brackets"]
)
def test_a_state_file_of_any_damage_is_put_aside(start_runtime: Start, tmp_path: Path, text: bytes) -> None:
    """The runtime starts all the same."""
    (tmp_path / "lora-adapters.json").write_bytes(text)

    runtime = start_runtime(NOWHERE, "--state-dir", str(tmp_path))

    assert runtime.get(ADAPTERS).json() == {"adapters": []}
    assert (tmp_path / "lora-adapters.damaged").read_bytes() == text


def test_what_could_not_be_written_down_is_written_when_it_can_be(start_runtime: Start, tmp_path: Path) -> None:
    """A load for somebody who waits is loaded; what is to be kept first is refused."""
    folder, state = str(make_adapter(tmp_path / "sql")), tmp_path / "state" / "lora-adapters.json"
    with Engine() as engine:
        runtime = start_runtime(engine.url, "--state-dir", str(state.parent), *FAST)
        state.parent.rename(tmp_path / "away")
        assert post(runtime, LOAD, lora_name="sql", lora_path=folder)[0] == 200
        status, problem = post(runtime, LOAD, lora_name="two", lora_path=folder, async_download=True)
        assert (status, problem["code"]) == (507, "state_not_kept")

        (tmp_path / "away").rename(state.parent)

        wait_until(state.exists, "it is written down")
        assert '"sql"' in state.read_text()


def _pipe(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()
    os.mkfifo(folder / "adapter_config.json")


def _header(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        whole = len(text).to_bytes(8, "little") + text.encode()
        (folder / "adapter_model.safetensors").write_bytes(whole)

    return write


HOSTILE: dict[str, Callable[[Path], object]] = {
    "a pipe": _pipe,
    "a configuration that is all brackets": lambda folder: (folder / "adapter_config.json").write_text("[" * 100_000),
    "a header that is all brackets": _header("[" * 100_000),
    "offsets that are words": _header('{"a": {"data_offsets": ["a", "b"]}}'),
    "a tensor without offsets": _header('{"a": {}}'),
    "a header of 33 MB": _header(" " * (33 << 20)),
}


@pytest.mark.parametrize("spoil", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_no_adapter(start_runtime: Start, tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """An answer at once that says so; no defect, and no thread that waits for ever."""
    folder = make_adapter(tmp_path / "sql")
    spoil(folder)
    runtime = start_runtime(NOWHERE)

    status, problem = post(runtime, LOAD, lora_name="sql", lora_path=str(folder))

    assert (status, problem["code"]) == (400, "invalid_adapter")


@pytest.mark.parametrize("path", ["/tmp/" + "a" * 5000, "/tmp/x\nERROR injected"], ids=["too long", "two lines"])
def test_a_directory_that_cannot_be_is_the_callers_mistake(start_runtime: Start, path: str) -> None:
    """With a source or without; and the log keeps one line an event."""
    runtime = start_runtime(NOWHERE)

    assert post(runtime, LOAD, lora_name="a", lora_path=path)[0] == 400
    assert post(runtime, LOAD, lora_name="b", source="pvc://no/where", output_dir=path)[0] in (400, 404)
    assert not [line for line in runtime.log.splitlines() if line.startswith("ERROR")]


def test_an_engine_that_hangs_does_not_hold_up_others(start_runtime: Start) -> None:
    """Fifty ask for the list, which the engine does not give: few of them wait for it, and the runtime still answers."""
    with BadEngine("slow") as hung, ThreadPoolExecutor(50) as callers:
        runtime = start_runtime(hung.url)
        lists = [callers.submit(requests.get, runtime.url + ADAPTERS, timeout=PATIENCE) for _ in range(50)]

        assert hung.wait_for_requests(1)
        assert requests.get(runtime.url + "/health", timeout=PATIENCE).status_code == 200
        statuses = {answer.result().status_code for answer in lists}
        assert 200 in statuses
        assert statuses <= {200, 503}
        assert hung.requests < 20
