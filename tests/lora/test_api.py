"""The LoRA routes as callers meet them: the real console script before an engine."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from simulators.adapters import make_adapter
from simulators.engine.__main__ import Engine
from simulators.waiting import wait_until
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import requests

Start: TypeAlias = "Callable[..., Runtime]"
Caller: TypeAlias = "Callable[..., tuple[int, dict[str, Any]]]"

LOAD = "/v1/load_lora_adapter"
UNLOAD = "/v1/unload_lora_adapter"
ADAPTERS = "/v1/lora_adapters"


def post(runtime: Runtime, path: str, body: object, **headers: str) -> requests.Response:
    data = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return runtime.session.post(runtime.url + path, data=data, headers=headers, timeout=60)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as running:
        yield running


@pytest.fixture(scope="module")
def runtime(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    folder = tmp_path_factory.mktemp("runtime")
    arguments = (
        "--lora-dir",
        str(folder / "lora"),
        "--state-dir",
        str(folder / "state"),
        "--reconcile-interval",
        "0.2",
    )
    with Runtime(engine.url, *arguments) as running:
        yield running


def test_a_source_is_fetched_loaded_listed_and_unloaded(runtime: Runtime, engine: Engine, tmp_path: Path) -> None:
    """The whole life of an adapter, over HTTP."""
    make_adapter(tmp_path / "sql", rank=4)
    source = f"pvc://{tmp_path}/sql"

    loaded = post(runtime, LOAD, {"lora_name": "org/sql", "source": source, "async_download": False})

    assert (loaded.status_code, loaded.json()["status"]) == (200, "success")
    one = runtime.get(f"{ADAPTERS}/org/sql").json()
    assert (one["state"], one["managed"], one["source"], one["rank"]) == ("loaded", True, source, 4)
    assert engine.adapters.loaded == {"org/sql": one["path"]}
    assert [each["name"] for each in runtime.get(ADAPTERS).json()["adapters"]] == ["org/sql"]
    unloaded = post(runtime, UNLOAD, {"lora_name": "org/sql"})
    assert (unloaded.status_code, unloaded.json()["state"]) == (200, "unloaded")
    assert runtime.get(f"{ADAPTERS}/org/sql").status_code == 404
    assert engine.adapters.loaded == {}


def test_a_load_in_the_background_says_where_to_look(runtime: Runtime, tmp_path: Path) -> None:
    """202 with a Location that shows it until it is loaded."""
    make_adapter(tmp_path / "bg")

    accepted = post(runtime, LOAD, {"lora_name": "a/bg", "source": f"pvc://{tmp_path}/bg", "async_download": True})

    assert accepted.status_code == 202
    location = accepted.headers["Location"]
    assert location == "/v1/lora_adapters/a%2Fbg"
    wait_until(lambda: runtime.get(location).json()["state"] == "loaded", "it is loaded")
    assert post(runtime, UNLOAD, {"lora_name": "a/bg"}).status_code == 200


def test_vllms_own_words_are_understood(runtime: Runtime, engine: Engine, tmp_path: Path) -> None:
    """lora_path is a directory that is there; load_inplace is a replacement, never passed on."""
    old, new = make_adapter(tmp_path / "old"), make_adapter(tmp_path / "new")

    first = post(runtime, LOAD, {"lora_name": "v", "lora_path": str(old)})
    second = post(runtime, LOAD, {"lora_name": "v", "lora_path": str(new), "load_inplace": True})

    assert (first.status_code, second.status_code) == (200, 200)
    assert engine.adapters.loaded == {"v": str(new)}
    assert not [call for call in engine.calls if b"load_inplace" in call.body]
    assert post(runtime, UNLOAD, {"lora_name": "v", "lora_int_id": None}).status_code == 200


@pytest.mark.parametrize("config", [{}, {"access_key": "a", "secret_key": "b"}, '{"hf_token": "t"}'], ids=repr)
def test_a_config_comes_as_an_object_or_as_a_text(runtime: Runtime, tmp_path: Path, config: object) -> None:
    """Both exist in the wild."""
    make_adapter(tmp_path / "c")

    answer = post(runtime, LOAD, {"lora_name": "c", "source": f"pvc://{tmp_path}/c", "config": config})

    assert answer.status_code == 200, answer.text
    assert post(runtime, UNLOAD, {"lora_name": "c"}).status_code == 200


BAD = {
    "no JSON": (b"{", 400, "bad_request"),
    "no UTF-8": (b"\xff", 400, "bad_request"),
    "no object": ([], 400, "bad_request"),
    "no name": ({"source": "org/x"}, 400, "bad_request"),
    "a name of another type": ({"lora_name": 7}, 400, "bad_request"),
    "an unknown field": ({"lora_name": "a", "sorce": "org/x"}, 400, "bad_request"),
    "a word for a switch": ({"lora_name": "a", "source": "org/x", "async_download": "no"}, 400, "bad_request"),
    "no worker": ({"lora_name": "a", "source": "org/x", "max_workers": 0}, 400, "bad_request"),
    "a name that climbs": ({"lora_name": "../a", "source": "org/x"}, 400, "invalid_name"),
    "a base model's name": ({"lora_name": "demo", "lora_path": "{adapter}"}, 409, "name_taken"),
    "a relative directory": ({"lora_name": "a", "output_dir": "lora/a"}, 400, "invalid_path"),
    "two directories": ({"lora_name": "a", "lora_path": "/a", "output_dir": "/b"}, 400, "invalid_path"),
    "nothing to load": ({"lora_name": "a"}, 400, "invalid_source"),
    "a scheme that nobody has": ({"lora_name": "a", "source": "file:///etc/passwd"}, 400, "invalid_source"),
    "a system directory": ({"lora_name": "a", "source": "org/x", "output_dir": "/etc/lora"}, 400, "forbidden_target"),
    "a key that nobody knows": ({"lora_name": "a", "source": "org/x", "config": {"token": "x"}}, 400, "invalid_config"),
    "a volume that is not there": ({"lora_name": "a", "source": "pvc://nowhere/x"}, 404, "not_found"),
    "no adapter there": ({"lora_name": "a", "lora_path": "{empty}"}, 400, "invalid_adapter"),
    "pickled weights": ({"lora_name": "a", "lora_path": "{pickled}"}, 400, "pickled_adapter"),
    "too large a rank": ({"lora_name": "a", "lora_path": "{big}"}, 400, "rank_too_large"),
}


@pytest.mark.parametrize(("body", "status", "code"), BAD.values(), ids=BAD)
def test_each_mistake_has_its_own_answer(
    runtime: Runtime, engine: Engine, tmp_path: Path, body: object, status: int, code: str
) -> None:
    """A problem document with a stable code; nothing half-done stays."""
    places = {
        "adapter": make_adapter(tmp_path / "adapter"),
        "pickled": make_adapter(tmp_path / "pickled", weights="adapter_model.bin"),
        "big": make_adapter(tmp_path / "big", rank=64),
        "empty": tmp_path,
    }
    if isinstance(body, dict):
        body = {
            key: value.format(**places) if isinstance(value, str) and value.startswith("{") else value
            for key, value in body.items()
        }

    answer = post(runtime, LOAD, body)

    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert runtime.get(ADAPTERS).json() == {"adapters": []}
    assert engine.adapters.loaded == {}


def test_unloading_what_nobody_knows_is_404(runtime: Runtime) -> None:
    """As the reference's callers expect."""
    answer = post(runtime, UNLOAD, {"lora_name": "nobody"})

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_adapter")


