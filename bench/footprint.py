"""What the runtime costs when nobody scrapes: start, memory, idle CPU, wake-ups, imports.

The pass-through is measured beside it: it is what the same stack costs without
a runtime in it.

    python -m bench.footprint --quick
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Final

from bench import machine, peers, report
from bench.peers import PASS_THROUGH, RUNTIME, Peer
from bench.report import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from bench.process import Process

__all__ = ["Idle", "idle", "main"]

PAGE: Final = "/medium"

# Libraries that have no place in a sidecar: downloads run in processes of their
# own, Redis and ZeroMQ come with KV events.
UNWANTED: Final = frozenset(
    {"aiohttp", "boto3", "botocore", "fastapi", "hf_xet", "httpx", "huggingface_hub", "numpy", "pydantic", "redis",
     "s3transfer", "torch", "tqdm", "transformers", "uvicorn", "zmq"}
)  # fmt: skip
_IMPORTED: Final = re.compile(r"^import time:\s+\d+ \|\s+\d+ \|\s+(\S+)$", re.MULTILINE)

_READY_SECONDS: Final = 0.35
_MEGABYTES_AT_START: Final = 45.0
_MEGABYTES_AFTER: Final = 55.0
_IDLE_PERCENT: Final = 0.1
_WAKE_UPS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done to measure."""

    starts: int = 10
    scrapes: int = 2000
    idle_seconds: float = 30.0


_QUICK: Final = Effort(starts=2, scrapes=50, idle_seconds=2.0)


