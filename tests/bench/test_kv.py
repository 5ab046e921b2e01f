"""The benchmark of KV events runs and shows every row; what it measures is for a quiet machine, not for a test."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bench.kv_measures import BARE, DECODE, SHAPES
from bench.peers import RUNTIME
from tests.bench.process import TIMEOUT, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, TIMEOUT]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench") / "kv.json"


@pytest.fixture(scope="module")
def shown(numbers: Path) -> str:
    """What it printed."""
    return run("kv", "--json", str(numbers))[0]


def rows(tables: str) -> Iterator[list[str]]:
    """Yield the cells of each row of each table that was printed."""
    return ([cell.strip() for cell in line.split("|")[1:-1]] for line in tables.splitlines() if line.startswith("| "))


def test_every_peer_is_shown_with_events_of_each_size(shown: str) -> None:
    """The runtime stands beside the pipeline that only writes, and beside the one that decodes too."""
    peers = [tuple(cells[:2]) for cells in rows(shown)]

    for shape in SHAPES:
        for name in (RUNTIME, BARE, DECODE):
            assert peers.count((shape, name)) == 1


def test_every_target_is_judged(shown: str, numbers: Path) -> None:
    """Each has its verdict, in the table and in the numbers."""
    verdicts = [cells[0] for cells in rows(shown) if cells[-1] in ("met", "MISSED")]

    assert verdicts == [target["what"] for target in json.loads(numbers.read_text())["targets"]]
    assert len(verdicts) == 15


def test_nothing_is_lost(shown: str) -> None:
    """Whatever the machine does meanwhile: Redis has what the engine holds."""
    verdicts = {cells[0]: cells[-1] for cells in rows(shown) if cells[-1] in ("met", "MISSED")}

    kept = [what for what in verdicts if "lost for good" in what or "that differ" in what]
    assert len(kept) == 3
    assert {verdicts[what] for what in kept} == {"met"}


def test_the_machine_is_named(shown: str) -> None:
    """Numbers without their machine say nothing."""
    first_line = shown.splitlines()[0]

    for word in ("cores", "python", "hiredis", "pyzmq"):
        assert word in first_line