def test_an_engine_that_is_away(start_runtime: Start, tmp_path: Path) -> None:
    """A load fails with 503; an unload is taken on, and carried out when the engine is back."""
    folder = make_adapter(tmp_path / "sql")
    with Engine() as engine:
        port = int(engine.url.rpartition(":")[2])
        runtime = start_runtime(engine.url, "--reconcile-interval", "0.2")
        assert post(runtime, LOAD, {"lora_name": "sql", "lora_path": str(folder)}).status_code == 200
    refused = post(runtime, LOAD, {"lora_name": "other", "lora_path": str(folder)})
    taken = post(runtime, UNLOAD, {"lora_name": "sql"})

    assert (refused.status_code, refused.json()["code"]) == (503, "engine_unavailable")
    assert refused.headers["Retry-After"] == "5"
    assert (taken.status_code, taken.json()["state"]) == (200, "unloading")
    back = Engine(port=port)
    back.adapters.load("sql", str(folder))  # before it can be asked: what is not there counts as unloaded
    with back:
        wait_until(lambda: back.adapters.loaded == {}, "it is unloaded")


def test_loads_that_wait_do_not_hold_up_scrapes(start_runtime: Start, tmp_path: Path) -> None:
    """A bounded number waits; one more is told to ask for the background, and the page still comes."""
    folders = [make_adapter(tmp_path / f"a{number}") for number in range(20)]
    with Engine() as engine:
        engine.lora_gate.clear()
        runtime = start_runtime(engine.url)
        with ThreadPoolExecutor(20) as callers:
            answers = [
                callers.submit(post, runtime, LOAD, {"lora_name": folder.name, "lora_path": str(folder)})
                for folder in folders
            ]
            wait_until(lambda: sum(answer.done() for answer in answers) == 12, "all but eight are sent away")
            assert "kthena_runtime_engine_up 1.0" in runtime.page()
            assert runtime.get("/health").status_code == 200
            engine.lora_gate.set()
        statuses = sorted(answer.result().status_code for answer in answers)

    assert statuses == [200] * 8 + [503] * 12


