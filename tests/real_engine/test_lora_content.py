"""New content under an old name in a real vLLM: answers come from the new weights, shown by log-probabilities.

Each test compares a name that had other weights before with the same content under a fresh name.
The prompt is longer than a block, and is asked before, so that the engine has blocks of the old weights.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import requests

from simulators.waiting import wait_until
from tests.harness.runtime import Runtime
from tests.real_engine.server import HOME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.real_engine.conftest import EventfulEngine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

WORDS = "the word of and to in is it that for you was on with as are this have from one had by but not what all were"
PROMPT = " ".join((WORDS.split() * 5)[:120])
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


@pytest.fixture
def runtime(vllm: EventfulEngine, tmp_path: Path) -> Iterator[Runtime]:
    with Runtime(vllm.url, "--lora-dir", str(tmp_path / "lora"), "--reconcile-interval", "0.5") as running:
        yield running
        for name in [one["name"] for one in running.get("/v1/lora_adapters").json()["adapters"]]:
            assert post(running, UNLOAD, lora_name=name)["state"] == "unloaded"


def post(runtime: Runtime, path: str, **body: object) -> dict[str, Any]:
    answer = requests.post(runtime.url + path, data=json.dumps(body), timeout=300)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ask(vllm: EventfulEngine, name: str) -> list[float]:
    """Return the log-probabilities of a completion, asked twice so that it comes from the cache."""
    _, answer = (vllm.complete(PROMPT, model=name, max_tokens=12, temperature=0, logprobs=1).json() for _ in range(2))
    return [round(value, 3) for value in answer["choices"][0]["logprobs"]["token_logprobs"]]


def compared(vllm: EventfulEngine, name: str, former: list[float]) -> list[float]:
    """Return what a name answers now; show it next to what it answered with its old weights."""
    found = ask(vllm, name)
    print(f"{name}: old weights {former[:3]}, now {found[:3]}")
    return found


def fill(folder: Path, adapter: str) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HOME / adapter, folder)
    return folder


def fresh_answer(vllm: EventfulEngine, runtime: Runtime, adapter: str) -> list[float]:
    """Return the answer of an adapter under a name that no other ever had."""
    name = f"fresh-{uuid4().hex[:8]}"
    post(runtime, LOAD, lora_name=name, lora_path=str(HOME / adapter))
    found = ask(vllm, name)
    post(runtime, UNLOAD, lora_name=name)
    return found


def test_a_source_that_is_refreshed(vllm: EventfulEngine, runtime: Runtime, tmp_path: Path) -> None:
    """A new directory: no reset, and the new weights answer."""
    source = {"lora_name": "refreshed", "source": f"pvc:/{fill(tmp_path / 'source', 'lora-a')}"}
    post(runtime, LOAD, **source)
    former = ask(vllm, "refreshed")
    fill(tmp_path / "source", "lora-b")

    post(runtime, LOAD, refresh=True, **source)

    expected = fresh_answer(vllm, runtime, "lora-b")
    assert compared(vllm, "refreshed", former) == expected != former


def test_a_source_that_is_unloaded_and_loaded_again(vllm: EventfulEngine, runtime: Runtime, tmp_path: Path) -> None:
    """With other content in between."""
    source = {"lora_name": "reloaded", "source": f"pvc:/{fill(tmp_path / 'source', 'lora-a')}"}
    post(runtime, LOAD, **source)
    former = ask(vllm, "reloaded")
    fill(tmp_path / "source", "lora-b")
    post(runtime, UNLOAD, lora_name="reloaded")

    post(runtime, LOAD, **source)

    expected = fresh_answer(vllm, runtime, "lora-b")
    assert compared(vllm, "reloaded", former) == expected != former


def test_new_content_in_the_same_directory(vllm: EventfulEngine, runtime: Runtime, tmp_path: Path) -> None:
    """The engine cannot tell: its cache is reset between unload and load."""
    folder = fill(tmp_path / "adapter", "lora-a")
    post(runtime, LOAD, lora_name="same-path", lora_path=str(folder))
    former = ask(vllm, "same-path")
    fill(folder, "lora-b")

    answer = post(runtime, LOAD, lora_name="same-path", lora_path=str(folder))

    expected = fresh_answer(vllm, runtime, "lora-b")
    assert compared(vllm, "same-path", former) == expected != former
    assert answer["possibly_stale"] is False


def test_a_request_that_runs_during_the_reset(vllm: EventfulEngine, runtime: Runtime, tmp_path: Path) -> None:
    """The engine refuses resets while it runs; when it has ended, one succeeds, and the new weights answer."""
    folder = fill(tmp_path / "adapter", "lora-a")
    post(runtime, LOAD, lora_name="busy", lora_path=str(folder))
    former = ask(vllm, "busy")
    fill(folder, "lora-b")
    with ThreadPoolExecutor(1) as callers:
        running = callers.submit(vllm.complete, WORDS, max_tokens=380, temperature=0)
        wait_until(lambda: "vllm:num_requests_running" in running_gauge(vllm), "the request runs", seconds=60)

        post(runtime, LOAD, lora_name="busy", lora_path=str(folder))

        assert running.result().status_code == 200
    # On a slow machine the request outlasts the time that a load waits.
    wait_until(lambda: not shown(runtime, "busy")["possibly_stale"], "the cache is reset", seconds=60)
    expected = fresh_answer(vllm, runtime, "lora-b")
    assert refused_resets(runtime) > 0
    assert compared(vllm, "busy", former) == expected != former


def shown(runtime: Runtime, name: str) -> dict[str, Any]:
    found: dict[str, Any] = runtime.get(f"/v1/lora_adapters/{name}").json()
    return found


def running_gauge(vllm: EventfulEngine) -> str:
    """Return the sample of running requests if there are any."""
    lines = vllm.get("/metrics").text.splitlines()
    return next(
        (line for line in lines if line.startswith("vllm:num_requests_running{") and not line.endswith(" 0.0")), ""
    )


def refused_resets(runtime: Runtime) -> float:
    name = 'kthena_runtime_lora_cache_resets_total{outcome="refused"} '
    return next(float(line.removeprefix(name)) for line in runtime.page().splitlines() if line.startswith(name))
