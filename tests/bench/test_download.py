"""The benchmark of downloads runs and shows every row; what it measures is for a quiet machine, not for a test."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bench.download_measures import DOWNLOAD, IDLE, ROUTE
from bench.download_peers import AWS, BOTO3, CP, FLOOR, NGINX, OURS, RCLONE, RSYNC, S5CMD, TWO_CP
from tests.bench.process import TIMEOUT, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, TIMEOUT]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench") / "download.json"


@pytest.fixture(scope="module")
def shown(numbers: Path) -> str:
    """What it printed, with the peers from PyPI."""
    printed, said = run("download", "--json", str(numbers))
    assert not said
    return printed


def rows(tables: str) -> Iterator[list[str]]:
    """Yield the cells of each row of each table that was printed."""
    return ([cell.strip() for cell in line.split("|")[1:-1]] for line in tables.splitlines() if line.startswith("| "))


def test_every_peer_is_shown(shown: str) -> None:
    """With each set that it fetches or copies; one that cannot be had is said to be missing."""
    peers = [cells[0] for cells in rows(shown)]

    lean = f"{NGINX} cannot be measured: " not in shown
    assert peers.count(OURS) == 3 + lean
    for name, tables in ((AWS, 2), (S5CMD, 2), (RCLONE, 3), (BOTO3, 2), (FLOOR, 3), (RSYNC, 1)):
        expected = tables + (lean and name != RSYNC)
        assert peers.count(name) == expected or f"{name} cannot be measured: " in shown
    for name in (CP, TWO_CP, ROUTE, IDLE, DOWNLOAD):
        assert peers.count(name) == 1


def test_every_target_is_judged(shown: str, numbers: Path) -> None:
    """Each has its verdict, in the table and in the numbers."""
    verdicts = [cells[0] for cells in rows(shown) if cells[-1] in ("met", "MISSED")]

    assert verdicts == [target["what"] for target in json.loads(numbers.read_text())["targets"]]
    assert len(verdicts) == 11 or "cannot be measured" in shown
