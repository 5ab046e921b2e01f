"""What a scrape costs: the runtime between a proxy that does nothing and the obvious way.

All peers run side by side and take turns, round after round, so that whatever
else the machine does hits all of them. Figures are medians over the rounds; CPU
is the peer's own, user and system, without the engine's and the client's.

    python -m bench.scrape --quick
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from math import ceil
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from bench import machine, peers, report
from bench.client import scrape_together
from bench.pages import SIZES
from bench.peers import OBVIOUS, PASS_THROUGH, RUNTIME
from bench.report import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.client import Scraper
    from bench.peers import Peer
    from bench.process import Process

__all__ = ["main"]

SCRAPERS: Final = 8
SCRAPERS_QUICK: Final = 2
ROUNDS: Final = 7
_WARM_UP: Final = 4  # one part in four of a round, before the first

# Scrapes in a round: of one scraper, and of each of several at once. The obvious
# way takes up to a second for one, and gets fewer.
_ALONE: Final = {"small": (200, 30), "medium": (100, 10), "large": (20, 3)}
_TOGETHER: Final = {"small": (100, 10), "medium": (50, 4), "large": (12, 2)}
_ALONE_QUICK: Final = {"small": (20, 3), "medium": (10, 2), "large": (4, 1)}
_TOGETHER_QUICK: Final = {"small": (10, 2), "medium": (5, 1), "large": (2, 1)}

_CHEAPER_THAN_OBVIOUS: Final = {"medium": 40.0, "large": 60.0}
_DEARER_THAN_PASS_THROUGH: Final = {"small": 1.7, "medium": 3.0, "large": 2.0}
_FASTER_THAN_OBVIOUS: Final = 10.0
_TAIL: Final = 3.0


@dataclass(slots=True)
class Series:
    """What the rounds brought for one peer; seconds throughout.

    Attributes:
        latencies: Of each scrape.
        cpu: Per scrape, one figure a round.
        rates: Scrapes a second, one figure a round.
    """

    latencies: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def add(self, latencies: list[float], cpu: float, seconds: float) -> None:
        """Add a round."""
        self.latencies += latencies
        self.cpu.append(cpu / len(latencies))
        self.rates.append(len(latencies) / seconds)

    def figures(self) -> Figures:
        """Return what is reported of them."""
        tail = sorted(self.latencies)[ceil(0.99 * len(self.latencies)) - 1]
        middle = median(self.latencies)
        return Figures(len(self.latencies), middle, tail, median(self.cpu), min(self.cpu), median(self.rates))


@dataclass(frozen=True, slots=True)
class Figures:
    """One row of a table; seconds throughout."""

    scrapes: int
    latency: float
    p99: float
    cpu: float
    least_cpu: float
    rate: float


@dataclass(frozen=True, slots=True)
class Result:
    """One size: figures by the peer's name, for one scraper and for several at once."""

    size: str
    alone: dict[str, Figures]
    together: dict[str, Figures]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    options = _options(arguments)
    place = machine.describe()
    print(report.listing(place), end="\n\n", flush=True)
    with peers.engine(options.sizes) as engine:
        engine.wait_for("/health")
        results = [_measure(size, engine, options) for size in options.sizes]
    verdicts = list(_verdicts(results, options.scrapers))
    print("One scraper", _alone_table(results), sep="\n\n", end="\n\n")
    print(f"{options.scrapers} scrapers at once", _together_table(results), sep="\n\n", end="\n\n")
    print("Targets", report.verdicts_table(verdicts), sep="\n\n")
    if options.json:
        numbers = {"place": place, "sizes": [asdict(result) for result in results], "targets": report.facts(verdicts)}
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")
    return 1 if options.check and report.missed(verdicts) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.scrape", description="Measure what a scrape costs.")
    parser.add_argument("--quick", action="store_true", help="few scrapes: shows that it works, not what it costs")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="sizes of the engine's page")
    parser.add_argument("--rounds", type=int, help=f"how often the peers take turns [default {ROUNDS}, quick 1]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else ROUNDS)
    options.scrapers = SCRAPERS_QUICK if options.quick else SCRAPERS
    return options


def _measure(size: str, engine: Process, options: argparse.Namespace) -> Result:
    path, rounds = f"/{size}", options.rounds
    alone, together = (_ALONE_QUICK, _TOGETHER_QUICK) if options.quick else (_ALONE, _TOGETHER)
    with ExitStack() as running:
        programs = {name: peers.program(name, engine.port, path) for name in (PASS_THROUGH, RUNTIME, OBVIOUS)}
        for process in programs.values():
            running.enter_context(process)
        subjects = peers.ready(programs, engine, path)
        return Result(
            size,
            _take_turns(subjects, 1, alone[size], rounds),
            _take_turns([one for one in subjects if one.name in programs], options.scrapers, together[size], rounds),
        )


def _take_turns(subjects: Sequence[Peer], scrapers: int, times: tuple[int, int], rounds: int) -> dict[str, Figures]:
    """Let each peer have its turn in each round."""
    series = {peer.name: Series() for peer in subjects}
    fast, slow = times
    with ExitStack() as open_connections:
        connections = {
            peer.name: [open_connections.enter_context(peer.scraper()) for _ in range(scrapers)] for peer in subjects
        }
        for number in range(rounds + 1):
            for peer in subjects:
                count = slow if peer.name == OBVIOUS else fast
                if number:
                    series[peer.name].add(*_turn(peer, connections[peer.name], count))
                elif count >= _WARM_UP:  # those who get fewer were asked once and that will do
                    _turn(peer, connections[peer.name], count // _WARM_UP)
    return {name: one.figures() for name, one in series.items()}


def _turn(peer: Peer, connections: Sequence[Scraper], times: int) -> tuple[list[float], float, float]:
    """Return the latencies, the peer's CPU seconds and the seconds that it took."""
    before = peer.process.cpu()
    latencies, seconds = scrape_together(connections, times)
    return latencies, peer.process.cpu() - before, seconds


def _alone_table(results: Sequence[Result]) -> str:
    rows = [
        [result.size, name, f"{figures.scrapes}", *map(_milliseconds, (figures.latency, figures.p99)),
         f"{_milliseconds(figures.cpu)} [{_milliseconds(figures.least_cpu)}]"]
        for result in results
        for name, figures in result.alone.items()
    ]  # fmt: skip
    return report.table(["page", "peer", "scrapes", "median ms", "p99 ms", "CPU ms [least]"], rows)


def _together_table(results: Sequence[Result]) -> str:
    rows = [
        [result.size, name, f"{figures.scrapes}", f"{figures.rate:.1f}",
         *map(_milliseconds, (figures.latency, figures.p99)), f"{figures.p99 / figures.latency:.1f}",
         _milliseconds(figures.cpu)]
        for result in results
        for name, figures in result.together.items()
    ]  # fmt: skip
    return report.table(["page", "peer", "scrapes", "scrapes/s", "median ms", "p99 ms", "p99/median", "CPU ms"], rows)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g}" if seconds < 1 else f"{1000 * seconds:.0f}"


def _verdicts(results: Sequence[Result], scrapers: int) -> Iterator[Verdict]:
    for result in results:
        yield from _cost_verdicts(result.size, {name: figures.cpu for name, figures in result.alone.items()})
    for result in results:
        ours, theirs = result.together[RUNTIME], result.together[OBVIOUS]
        what = f"{result.size}: scrapes/s of {scrapers} scrapers, runtime / obvious"
        yield Verdict(what, ours.rate / theirs.rate, _FASTER_THAN_OBVIOUS, "at least", "x")
        yield Verdict(f"{result.size}: p99 / median of {scrapers} scrapers", ours.p99 / ours.latency, _TAIL, unit="x")


def _cost_verdicts(size: str, cpu: Mapping[str, float]) -> Iterator[Verdict]:
    if size in _CHEAPER_THAN_OBVIOUS:
        value = cpu[OBVIOUS] / cpu[RUNTIME]
        yield Verdict(f"{size}: CPU, obvious / runtime", value, _CHEAPER_THAN_OBVIOUS[size], "at least", "x")
    value = cpu[RUNTIME] / cpu[PASS_THROUGH]
    yield Verdict(f"{size}: CPU, runtime / pass-through", value, _DEARER_THAN_PASS_THROUGH[size], unit="x")


if __name__ == "__main__":
    sys.exit(main())
