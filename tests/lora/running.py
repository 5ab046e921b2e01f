"""A manager at work: before an engine peer, with real downloads and a real state file."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from lora.engine.client import APIS, EngineClient
from lora.manager import Manager
from lora.state_file import StateFile
from simulators.waiting import PATIENCE, wait_until
from storage.request.config import Config
from storage.supervisor.limits import Limits
from storage.supervisor.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lora.errors import LoraError
    from lora.record import Goal
    from simulators.engine.__main__ import Engine

__all__ = ["Recorder", "error_of", "managed", "wait_for_rest"]

INTERVAL = 0.1


class Recorder:
    """Keeps what an observer is told."""

    def __init__(self) -> None:
        self.operations: list[tuple[str, str]] = []
        self.reconciles: list[str] = []
        self.resets: list[str] = []

    def cache_reset(self, *, outcome: str) -> None:
        self.resets.append(outcome)

    def operated(self, *, operation: str, outcome: str, seconds: float) -> None:
        assert seconds >= 0
        self.operations.append((operation, outcome))

    def reconciled(self, *, outcome: str) -> None:
        self.reconciles.append(outcome)


@contextmanager
def managed(
    engine: Engine,
    state: Path | StateFile,
    *,
    flavour: str = "vllm",
    observer: Recorder | None = None,
    pod: str = "pod-0.default",
    patience: float = 0.2,
) -> Iterator[Manager]:
    """Run a manager until the block ends; the engine keeps what it has."""
    supervisor = Supervisor(Limits(worker_nice=0))
    manager = Manager(
        EngineClient(engine.url, APIS[flavour]),
        supervisor,
        state if isinstance(state, StateFile) else StateFile(state),
        observer or Recorder(),
        config=Config(),
        pod=pod,
        interval=INTERVAL,
        reset_patience=patience,
    )
    manager.start()
    try:
        yield manager
    finally:
        manager.stop()
        supervisor.stop()
        manager.join(10)


def error_of(goal: Goal) -> LoraError | None:
    """Return a goal's error once it is done."""
    assert goal.done.wait(PATIENCE), "the goal is not done in time"
    return goal.error


def wait_for_rest(engine: Engine, expected: dict[str, str]) -> None:
    """Wait until the engine has exactly these adapters."""
    wait_until(lambda: engine.adapters.loaded == expected, f"the engine has {expected}")
