"""Records on a volume that others write to, and that are no records: nothing waits for them, and memory stays small."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest

from simulators.adapters import make_adapter
from simulators.engine.__main__ import Engine
from simulators.waiting import PATIENCE, wait_until
from tests.harness.memory import MIB, Watch, limited
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.faults, pytest.mark.slow]

LOAD: Final = "/v1/load_lora_adapter"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as running:
        yield running


@pytest.fixture(scope="module")
def runtime(engine: Engine) -> Iterator[Runtime]:
    with limited(256 * MIB) as group, Runtime(engine.url, "--reconcile-interval", "0.1", group=group) as running:
        yield running


def huge(path: Path) -> None:
    """Make a file of 2 GiB that takes no room on disk."""
    with path.open("wb") as file:
        file.truncate(2 << 30)


def deep(path: Path) -> None:
    path.write_text("[" * 1_000_000)


def greedy(path: Path) -> None:
    """Make a file whose values take twenty times as much as its text."""
    path.write_text(f"[{'[],' * (4 * MIB)}[]]")


MAKERS: Final = {"pipe": os.mkfifo, "huge": huge, "deep": deep, "greedy": greedy}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_an_adapter_is_loaded_where_the_record_of_contents_is_none(
    runtime: Runtime, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    """And is refreshed: the record counts as unreadable, which is no failure."""
    base = base_with("generations.json", tmp_path, make)

    with Watch(runtime.pid) as watch:
        load_twice(runtime, tmp_path, base)

    assert watch.peaks[runtime.pid] < 80 * MIB, watch.peaks
    assert watch.proportional < 256 * MIB


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_nothing_is_removed_where_a_reference_is_none(
    runtime: Runtime, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    """The runtime says so, and goes on."""
    base = base_with("refs/pod-1.default", tmp_path, make)

    with Watch(runtime.pid) as watch:
        load_twice(runtime, tmp_path, base)
        wait_until(lambda: f"old adapters in {base} cannot be removed" in runtime.log, "it is logged")

    assert watch.peaks[runtime.pid] < 80 * MIB, watch.peaks
    assert watch.proportional < 256 * MIB


def base_with(record: str, folder: Path, make: Callable[[Path], object]) -> Path:
    """Return a directory for an adapter that has such a record."""
    base = folder / "base"
    path = base / ".kthena" / record
    path.parent.mkdir(parents=True)
    make(path)
    return base


def load_twice(runtime: Runtime, folder: Path, base: Path) -> None:
    """Load an adapter, and again with other content."""
    source = folder / "source"
    body = {"lora_name": folder.name, "source": f"pvc:/{source}", "output_dir": str(base), "refresh": True}
    for rank in (8, 16):
        make_adapter(source, rank=rank)
        answer = runtime.session.post(runtime.url + LOAD, json=body, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
