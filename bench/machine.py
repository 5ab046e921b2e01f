"""What the numbers were taken on: without it they say nothing."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Final

__all__ = ["describe"]

_LIBRARIES: Final = ("falcon", "waitress", "requests", "prometheus-client", "msgspec", "kthena-runtime")


def describe(*libraries: str) -> dict[str, str]:
    """Return the machine, the Python and the libraries, some of them besides, each as a short text."""
    return {
        "machine": f"{os.cpu_count()} cores, {_processor()}, {_memory():.0f} GB, Linux {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **{name: version(name) for name in (*_LIBRARIES, *libraries)},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
