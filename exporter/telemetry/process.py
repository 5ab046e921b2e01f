"""Metrics of the runtime's process, read from /proc.

    kthena_runtime_process_resident_memory_bytes 41000000.0
    kthena_runtime_process_cpu_seconds_total 1.27
    kthena_runtime_process_open_fds 19.0

prometheus_client's ProcessCollector has the same values. It takes 93 µs per scrape,
as long as checking a small page (docs/adr/0003).
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Final

from exporter.telemetry.names import PROCESS

__all__ = ["ProcessFigures"]

# In the order of the values in `read`.
_NAMES: Final = tuple(metric.name for metric in PROCESS)
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_STAT_BYTES: Final = 2048
# Indexes into the fields of /proc/self/stat behind the name in brackets; the first is field 3 in proc(5).
_UTIME, _STIME, _START, _VSIZE, _RSS = 11, 12, 19, 20, 21


class ProcessFigures:
    """Reads the values at each scrape; returns none on a system without /proc."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        """Read the start time, which does not change."""
        self._stat = str(proc / "self" / "stat")
        self._fds = str(proc / "self" / "fd")
        self._start = self._start_time(proc / "stat")

    def read(self) -> dict[str, float]:
        """Return the values by metric name; empty if /proc cannot be read."""
        try:
            fields = self._fields()
            open_fds = len(os.listdir(self._fds))  # noqa: PTH208 - a third of the time of iterdir
        except OSError:
            return {}
        values = (
            float(fields[_VSIZE]),
            float(int(fields[_RSS]) * _PAGE_BYTES),
            self._start,
            (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS,
            float(open_fds),
            float(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        )
        return dict(zip(_NAMES, values, strict=True))

    def _fields(self) -> list[bytes]:
        # Plain system calls: a file object costs as much as everything else here.
        descriptor = os.open(self._stat, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # The name in brackets may itself contain blanks and brackets: the last bracket ends it.
            return os.read(descriptor, _STAT_BYTES).rpartition(b")")[2].split()
        finally:
            os.close(descriptor)

    def _start_time(self, system: Path) -> float:
        try:
            boot = next(line for line in system.read_bytes().splitlines() if line.startswith(b"btime "))
            started = self._fields()[_START]
        except (OSError, StopIteration):
            return 0.0
        return float(boot.split()[1]) + int(started) / _TICKS
