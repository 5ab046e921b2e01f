"""The manager before an engine: what is wanted is loaded, and stays loaded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest

from lora.adapter import State, Wanted
from lora.errors import UnknownAdapterError
from lora.state_file import StateFile
from lora.workers import COUNT
from simulators.adapters import make_adapter
from simulators.engine.__main__ import Engine
from simulators.waiting import PATIENCE, wait_until
from tests.lora.running import Recorder, error_of, managed, wait_for_rest

if TYPE_CHECKING:
    from lora.state_file import Kept
    from simulators.engine.api import FlavourName

each_engine = pytest.mark.parametrize("flavour", ["vllm", "sglang"])


@each_engine
def test_an_adapter_that_is_there_is_loaded(tmp_path: Path, flavour: FlavourName) -> None:
    """From its directory, under its name, on the engine's own route."""
    folder = make_adapter(tmp_path / "sql")
    with Engine(flavour=flavour) as engine, managed(engine, tmp_path / "state", flavour=flavour) as manager:
        assert error_of(manager.load(Wanted("sql", folder), kept=False)) is None

        assert engine.adapters.loaded == {"sql": str(folder)}
        (status,) = manager.statuses()
        assert (status.name, status.state, status.managed) == ("sql", State.LOADED, True)
        assert status.facts is not None
        assert status.facts.rank == 8


@each_engine
def test_loading_the_same_again_does_nothing(tmp_path: Path, flavour: FlavourName) -> None:
    """The engine is not even asked."""
    wanted = Wanted("sql", make_adapter(tmp_path / "sql"))
    with Engine(flavour=flavour) as engine, managed(engine, tmp_path / "state", flavour=flavour) as manager:
        error_of(manager.load(wanted, kept=False))
        loads = [call for call in engine.calls if "load_lora" in call.path]

        assert error_of(manager.load(wanted, kept=False)) is None
        assert [call for call in engine.calls if "load_lora" in call.path] == loads


def test_ten_loads_of_one_name_are_one(tmp_path: Path) -> None:
    """All callers get the one answer."""
    wanted = Wanted("sql", make_adapter(tmp_path / "sql"))
    with Engine() as engine, managed(engine, tmp_path / "state") as manager, ThreadPoolExecutor(10) as callers:
        goals = list(callers.map(lambda _: manager.load(wanted, kept=False), range(10)))

        assert [error_of(goal) for goal in goals] == [None] * 10
        assert sum("/load_lora" in call.path for call in engine.calls) == 1


def test_a_hundred_adapters_at_once(tmp_path: Path) -> None:
    """Each is loaded once."""
    wanted = [Wanted(f"a{number}", make_adapter(tmp_path / f"a{number}")) for number in range(100)]
    with Engine() as engine, managed(engine, tmp_path / "state") as manager:
        goals = [manager.load(one, kept=False) for one in wanted]

        assert [error_of(goal) for goal in goals] == [None] * 100
        assert engine.adapters.loaded == {one.name: str(one.path) for one in wanted}


@each_engine
def test_other_files_replace_by_unload_and_load(tmp_path: Path, flavour: FlavourName) -> None:
    """Never in place: engines die of that."""
    old, new = make_adapter(tmp_path / "old"), make_adapter(tmp_path / "new")
    with Engine(flavour=flavour) as engine, managed(engine, tmp_path / "state", flavour=flavour) as manager:
        error_of(manager.load(Wanted("sql", old), kept=False))

        assert error_of(manager.load(Wanted("sql", new), kept=False)) is None
        assert engine.adapters.loaded == {"sql": str(new)}
        assert not [call for call in engine.calls if b"load_inplace" in call.body]


@each_engine
def test_a_replacement_that_the_engine_refuses_is_rolled_back(tmp_path: Path, flavour: FlavourName) -> None:
    """The former adapter serves again, and is what is wanted."""
    old, bad = make_adapter(tmp_path / "old"), make_adapter(tmp_path / "bad", rank=64)
    with Engine(flavour=flavour) as engine, managed(engine, tmp_path / "state", flavour=flavour) as manager:
        error_of(manager.load(Wanted("sql", old), kept=False))

        error = error_of(manager.load(Wanted("sql", bad), kept=False))

        assert error is not None
        assert error.code == "rank_too_large"
        assert engine.adapters.loaded == {"sql": str(old)}
        engine.restart()
        wait_for_rest(engine, {"sql": str(old)})


