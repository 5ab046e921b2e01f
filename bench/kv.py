"""What KV events cost on their way from the engine into Redis, beside a program that only writes.

The console script, a real redis-server and a publisher run as processes of
their own; so does the floor, redis-py's pipeline of the same commands. They
take turns, round after round; figures of rounds are medians. CPU is the
runtime's own, user and system.

    python -m bench.kv --quick
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from bench import kv_measures, machine, report
from bench.kv_measures import BARE, SHAPES, Effort
from bench.kv_stage import stage
from bench.peers import RUNTIME
from bench.report import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.kv_measures import Lag, Loss, Memory, Outage, Rest, Speed

__all__ = ["main"]

_LIBRARIES: Final = ("redis", "hiredis", "pyzmq")
_QUICK: Final = Effort(
    rounds=1, blocks=6_400, paced=(10_000, 0.5), memory=20_000, burst=10_000, room=6_400, outage=(1.0, 1.0), idle=1.0
)

_THOUSANDS_A_SECOND: Final = dict(zip(SHAPES, (60.0, 50.0), strict=True))
_OF_BARE: Final = 0.8
_MEGABYTES: Final = 40.0
_MEGABYTES_AT_START: Final = 58.0
_SCRAPE_MILLISECONDS: Final = 50.0
_IDLE_PERCENT: Final = 0.1
_WAKE_UPS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Figures:
    """All that is measured; by shape where it is a mapping."""

    speed: Mapping[str, Mapping[str, Speed]]
    scrapes: Mapping[str, Sequence[float]]
    lag: Mapping[str, Lag]
    memory: Mapping[str, Memory]
    loss: Loss
    outages: Mapping[str, Outage]
    rest: Rest


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    options = _options(arguments)
    effort = replace(_QUICK if options.quick else Effort(), **({"rounds": options.rounds} if options.rounds else {}))
    place = machine.describe(*_LIBRARIES)
    print(report.listing(place), end="\n\n", flush=True)
    figures = _measure(effort)
    verdicts = list(_verdicts(figures))
    for title, table in _tables(figures, effort):
        print(title, table, sep="\n\n", end="\n\n")
    print("Targets", report.verdicts_table(verdicts), sep="\n\n")
    if options.json:
        numbers = {"place": place, "effort": asdict(effort), **asdict(figures), "targets": report.facts(verdicts)}
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")
    return 1 if options.check and report.missed(verdicts) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.kv", description="Measure what KV events cost.")
    parser.add_argument("--quick", action="store_true", help="few blocks: shows that it works, not what it costs")
    parser.add_argument("--rounds", type=int, help=f"how often they take turns [default {Effort().rounds}, quick 1]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    return parser.parse_args(arguments)


def _measure(effort: Effort) -> Figures:
    with stage() as place:
        return Figures(
            speed=kv_measures.speed(place, effort),
            scrapes=kv_measures.scrapes(place, effort),
            lag=kv_measures.lag(place, effort),
            memory=kv_measures.memory(place, effort),
            loss=kv_measures.loss(place, effort),
            outages={
                f"killed for {effort.outage[0]:g} s": kv_measures.outage(place, effort, killed=True),
                "emptied": kv_measures.outage(place, effort, killed=False),
            },
            rest=kv_measures.rest(place, effort),
        )


def _tables(figures: Figures, effort: Effort) -> Iterator[tuple[str, str]]:
    yield f"{effort.blocks} blocks at full speed", _speed_table(figures.speed)
    yield "GET /metrics meanwhile, 100 times a second", _scrapes_table(figures.scrapes)
    yield f"Lag at {effort.paced[0]} blocks/s", _lag_table(figures.lag)
    yield f"Memory, {effort.memory} blocks", _memory_table(figures.memory)
    yield f"{figures.loss.sent} single blocks past a high-water mark of 1000", _loss_table(figures.loss)
    yield "Redis in trouble at 20000 blocks/s stored and as many removed", _outage_table(figures.outages)
    yield "Nothing to do", _rest_table(figures.rest)


def _speed_table(speed: Mapping[str, Mapping[str, Speed]]) -> str:
    rows = [
        [shape, name, f"{one.rate:.0f}", f"{1e6 * one.cpu:.2f}", f"{one.rate / peers[BARE].rate:.2f}"]
        for shape, peers in speed.items()
        for name, one in peers.items()
    ]
    return report.table(["events", "peer", "blocks/s", "CPU us/block", "of bare"], rows)


def _scrapes_table(scrapes: Mapping[str, Sequence[float]]) -> str:
    rows = [
        [shape, f"{len(seconds)}", *map(_milliseconds, (median(seconds), max(seconds)))]
        for shape, seconds in scrapes.items()
    ]
    return report.table(["events", "scrapes", "median ms", "max ms"], rows)


def _lag_table(lags: Mapping[str, Lag]) -> str:
    rows = [
        [shape, *map(_milliseconds, (*lag.ledger, *lag.redis)), f"{lag.cpu_percent:.1f}"] for shape, lag in lags.items()
    ]
    header = ["events", "in the ledger, p50 ms", "p99 ms", "in Redis, p50 ms", "p99 ms", "CPU %"]
    return report.table(header, rows)


def _memory_table(memories: Mapping[str, Memory]) -> str:
    rows = [[shape, *_megabytes(one.start, one.per_100_000, one.peak)] for shape, one in memories.items()]
    return report.table(["events", "before, MB", "growth per 100000 blocks, MB", "peak, MB"], rows)


def _loss_table(loss: Loss) -> str:
    rows = [
        ["seconds until all are in Redis", f"{loss.seconds:.2f}"],
        ["gaps", f"{loss.gaps}"],
        ["replayed", f"{loss.replayed}"],
        ["lost for good, as the runtime says", f"{loss.lost}"],
        ["missing in Redis", f"{loss.missing}"],
        ["GET /metrics meanwhile, median ms", _milliseconds(median(loss.scrapes))],
        ["GET /metrics meanwhile, max ms", _milliseconds(max(loss.scrapes))],
    ]
    return report.table(["", "runtime"], rows)


def _outage_table(outages: Mapping[str, Outage]) -> str:
    rows: list[tuple[str, Callable[[Outage], str]]] = [
        ("seconds until it caught up, events going on", lambda one: f"{one.caught_up:.2f}"),
        ("seconds from the last event until both are equal", lambda one: f"{one.settled:.2f}"),
        ("blocks missing then", lambda one: f"{one.missing}"),
        ("blocks too many then", lambda one: f"{one.surplus}"),
        ("RSS before, MB", lambda one: f"{one.before:.1f}"),
        ("RSS at most, MB", lambda one: f"{one.peak:.1f}"),
    ]
    cells = [[what, *(text(one) for one in outages.values())] for what, text in rows]
    return report.table(["", *outages], cells)


def _rest_table(rest: Rest) -> str:
    rows = [
        ["RSS at start, MB", f"{rest.memory:.1f}"],
        ["idle CPU, %", f"{rest.idle.cpu_percent:.3f}"],
        ["wake-ups/s", f"{rest.idle.wake_ups:.1f}"],
    ]
    return report.table(["", "runtime"], rows)


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g}"


def _megabytes(*figures: float) -> list[str]:
    return [f"{figure:.1f}" for figure in figures]


def _verdicts(figures: Figures) -> Iterator[Verdict]:
    for shape, peers in figures.speed.items():
        rate = peers[RUNTIME].rate / 1000
        yield Verdict(f"{shape}: blocks/s", rate, _THOUSANDS_A_SECOND[shape], "at least", "k")
        value = peers[RUNTIME].rate / peers[BARE].rate
        yield Verdict(f"{shape}: blocks/s, runtime / {BARE}", value, _OF_BARE, "at least", "x")
    for shape, memory in figures.memory.items():
        yield Verdict(f"{shape}: memory per 100000 blocks", memory.per_100_000, _MEGABYTES, unit=" MB")
    for shape, seconds in [*figures.scrapes.items(), ("past the mark", figures.loss.scrapes)]:
        yield Verdict(f"{shape}: slowest GET /metrics", 1000 * max(seconds), _SCRAPE_MILLISECONDS, unit=" ms")
    yield Verdict("past the mark: blocks lost for good", figures.loss.missing, 0)
    for trouble, outage in figures.outages.items():
        yield Verdict(f"Redis {trouble}: blocks that differ", outage.missing + outage.surplus, 0)
    yield Verdict("idle CPU", figures.rest.idle.cpu_percent, _IDLE_PERCENT, unit=" %")
    yield Verdict("wake-ups a second", figures.rest.idle.wake_ups, _WAKE_UPS)
    yield Verdict("RSS at start", figures.rest.memory, _MEGABYTES_AT_START, unit=" MB")


if __name__ == "__main__":
    sys.exit(main())
