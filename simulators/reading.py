"""What a test wants to know of a metrics page, or of a process."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["family_names", "peak_memory", "resident_memory", "samples"]


def samples(page: str) -> dict[str, float]:
    """Return the value of each series of a page without timestamps; none has two."""
    pairs = {tuple(line.rsplit(" ", 1)) for line in page.splitlines() if line.strip() and not line.startswith("#")}
    found = {series: float(value) for series, value in pairs}
    assert len(found) == len(pairs), "a series with two values"
    return found


def family_names(page: str) -> list[str]:
    """Return the names in the TYPE lines, in order."""
    return re.findall(r"^# TYPE (\S+)", page, re.MULTILINE)


def peak_memory(pid: int) -> int:
    """Return the most bytes that were ever resident."""
    return _status(pid, "VmHWM")


def resident_memory(pid: int) -> int:
    """Return the bytes that are resident now."""
    return _status(pid, "VmRSS")


def _status(pid: int, field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found, field
    return int(found[1]) * 1024