@pytest.mark.parametrize(
    ("name", "rank", "code"),
    [("big", 64, "rank_too_large"), ("demo", 8, "name_taken")],
)
def test_what_cannot_be_loaded_leaves_nothing(tmp_path: Path, name: str, rank: int, code: str) -> None:
    """A call that failed is not wanted, and others are left alone."""
    good, bad = make_adapter(tmp_path / "good"), make_adapter(tmp_path / "bad", rank=rank)
    with Engine() as engine, managed(engine, tmp_path / "state") as manager:
        error_of(manager.load(Wanted("good", good), kept=False))

        error = error_of(manager.load(Wanted(name, bad), kept=False))

        assert error is not None
        assert error.code == code
        assert [status.name for status in manager.statuses()] == ["good"]
        assert engine.adapters.loaded == {"good": str(good)}


def test_a_source_is_downloaded_and_loaded(tmp_path: Path) -> None:
    """From a mounted volume here; the files land below the directory that was asked for."""
    make_adapter(tmp_path / "volume" / "sql")
    wanted = Wanted("sql", tmp_path / "lora" / "sql", f"pvc://{tmp_path}/volume/sql")
    with Engine() as engine, managed(engine, tmp_path / "state") as manager:
        assert error_of(manager.load(wanted, kept=False)) is None

        (status,) = manager.statuses()
        assert status.source == wanted.source
        assert engine.adapters.loaded == {"sql": status.path}
        assert Path(status.path) == wanted.path / str(status.content)


def test_a_source_that_is_not_there_says_so(tmp_path: Path) -> None:
    """With the download's own code."""
    wanted = Wanted("sql", tmp_path / "lora" / "sql", f"pvc://{tmp_path}/nowhere")
    with Engine() as engine, managed(engine, tmp_path / "state") as manager:
        error = error_of(manager.load(wanted, kept=False))

        assert error is not None
        assert error.code == "not_found"
        assert engine.adapters.loaded == {}


def test_another_source_into_the_same_directory_touches_no_loaded_file(tmp_path: Path) -> None:
    """The new files go beside those that the engine has open."""
    make_adapter(tmp_path / "volume" / "one")
    make_adapter(tmp_path / "volume" / "two", rank=4)
    target = tmp_path / "lora" / "sql"
    with Engine() as engine, managed(engine, tmp_path / "state") as manager:
        error_of(manager.load(Wanted("sql", target, f"pvc://{tmp_path}/volume/one"), kept=False))
        opened = Path(engine.adapters.loaded["sql"]) / "adapter_model.safetensors"
        before = opened.stat()

        assert error_of(manager.load(Wanted("sql", target, f"pvc://{tmp_path}/volume/two"), kept=False)) is None

        assert opened.stat() == before
        assert Path(engine.adapters.loaded["sql"]).parent == target


def test_an_engine_that_restarts_gets_its_adapters_back(tmp_path: Path) -> None:
    """From disk: the volume that they came from may be gone."""
    make_adapter(tmp_path / "volume" / "sql")
    local = make_adapter(tmp_path / "local")
    fetched = Wanted("sql", tmp_path / "lora" / "sql", f"pvc://{tmp_path}/volume/sql")
    recorder = Recorder()
    with Engine() as engine, managed(engine, tmp_path / "state", observer=recorder) as manager:
        for wanted in (fetched, Wanted("local", local)):
            error_of(manager.load(wanted, kept=False))
        expected = dict(engine.adapters.loaded)
        (tmp_path / "volume").rename(tmp_path / "gone")

        engine.restart()

        wait_for_rest(engine, expected)
        wait_until(lambda: "repaired" in recorder.reconciles, "the repair is told")


def test_a_runtime_that_restarts_takes_up_what_was_wanted(tmp_path: Path) -> None:
    """It adopts what the engine has, and repairs the rest."""
    folders = {name: make_adapter(tmp_path / name) for name in ("a", "b")}
    with Engine() as engine:
        with managed(engine, tmp_path / "state") as manager:
            for name, folder in folders.items():
                error_of(manager.load(Wanted(name, folder), kept=False))
        del engine.adapters.loaded["b"]
        loads = len([call for call in engine.calls if "/load_lora" in call.path])

        with managed(engine, tmp_path / "state") as manager:
            wait_for_rest(engine, {name: str(folder) for name, folder in folders.items()})
            wait_until(lambda: {s.state for s in manager.managed()} == {State.LOADED}, "all are loaded")

        assert len([call for call in engine.calls if "/load_lora" in call.path]) == loads + 1


