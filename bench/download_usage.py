"""A command under measurement: its time, its CPU, and the memory of all its processes at their peak."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from threading import Event, Thread
from time import clock_gettime, perf_counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Memory", "Usage", "calm", "children_cpu", "family", "middle", "run", "watched"]

_PAUSE: Final = 0.01
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICK: Final = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED: Final = 2  # linux/posix-timers.h; the rest of a clock's number is the process
# A run during which others took more than this share of a core is made again.
_FOREIGN_CORES: Final = 0.35
_TRIES: Final = 4


@dataclass(frozen=True, slots=True)
class Usage:
    """What one run took.

    Attributes:
        wall: Seconds.
        cpu: CPU seconds of the command and its descendants, user and system.
        tree: Megabytes (10^6 bytes) resident in all of its processes together, at most.
        largest: The same of its largest process.
        server: CPU seconds of the server meanwhile.
        foreign: Cores that nobody of these took.
    """

    wall: float
    cpu: float
    tree: float
    largest: float
    server: float = 0.0
    foreign: float = 0.0


class Memory:
    """The most that a family of processes has had in memory."""

    def __init__(self) -> None:
        self.tree = 0.0
        self.largest = 0.0

    def look(self, pids: Sequence[int]) -> None:
        """Take what they have now."""
        sizes = [size for pid in pids if (size := _resident(pid))]
        self.tree = max(self.tree, sum(sizes))
        self.largest = max(self.largest, *sizes, 0.0)


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    pids = [pid]
    for each in pids:
        with suppress(OSError):  # it may end while one looks
            for children in Path(f"/proc/{each}/task").glob("*/children"):
                pids += map(int, children.read_text().split())
    return pids


def children_cpu(pid: int) -> float:
    """Return the CPU seconds of a process's children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / _TICK


def _resident(pid: int) -> float:
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 1e6
    return 0.0


@contextmanager
def watched(pids: Callable[[], Sequence[int]]) -> Iterator[Memory]:
    """Look at the memory of processes again and again meanwhile."""
    memory, over = Memory(), Event()

    def look() -> None:
        while not over.wait(_PAUSE):
            memory.look(pids())

    thread = Thread(target=look)
    thread.start()
    try:
        yield memory
    finally:
        over.set()
        thread.join()


def run(command: Sequence[str], environment: Mapping[str, str], *, server: int | None = None) -> Usage:
    """Run a command to its end.

    Args:
        command: What to run.
        environment: All of its variables.
        server: The process that serves it, if there is one.

    Raises:
        RuntimeError: It failed; with what it said.
    """
    others = _Others(server)
    started = perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with watched(lambda: family(process.pid)) as memory:
        assert process.stdout
        said = process.stdout.read()  # ends with the last process that could say something
        _, status, used = os.wait4(process.pid, 0)
        wall = perf_counter() - started
    process.stdout.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        message = f"{' '.join(command[:3])} ended with {process.returncode}: {said.decode(errors='replace')[-800:]}"
        raise RuntimeError(message)
    cpu = used.ru_utime + used.ru_stime
    served, foreign = others.since(wall, cpu)
    return Usage(wall, cpu, memory.tree, memory.largest, served, foreign)


def calm(measure: Callable[[], Usage]) -> Usage:
    """Measure while others leave the machine alone: again when they did not, the calmest of a few in the end."""
    tries: list[Usage] = []
    while not tries or (tries[-1].foreign > _FOREIGN_CORES and len(tries) < _TRIES):
        tries.append(measure())
    return min(tries, key=lambda one: one.foreign)


class _Others:
    """The CPU of everybody else."""

    def __init__(self, server: int | None) -> None:
        self._server = server
        self._before = self._now()

    def _now(self) -> tuple[float, float, float]:
        served = clock_gettime((~self._server << 3) | _CPUCLOCK_SCHED) if self._server else 0.0
        own = os.times()
        return _busy(), served, own.user + own.system

    def since(self, wall: float, cpu: float) -> tuple[float, float]:
        """Return the CPU seconds of the server, and the cores that others took."""
        busy, served, own = (now - before for now, before in zip(self._now(), self._before, strict=True))
        return served, max(busy - served - own - cpu, 0.0) / wall


def _busy() -> float:
    user, nice, system, _, _, irq, softirq, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(map(int, (user, nice, system, irq, softirq))) / _TICK


def middle(usages: Sequence[Usage], of: Callable[[Usage], float]) -> float:
    """Return the median of one figure."""
    return median(map(of, usages))
