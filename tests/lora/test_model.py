"""Any sequence of calls, crashes and restarts: at rest the engine holds exactly the desired set."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lora.adapter import Wanted
from lora.errors import UnknownAdapterError
from simulators.adapters import make_adapter
from simulators.engine.__main__ import Engine
from tests.lora.running import error_of, managed, wait_for_rest

if TYPE_CHECKING:
    from simulators.engine.api import FlavourName

NAMES: Final = st.sampled_from(["a", "b", "org/c"])
GOOD: Final = st.sampled_from(["one", "two", "three"])


class Adapters(RuleBasedStateMachine):
    """A manager before an engine, and what a reader of the documents would expect of both."""

    @initialize(flavour=st.sampled_from(["vllm", "sglang"]))
    def begin(self, flavour: FlavourName) -> None:
        self.flavour = flavour
        self.folder = Path(tempfile.mkdtemp())
        for name in ("one", "two", "three"):
            make_adapter(self.folder / name)
        make_adapter(self.folder / "bad", rank=64)
        self.cleanup = ExitStack()
        self.engine = self.cleanup.enter_context(Engine(flavour=flavour))
        self.running = ExitStack()
        self.manager = self.running.enter_context(managed(self.engine, self.folder / "state", flavour=flavour))
        self.expected: dict[str, str] = {}

    def teardown(self) -> None:
        if hasattr(self, "cleanup"):
            self.running.close()
            self.cleanup.close()
            shutil.rmtree(self.folder)

    @rule(name=NAMES, folder=GOOD)
    def load_and_wait(self, name: str, folder: str) -> None:
        goal = self.manager.load(Wanted(name, self.folder / folder), kept=False)
        assert error_of(goal) is None
        self.expected[name] = str(self.folder / folder)

    @rule(name=NAMES, folder=GOOD)
    def load_in_the_background(self, name: str, folder: str) -> None:
        self.manager.load(Wanted(name, self.folder / folder), kept=True)
        self.expected[name] = str(self.folder / folder)

    @rule(name=NAMES, folder=st.sampled_from(["bad", "nowhere"]))
    def load_what_cannot_be(self, name: str, folder: str) -> None:
        wait_for_rest(self.engine, self.expected)
        assert error_of(self.manager.load(Wanted(name, self.folder / folder), kept=False)) is not None

    @rule(name=NAMES)
    def unload(self, name: str) -> None:
        try:
            self.manager.unload(name)
        except UnknownAdapterError:
            assert name not in self.expected
        self.expected.pop(name, None)

    @rule()
    def crash_the_engine(self) -> None:
        self.engine.restart()

    @rule(name=NAMES)
    def meddle(self, name: str) -> None:
        self.engine.adapters.loaded.pop(name, None)

    @rule()
    def restart_the_runtime(self) -> None:
        self.running.close()
        self.manager = self.running.enter_context(
            managed(self.engine, self.folder / "state", flavour=self.flavour)
        )  # fmt: skip

    @rule()
    def rest(self) -> None:
        wait_for_rest(self.engine, self.expected)

    @invariant()
    def nothing_is_held_that_was_never_asked_for(self) -> None:
        if hasattr(self, "engine"):
            folders = {str(self.folder / name) for name in ("one", "two", "three")}
            assert set(dict(self.engine.adapters.loaded).values()) <= folders


@pytest.mark.timeout(600)
def test_at_rest_the_engine_holds_what_is_wanted(thorough: bool) -> None:
    """Law: after any steps, left alone, the engine has exactly the desired set."""
    from hypothesis.stateful import run_state_machine_as_test

    class Closing(Adapters):
        def teardown(self) -> None:
            try:
                if hasattr(self, "expected"):
                    wait_for_rest(self.engine, self.expected)
            finally:
                super().teardown()

    steps = settings(
        max_examples=500 if thorough else 25,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    run_state_machine_as_test(Closing, settings=steps)