def test_the_routes_want_the_token_where_there_is_one(start_runtime: Start, tmp_path: Path) -> None:
    """Everything under /v1, nothing else; a new token in the file counts at once."""
    token = tmp_path / "token"
    token.write_text("first\n")
    with Engine() as engine:
        runtime = start_runtime(engine.url, "--api-token-file", str(token))

        def status(path: str, given: str | None = None) -> int:
            return runtime.get(path, headers={"Authorization": given} if given else {}).status_code

        assert [status(ADAPTERS), status(ADAPTERS, "Bearer wrong"), status(ADAPTERS, "Basic first")] == [401] * 3
        assert status(ADAPTERS, "Bearer first") == 200
        assert [status("/metrics"), status("/health"), status("/ready")] == [200] * 3
        token.write_text("second\n")
        assert [status(ADAPTERS, "Bearer first"), status(ADAPTERS, "Bearer second")] == [401, 200]
        assert "first" not in runtime.log


def test_an_engine_with_a_key_gets_it(start_runtime: Start, tmp_path: Path) -> None:
    """From the file; without it the answer says what to do."""
    key, folder = tmp_path / "key", make_adapter(tmp_path / "sql")
    key.write_text("engine-secret\n")
    with Engine(api_key="engine-secret") as engine:
        with_key = start_runtime(engine.url, "--engine-api-key-file", str(key))
        without = start_runtime(engine.url)

        assert post(with_key, LOAD, {"lora_name": "sql", "lora_path": str(folder)}).status_code == 200
        refused = post(without, LOAD, {"lora_name": "two", "lora_path": str(folder)})
        assert (refused.status_code, refused.json()["code"]) == (502, "engine_unauthorized")
        assert "engine-secret" not in with_key.log


def test_another_engine_has_no_adapters(start_runtime: Start) -> None:
    """It says so on every route."""
    runtime = start_runtime("http://127.0.0.1:9", engine="tgi")

    answer = post(runtime, LOAD, {"lora_name": "a", "lora_path": "/a"})

    assert answer.json()["code"] == "unsupported_engine"
    assert runtime.get(ADAPTERS).json()["code"] == "unsupported_engine"
    assert runtime.get("/ready").json()["checks"]["lora"]["status"] == "off"


def test_a_runtime_that_is_killed_takes_up_what_was_wanted(start_runtime: Start, tmp_path: Path) -> None:
    """SIGKILL, then a new one with the same state directory."""
    folder = make_adapter(tmp_path / "sql")
    arguments = ("--state-dir", str(tmp_path / "state"), "--reconcile-interval", "0.2")
    with Engine() as engine:
        with Runtime(engine.url, *arguments) as first:
            assert post(first, LOAD, {"lora_name": "sql", "lora_path": str(folder)}).status_code == 200
            first.process.kill()
            first.process.wait(timeout=10)
        engine.restart()

        second = start_runtime(engine.url, *arguments)

        wait_until(lambda: engine.adapters.loaded == {"sql": str(folder)}, "it is loaded again")
        assert second.get(ADAPTERS).json()["adapters"][0]["managed"] is True


def test_what_a_caller_writes_gives_the_terminal_no_orders(runtime: Runtime) -> None:
    """The log shows control characters as in Python."""
    post(runtime, LOAD, {"lora_name": "red", "lora_path": "/nowhere/\x1b[31m\nred"})

    wait_until(lambda: r"/nowhere/\x1b[31m\nred" in runtime.log, "it is logged")
    assert "\x1b" not in runtime.log
