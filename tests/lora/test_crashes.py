"""The console script killed at any moment, engines that crash or dawdle, a Model file that changes: it ends well."""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Final

import pytest

from simulators.adapters import make_adapter
from simulators.engine.__main__ import Engine
from tests.harness.runtime import Runtime
from tests.lora.running import wait_for_rest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

STEPS: Final = 40
FOLDERS: Final = ("one", "two", "three")
CALLED: Final = ("a", "b", "org/c")
MODELLED: Final = ("m1", "m2")


class Story:
    """A runtime before an engine, and what should be loaded at the end."""

    def __init__(self, folder: Path, engine: Engine, random: Random) -> None:
        self.folder, self.engine, self.random = folder, engine, random
        for name in FOLDERS:
            make_adapter(folder / name)
        self.expected: dict[str, str] = {}
        self.edit()
        self.start()

    def start(self) -> None:
        arguments = (
            "--state-dir", str(self.folder / "state"), "--model-config", str(self.folder / "model.yaml"),
            "--lora-dir", str(self.folder / "lora"), "--reconcile-interval", "0.1",
        )  # fmt: skip
        self.runtime = Runtime(self.engine.url, *arguments)
        self.runtime.__enter__()

    def post(self, path: str, body: dict[str, object]) -> int:
        answer = self.runtime.session.post(f"{self.runtime.url}/v1/{path}", data=json.dumps(body), timeout=60)
        return answer.status_code

    def load(self) -> None:
        name, folder = self.random.choice(CALLED), self.folder / self.random.choice(FOLDERS)
        body = {"lora_name": name, "output_dir": str(folder), "async_download": True}
        assert self.post("load_lora_adapter", body) == 202
        self.expected[name] = str(folder)

    def load_and_wait(self) -> None:
        name, folder = self.random.choice(CALLED), self.folder / self.random.choice(FOLDERS)
        assert self.post("load_lora_adapter", {"lora_name": name, "output_dir": str(folder)}) == 200
        self.expected[name] = str(folder)

    def unload(self) -> None:
        name = self.random.choice(CALLED)
        known = name in self.expected or name in self.engine.adapters.loaded
        status = self.post("unload_lora_adapter", {"lora_name": name})
        assert status == 200 or not known
        self.expected.pop(name, None)

    def edit(self) -> None:
        """Swap the Model file for one with other adapters."""
        wanted = {name: self.folder / self.random.choice(FOLDERS) for name in MODELLED if self.random.random() < 0.7}
        adapters = [{"name": name, "artifactURL": f"pvc:/{folder}"} for name, folder in wanted.items()]
        model = {"kind": "Model", "spec": {"backends": [{"name": "x", "loraAdapters": adapters}]}}
        (self.folder / "model.new").write_text(json.dumps(model))
        (self.folder / "model.new").rename(self.folder / "model.yaml")
        self.modelled = set(wanted)

    def crash_engine(self) -> None:
        self.engine.restart()

    def dawdle(self) -> None:
        """Let the engine answer no load for the next steps."""
        self.engine.lora_gate.clear()
        self.load()
        self.kill()
        self.engine.lora_gate.set()

    def kill(self) -> None:
        self.runtime.process.kill()
        self.runtime.process.wait(timeout=30)
        self.runtime.__exit__()
        self.start()

    def rest(self) -> None:
        wait_for_rest(_Called(self.engine), self.expected)  # type: ignore[arg-type]
        wait_for_rest(_Modelled(self.engine), dict.fromkeys(self.modelled, "loaded"))  # type: ignore[arg-type]


class _Called:
    """The engine's adapters that calls asked for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def adapters(self) -> _Called:
        return self

    @property
    def loaded(self) -> dict[str, str]:
        return {name: path for name, path in dict(self._engine.adapters.loaded).items() if name in CALLED}


class _Modelled(_Called):
    """The engine's adapters that the Model asked for."""

    @property
    def loaded(self) -> dict[str, str]:
        return {name: "loaded" for name in dict(self._engine.adapters.loaded) if name in MODELLED}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2])
def test_it_ends_with_what_is_wanted(tmp_path: Path, seed: int) -> None:
    """After forty steps, at rest, the engine has what the last calls and the last Model file ask for."""
    random = Random(seed)
    with Engine() as engine:
        story = Story(tmp_path, engine, random)
        moves = (
            story.load,
            story.load_and_wait,
            story.unload,
            story.edit,
            story.crash_engine,
            story.dawdle,
            story.kill,
        )
        try:
            for _ in range(STEPS):
                random.choice(moves)()
            story.rest()
        finally:
            story.runtime.__exit__()