def test_an_engine_that_is_away_is_no_adapters_fault(tmp_path: Path) -> None:
    """What is kept waits without a try against it, and is loaded when the engine comes."""
    folder = make_adapter(tmp_path / "sql")
    with Engine() as engine:
        port = int(engine.url.rpartition(":")[2])
        with managed(engine, tmp_path / "state") as manager:
            engine.__exit__(None, None, None)
            manager.load(Wanted("sql", folder), kept=True)
            wait_until(lambda: manager.managed()[0].error_code == "engine_unavailable", "the engine is missed")
            assert manager.managed()[0].next_retry is None

            with Engine(port=port) as back:
                wait_for_rest(back, {"sql": str(folder)})


def test_unloading_takes_it_out(tmp_path: Path) -> None:
    """Out of the engine, the list and the state file; a restart brings nothing back."""
    folder = make_adapter(tmp_path / "sql")
    with Engine() as engine, managed(engine, tmp_path / "state") as manager:
        error_of(manager.load(Wanted("sql", folder), kept=False))

        assert error_of(manager.unload("sql")) is None

        assert engine.adapters.loaded == {}
        assert manager.statuses() == []
        assert (folder / "adapter_config.json").exists()


def test_unloading_what_nobody_knows_is_an_error(tmp_path: Path) -> None:
    """Neither we nor the engine."""
    with Engine() as engine, managed(engine, tmp_path / "state") as manager, pytest.raises(UnknownAdapterError):
        manager.unload("nobody")


def test_what_others_loaded_is_shown_and_left_alone(tmp_path: Path) -> None:
    """It can be unloaded when somebody asks for that."""
    folder = make_adapter(tmp_path / "theirs")
    recorder = Recorder()
    with Engine() as engine, managed(engine, tmp_path / "state", observer=recorder) as manager:
        engine.adapters.load("theirs", str(folder))
        error_of(manager.load(Wanted("ours", make_adapter(tmp_path / "ours")), kept=False))
        wait_until(lambda: recorder.reconciles.count("in_sync") > 2, "it was compared")

        assert [(status.name, status.managed) for status in manager.statuses()] == [("ours", True), ("theirs", False)]
        error_of(manager.unload("theirs"))
        assert set(engine.adapters.loaded) == {"ours"}


def test_one_bad_adapter_does_not_hold_up_another(tmp_path: Path) -> None:
    """A kept one that fails waits on its own; others load."""
    with Engine() as engine, managed(engine, tmp_path / "state") as manager:
        manager.load(Wanted("bad", tmp_path / "nowhere"), kept=True)
        good = make_adapter(tmp_path / "good")

        assert error_of(manager.load(Wanted("good", good), kept=False)) is None

        wait_until(lambda: any(s.attempts for s in manager.managed()), "the bad one failed")
        bad = next(status for status in manager.managed() if status.name == "bad")
        assert (bad.state, bad.error_code) == (State.FAILED, "invalid_adapter")
        assert bad.next_retry is not None