@dataclass(frozen=True, slots=True)
class Idle:
    """A while in which nobody asks for anything."""

    cpu_percent: float
    wake_ups: float


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one program takes.

    Attributes:
        ready: Median seconds from exec to the first 200 on /health.
        cpu: Median CPU seconds until then.
        memory: Resident megabytes (10^6 bytes) at start.
        memory_after: The same after the scrapes.
        threads: Their number after the scrapes.
        fresh: Idle before the first scrape.
        used: Idle after the last one.
    """

    ready: float
    cpu: float
    memory: float = 0.0
    memory_after: float = 0.0
    threads: int = 0
    fresh: Idle = Idle(0.0, 0.0)
    used: Idle = Idle(0.0, 0.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    options = _options(arguments)
    effort = _QUICK if options.quick else Effort()
    place = machine.describe()
    print(report.listing(place), end="\n\n", flush=True)
    with peers.engine([PAGE.removeprefix("/")]) as engine:
        engine.wait_for("/health")
        footprints = _run(_start(engine.port, effort.starts), engine, effort)
        imported = _imported(engine)
    verdicts = list(_verdicts(footprints[RUNTIME], imported))
    print(_table(footprints, effort), end="\n\n")
    print(f"The runtime imports {len(imported)} modules.", end="\n\n")
    print("Targets", report.verdicts_table(verdicts), sep="\n\n")
    if options.json:
        numbers = {
            "place": place,
            "footprints": {name: asdict(footprint) for name, footprint in footprints.items()},
            "modules": len(imported),
            "targets": report.facts(verdicts),
        }
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")
    return 1 if options.check and report.missed(verdicts) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.footprint", description="Measure what the runtime takes.")
    parser.add_argument("--quick", action="store_true", help="a short look: shows that it works, not what it takes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    return parser.parse_args(arguments)


def _start(engine_port: int, times: int) -> dict[str, Footprint]:
    """Start the programs in turns, and once before that: it fills caches of files."""
    seen: dict[str, list[tuple[float, float]]] = {RUNTIME: [], PASS_THROUGH: []}
    for number in range(times + 1):
        for name, starts in seen.items():
            program = peers.program(name, engine_port, PAGE)
            started = perf_counter()
            with program as process:
                process.wait_for("/health")
                ready, cpu = perf_counter() - started, process.cpu()
            if number:
                starts.append((ready, cpu))
    return {
        name: Footprint(median(ready for ready, _ in starts), median(cpu for _, cpu in starts))
        for name, starts in seen.items()
    }


def _run(footprints: Mapping[str, Footprint], engine: Process, effort: Effort) -> dict[str, Footprint]:
    """Take what running programs have, before and after some scrapes."""
    with ExitStack() as running:
        programs = {name: running.enter_context(peers.program(name, engine.port, PAGE)) for name in footprints}
        for process in programs.values():
            process.wait_for("/health")
        memory = {name: _memory(process) for name, process in programs.items()}
        fresh = idle(programs, effort.idle_seconds)
        for name, process in programs.items():
            _scrape(Peer(name, process), effort.scrapes)
        memory_after = {name: _memory(process) for name, process in programs.items()}
        used = idle(programs, effort.idle_seconds)
        return {
            name: replace(
                footprints[name],
                memory=memory[name],
                memory_after=memory_after[name],
                threads=process.threads(),
                fresh=fresh[name],
                used=used[name],
            )
            for name, process in programs.items()
        }


def _memory(process: Process) -> float:
    return process.resident() / 1e6


def idle(programs: Mapping[str, Process], seconds: float) -> dict[str, Idle]:
    """Leave all programs alone at the same time."""
    sleep(1)  # what the last request left to do
    before = {name: (process.cpu(), process.switches(), perf_counter()) for name, process in programs.items()}
    sleep(seconds)
    idle = {}
    for name, process in programs.items():
        cpu, switches, started = before[name]
        passed = perf_counter() - started
        idle[name] = Idle(100 * (process.cpu() - cpu) / passed, (process.switches() - switches) / passed)
    return idle


def _scrape(peer: Peer, times: int) -> None:
    peer.check()
    with peer.scraper() as scraper:
        for _ in range(times):
            scraper.scrape()


def _imported(engine: Process) -> list[str]:
    """Return the modules that a runtime has imported by the end of its first scrape."""
    with peers.program(RUNTIME, engine.port, PAGE, {"PYTHONPROFILEIMPORTTIME": "1"}) as process:
        process.wait_for("/health")
        _scrape(Peer(RUNTIME, process), 1)
        return _IMPORTED.findall(process.log())


def _table(footprints: Mapping[str, Footprint], effort: Effort) -> str:
    rows: list[tuple[str, Callable[[Footprint], str]]] = [
        ("exec to ready, s", lambda one: f"{one.ready:.3f}"),
        ("CPU until ready, s", lambda one: f"{one.cpu:.3f}"),
        ("RSS at start, MB", lambda one: f"{one.memory:.1f}"),
        (f"RSS after {effort.scrapes} medium scrapes, MB", lambda one: f"{one.memory_after:.1f}"),
        ("threads", lambda one: f"{one.threads}"),
        ("idle CPU before any scrape, %", lambda one: f"{one.fresh.cpu_percent:.3f}"),
        ("idle CPU after the scrapes, %", lambda one: f"{one.used.cpu_percent:.3f}"),
        ("wake-ups/s before any scrape", lambda one: f"{one.fresh.wake_ups:.1f}"),
        ("wake-ups/s after the scrapes", lambda one: f"{one.used.wake_ups:.1f}"),
    ]
    cells = [[what, *(text(one) for one in footprints.values())] for what, text in rows]
    return report.table(["", *footprints], cells)


def _verdicts(one: Footprint, imported: Iterable[str]) -> Iterator[Verdict]:
    unwanted = sorted(UNWANTED.intersection(name.partition(".")[0] for name in imported))
    yield Verdict("exec to ready", one.ready, _READY_SECONDS, unit=" s")
    yield Verdict("RSS at start", one.memory, _MEGABYTES_AT_START, unit=" MB")
    yield Verdict("RSS after the scrapes", one.memory_after, _MEGABYTES_AFTER, unit=" MB")
    yield Verdict("idle CPU", max(one.fresh.cpu_percent, one.used.cpu_percent), _IDLE_PERCENT, unit=" %")
    yield Verdict("wake-ups a second", max(one.fresh.wake_ups, one.used.wake_ups), _WAKE_UPS)
    yield Verdict(f"unwanted imports {', '.join(unwanted)}".strip(), len(unwanted), 0)


if __name__ == "__main__":
    sys.exit(main())
