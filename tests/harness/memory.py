"""The memory of real processes: peaks, proportional shares, and limits by a cgroup.

    with limited(256 * MIB) as group, Runtime(url, group=group) as runtime, Watch(runtime.pid) as watch:
        ...
    assert watch.proportional < 256 * MIB

RLIMIT_AS is no substitute for a cgroup: Python cannot start 24 threads under it.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from simulators.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

__all__ = ["MIB", "Group", "Watch", "family", "limited", "peak", "proportional"]

MIB: Final = 1024 * 1024

_INTERVAL: Final = 0.02
_ROOTS: Final = (  # a memory cgroup's parent folder, and the file that holds its limit: version 1, then version 2
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup/unified"), "memory.max"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)


def peak(pid: int) -> int:
    """Return the most bytes that a process ever had resident (VmHWM)."""
    return _field(Path(f"/proc/{pid}/status"), "VmHWM:")


def proportional(pid: int) -> int:
    """Return the bytes of a process, with its share of what it has in common with others (PSS)."""
    return _field(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")


def family(pid: int) -> list[int]:
    """Return a process and all that it started, and they."""
    found: list[int] = []
    with suppress(OSError):  # it may end while it is looked at
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, _text(children).split())
    return [pid, *(member for child in found for member in family(child))]


class Watch:
    """Looks at a process and its descendants again and again, until it is closed.

    Attributes:
        peaks: VmHWM of each process that was seen, in bytes, by its id.
        proportional: The most bytes that all of them had together (PSS).
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stopping = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self.peaks: dict[int, int] = {}
        self.proportional = 0

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._stopping.wait(_INTERVAL):
            self._look()

    def _look(self) -> None:
        members = family(self._pid)
        for member in members:
            self.peaks[member] = max(self.peaks.get(member, 0), peak(member))
        self.proportional = max(self.proportional, sum(map(proportional, members)))


@dataclass(frozen=True, slots=True)
class Group:
    """A memory cgroup; who exceeds its limit is killed by the kernel."""

    path: Path

    def confine(self, command: list[str]) -> list[str]:
        """Return the command that runs `command` in this group."""
        return ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(self.path), *command]


@contextmanager
def limited(limit: int) -> Iterator[Group | None]:
    """Make a cgroup of `limit` bytes, or yield `None` where this user or container may not make one."""
    path = _make(limit)
    try:
        yield Group(path) if path else None
    finally:
        if path:
            wait_until(lambda: not _text(path / "cgroup.procs").split(), "the group is empty")
            path.rmdir()


def _make(limit: int) -> Path | None:
    for root, name in _ROOTS:
        path = root / f"kthena-{uuid4().hex}"
        try:
            path.mkdir()
        except OSError:
            continue
        try:
            (path / name).write_text(str(limit))
        except OSError:
            path.rmdir()
        else:
            return path
    return None


def _field(path: Path, name: str) -> int:
    """Return a field in kB as bytes; 0 when the process is gone."""
    line = next((line for line in _text(path).splitlines() if line.startswith(name)), "0 0 kB")
    return int(line.split()[1]) * 1024


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text()
    return ""