class HungState(StateFile):
    """A state file on a volume whose server can be gone."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.is_reached, self.answers = Event(), Event()
        self.answers.set()

    def write(self, kept: Kept) -> None:
        if not self.answers.is_set():
            self.is_reached.set()
            assert self.answers.wait(PATIENCE)
        super().write(kept)


def test_a_state_directory_that_hangs_holds_up_no_reader(tmp_path: Path) -> None:
    """Whatever is asked is answered while the set is being written, and the runtime can be stopped."""
    state, folder = HungState(tmp_path / "state"), make_adapter(tmp_path / "first")
    with Engine() as engine, managed(engine, state) as manager, ThreadPoolExecutor(8) as callers:
        assert error_of(manager.load(Wanted("first", folder), kept=True)) is None
        state.answers.clear()
        load = callers.submit(manager.load, Wanted("second", make_adapter(tmp_path / "second")), kept=True)
        assert state.is_reached.wait(PATIENCE)
        try:
            shown = [callers.submit(ask).result(timeout=20) for ask in (manager.managed, manager.statuses)]
            assert [[status.name for status in statuses] for statuses in shown] == [["first"]] * 2
            assert callers.submit(manager.status, "first").result(timeout=20).state is State.LOADED
            assert callers.submit(manager.holds, folder).result(timeout=20)
            callers.submit(manager.stop).result(timeout=20)
        finally:
            state.answers.set()
        load.result(timeout=20)
    assert [wanted.name for wanted in StateFile(tmp_path / "state").read().wanted] == ["first", "second"]


def test_writes_of_many_callers_keep_their_order(tmp_path: Path) -> None:
    """At rest the file has what is wanted, however loads and unloads of four callers met."""
    folder = make_adapter(tmp_path / "sql")
    with Engine() as engine, managed(engine, tmp_path / "state") as manager, ThreadPoolExecutor(4) as callers:

        def load_and_unload(number: int) -> None:
            manager.load(Wanted(f"sql-{number % 3}", folder), kept=True)
            manager.load(Wanted(f"kept-{number}", folder), kept=True)
            with suppress(UnknownAdapterError):  # another caller has unloaded it
                manager.unload(f"sql-{number % 3}")

        list(callers.map(load_and_unload, range(12)))
        wait_until(lambda: len(engine.adapters.loaded) == 12, "all are loaded or unloaded")
        wait_until(lambda: {status.state for status in manager.managed()} == {State.LOADED}, "nothing is left to do")
        names = sorted(status.name for status in manager.managed())

        assert names == sorted(f"kept-{number}" for number in range(12))
        wait_until(lambda: written_in(tmp_path / "state") == (names, ()), "the file has them")


def written_in(state: Path) -> tuple[list[str], tuple[str, ...]]:
    """Return the names that a state file has as wanted, and as on their way out."""
    kept = StateFile(state).read()
    return [wanted.name for wanted in kept.wanted], kept.removed


def test_an_engine_without_lora_says_what_to_do(tmp_path: Path) -> None:
    """Each of the two ways to have none."""
    folder = make_adapter(tmp_path / "sql")
    for without, code in (
        (Engine(lora_enabled=False), "lora_disabled"),
        (Engine(lora_updating=False), "lora_updating_disabled"),
    ):
        with without as engine, managed(engine, tmp_path / f"state-{code}") as manager:
            error = error_of(manager.load(Wanted("sql", folder), kept=False))

            assert error is not None
            assert error.code == code


def test_an_engine_with_a_key_that_we_lack(tmp_path: Path) -> None:
    """The error names the flag."""
    with Engine(api_key="secret") as engine, managed(engine, tmp_path / "state") as manager:
        error = error_of(manager.load(Wanted("sql", make_adapter(tmp_path / "sql")), kept=False))

        assert error is not None
        assert error.code == "engine_unauthorized"
        assert "--engine-api-key-file" in error.message


class HangingState(StateFile):
    """A state file whose disk does not answer while the gate is shut."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.gate = Event()
        self.gate.set()

    def write(self, kept: Kept) -> None:
        assert self.gate.wait(PATIENCE)
        super().write(kept)


def test_a_state_directory_that_hangs_hides_no_adapter(tmp_path: Path) -> None:
    """The engine has it, and the list says so; the caller waits until that is kept."""
    state = HangingState(tmp_path / "state")
    with Engine() as engine, managed(engine, state) as manager:
        state.gate.clear()
        goal = manager.load(Wanted("sql", make_adapter(tmp_path / "sql")), kept=False)

        wait_until(lambda: [one.state for one in manager.managed()] == [State.LOADED], "it is shown as loaded")
        assert not goal.done.is_set()

        state.gate.set()
        assert error_of(goal) is None


class Faulty(Recorder):
    """An observer with a defect."""

    def operated(self, *, operation: str, outcome: str, seconds: float) -> None:
        super().operated(operation=operation, outcome=outcome, seconds=seconds)
        raise ZeroDivisionError


def test_an_observer_with_a_defect_ends_no_worker(tmp_path: Path) -> None:
    """More loads than there are workers are answered."""
    wanted = [Wanted(f"a{number}", make_adapter(tmp_path / f"a{number}")) for number in range(2 * COUNT)]
    observer = Faulty()
    with Engine() as engine, managed(engine, tmp_path / "state", observer=observer) as manager:
        assert [error_of(manager.load(one, kept=False)) for one in wanted] == [None] * len(wanted)

    assert len(observer.operations) == len(wanted)
