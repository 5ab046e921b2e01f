"""What downloads cost, beside the programs that people download models with.

A real S3 server and a lean one, sets of files like a model's and a LoRA adapter's, and clients that take turns, round after
round; every copy is compared with what was put there. Figures are medians with the least and the most. Client
and server share the machine: the clients are as fast as what the server leaves of it.

    python -m bench.download --quick
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Final

from bench import download_peers, machine, report
from bench.download_measures import IDLE, ROUTE, adapter, model, neighbour, sidecar, volume
from bench.download_peers import AWS, CP, OURS, RCLONE, RSYNC, S5CMD
from bench.download_stage import SEAWEEDFS, Effort, stage
from bench.download_usage import middle
from bench.report import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.download_measures import Calls, Growth
    from bench.download_usage import Usage

__all__ = ["main"]

_LIBRARIES: Final = ("botocore", "urllib3")
_QUICK: Final = Effort(rounds=1, scale=0.02, scrapes=80, downloads=3, careful=False)
_FAST_PEERS: Final = (S5CMD, RCLONE)
_MEMORY: Final = Path("/dev/shm")

_OF_AWS: Final = 0.35
_ADAPTER_OF_AWS: Final = 0.5
_OF_RSYNC: Final = 0.3
_MEGABYTES: Final = 64.0
_P99: Final = 2.0
_GROWTH: Final = 3.0


@dataclass(frozen=True, slots=True)
class Figures:
    """All that is measured; runs by peer, and of the model by the server that it comes from."""

    model: Mapping[str, Mapping[str, Sequence[Usage]]]
    adapter: Mapping[str, Sequence[Usage]]
    volume: Mapping[str, Sequence[Usage]]
    sidecar: Growth
    neighbour: Mapping[str, Calls]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    options = _options(arguments)
    effort = replace(_QUICK if options.quick else Effort(), **({"rounds": options.rounds} if options.rounds else {}))
    missing = download_peers.install()
    place = machine.describe(*_LIBRARIES) | download_peers.versions()
    print(report.listing(place), end="\n\n", flush=True)
    for name, reason in missing.items():
        print(f"{name} cannot be measured: {reason}", end="\n\n", flush=True)
    with stage(effort, options.to, without=list(missing)) as scene:
        figures = Figures(
            model={server: model(scene, server, effort, without=list(missing)) for server in scene.stores},
            adapter=adapter(scene, effort, without=list(missing)),
            volume=volume(scene, effort, without=list(missing)),
            sidecar=sidecar(scene, effort),
            neighbour=neighbour(scene, effort, without=list(missing)),
        )
    verdicts = list(_verdicts(figures))
    for title, table in _tables(figures, effort):
        print(title, table, sep="\n\n", end="\n\n")
    print("Targets", report.verdicts_table(verdicts), sep="\n\n")
    if options.json:
        numbers = {"place": place, "missing": missing, "effort": asdict(effort), **asdict(figures)}
        options.json.write_text(json.dumps(numbers | {"targets": report.facts(verdicts)}, indent=1) + "\n")
    return 1 if options.check and report.missed(verdicts) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.download", description="Measure what downloads cost.")
    parser.add_argument("--quick", action="store_true", help="small files: shows that it works, not what it costs")
    parser.add_argument("--rounds", type=int, help=f"how often they take turns [default {Effort().rounds}, quick 1]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument(
        "--to", type=Path, metavar="DIR", default=_MEMORY if _MEMORY.is_dir() else Path(gettempdir()),
        help="where copies from the store go [default %(default)s]",
    )  # fmt: skip
    return parser.parse_args(arguments)


def _tables(figures: Figures, effort: Effort) -> Iterator[tuple[str, str]]:
    for server, usages in figures.model.items():
        yield f"A model from {server}: 4 files of {500 * effort.scale:g} MB and 20 small ones", _usage_table(usages)
    yield f"An adapter of 20 MB from {SEAWEEDFS}", _usage_table(figures.adapter)
    yield "The model, copied within one file system", _usage_table(figures.volume)
    yield f"GET /metrics {effort.rate:g} times a second meanwhile", _calls_table(figures.neighbour)
    growth = figures.sidecar
    rows = [["RSS before, MB", f"{growth.before:.1f}"], [f"RSS after {effort.downloads}, MB", f"{growth.after:.1f}"]]
    yield "The runtime, and adapters one after the other", report.table(["", "runtime"], rows)


def _usage_table(peers: Mapping[str, Sequence[Usage]]) -> str:
    ours = _wall(peers[OURS])
    columns: list[tuple[str, Callable[[Usage], float], int]] = [
        ("CPU s", lambda one: one.cpu, 2),
        ("server CPU s", lambda one: one.server, 2),
        ("RSS of all, MB", lambda one: one.tree, 0),
        ("of the largest, MB", lambda one: one.largest, 0),
    ]
    rows = [
        [
            name,
            f"{_wall(runs):.3f} [{min(one.wall for one in runs):.3f} to {max(one.wall for one in runs):.3f}]",
            *(f"{middle(runs, of):.{digits}f}" for _, of, digits in columns),
            f"{ours / _wall(runs):.2f}",
        ]
        for name, runs in peers.items()
    ]
    return report.table(["peer", "seconds", *(title for title, _, _ in columns), f"{OURS} / it"], rows)


def _calls_table(calls: Mapping[str, Calls]) -> str:
    idle = calls[IDLE].p99
    rows = [
        [name, f"{one.count}", *(f"{1000 * s:.2f}" for s in (one.middle, one.p99)), f"{one.p99 / idle:.2f}"]
        for name, one in calls.items()
    ]
    return report.table(["meanwhile", "scrapes", "median ms", "p99 ms", "p99 / idle"], rows)


def _wall(runs: Sequence[Usage]) -> float:
    return middle(runs, lambda one: one.wall)


def _verdicts(figures: Figures) -> Iterator[Verdict]:
    for server, usages in figures.model.items():
        yield from _model_verdicts(server, usages)
    if AWS in figures.adapter:
        value = _wall(figures.adapter[ROUTE]) / _wall(figures.adapter[AWS])
        yield Verdict(f"adapter: seconds, {ROUTE} / {AWS}", value, _ADAPTER_OF_AWS, unit="x")
    copies = figures.volume
    yield Verdict(f"volume: seconds, {OURS} / {CP}", _wall(copies[OURS]) / _wall(copies[CP]), 1.0, unit="x")
    if RSYNC in copies:
        value = _wall(copies[OURS]) / _wall(copies[RSYNC])
        yield Verdict(f"volume: seconds, {OURS} / {RSYNC}", value, _OF_RSYNC, unit="x")
    calls = list(figures.neighbour.values())
    yield Verdict("GET /metrics: p99, downloading / idle", calls[1].p99 / calls[0].p99, _P99, unit="x")
    growth = abs(figures.sidecar.after - figures.sidecar.before)
    yield Verdict("the runtime's RSS, before and after downloads", growth, _GROWTH, unit=" MB")


def _model_verdicts(server: str, usages: Mapping[str, Sequence[Usage]]) -> Iterator[Verdict]:
    ours = _wall(usages[OURS])
    fast = [name for name in _FAST_PEERS if name in usages]
    if fast:
        fastest = min(fast, key=lambda name: _wall(usages[name]))
        yield Verdict(f"model from {server}: seconds, {OURS} / {fastest}", ours / _wall(usages[fastest]), 1.0, unit="x")
    if AWS in usages:
        yield Verdict(f"model from {server}: seconds, {OURS} / {AWS}", ours / _wall(usages[AWS]), _OF_AWS, unit="x")
    memory = middle(usages[OURS], lambda one: one.tree)
    yield Verdict(f"model from {server}: RSS of all processes", memory, _MEGABYTES, unit=" MB")


if __name__ == "__main__":
    sys.exit(main())
