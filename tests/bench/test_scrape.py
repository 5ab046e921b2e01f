"""The benchmarks run and show every row; what they measure is for a quiet machine, not for a test."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bench.peers import NAMES, OBVIOUS, PASS_THROUGH, RUNTIME
from tests.bench.process import TIMEOUT, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, TIMEOUT]

# The obvious way takes seconds for a page of the third.
SIZES = ("small", "medium")


def rows(table: str) -> Iterator[list[str]]:
    """Yield the cells of each row of each table that was printed."""
    return ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| "))


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    numbers = tmp_path_factory.mktemp("bench") / "scrape.json"
    return run("scrape", "--sizes", *SIZES, "--json", str(numbers))[0], numbers


@pytest.fixture(scope="module")
def footprint() -> str:
    return run("footprint")[0]


def test_scrape_shows_every_peer_at_each_size(scrape: tuple[str, Path]) -> None:
    """One row each for a lone scraper; the programs have another for several at once."""
    shown = [tuple(cells[:2]) for cells in rows(scrape[0])]

    for size in SIZES:
        for name in NAMES:
            assert shown.count((size, name)) == (2 if name in (PASS_THROUGH, RUNTIME, OBVIOUS) else 1)


def test_scrape_judges_every_target(scrape: tuple[str, Path]) -> None:
    """Each target has its verdict, in the table and in the numbers."""
    verdicts = [cells[0] for cells in rows(scrape[0]) if cells[-1] in ("met", "MISSED")]

    numbers = json.loads(scrape[1].read_text())
    assert verdicts == [target["what"] for target in numbers["targets"]]
    assert len(verdicts) == 7


def test_scrape_names_the_machine(scrape: tuple[str, Path]) -> None:
    """Numbers without their machine say nothing."""
    first_line = scrape[0].splitlines()[0]

    for word in ("cores", "python", "prometheus-client", "waitress"):
        assert word in first_line


def test_footprint_shows_every_measure(footprint: str) -> None:
    """A row for each measure, with the runtime's value and the pass-through's."""
    measures = {cells[0].partition(",")[0] for cells in rows(footprint) if len(cells) == 3}

    assert measures >= {"exec to ready", "RSS at start", "RSS after 50 medium scrapes", "idle CPU after the scrapes"}


def test_footprint_judges_every_target(footprint: str) -> None:
    """Six targets; the one without noise is asserted: nothing is imported that has no place in a sidecar."""
    verdicts = {cells[0]: cells[-1] for cells in rows(footprint) if cells[-1] in ("met", "MISSED")}

    assert len(verdicts) == 6
    assert verdicts["unwanted imports"] == "met"
