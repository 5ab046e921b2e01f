"""The memory of a worker: a limit of its own, below the container's.

The kernel kills a container that takes too much, and with it the scrapes of the
runtime. A worker that reaches its own limit gets a MemoryError instead, and says so.

RLIMIT_DATA counts what a process may write to, whether it has done so or not:
heap, buffers, and the stacks of threads, which are kept small for that reason.
"""

from __future__ import annotations

import errno
import re
import resource
import threading
from contextlib import suppress
from typing import Final

__all__ = ["DEFAULT_MEMORY", "confine", "is_exhaustion", "memory_size", "release"]

MIB: Final = 1 << 20
# Two of them and the runtime fit into 256 MiB: code that they share is counted once.
DEFAULT_MEMORY: Final = 80 * MIB
LEAST_MEMORY: Final = 64 * MIB
# What musl gives to a thread, twice. No worker thread recurses.
STACK_BYTES: Final = 256 << 10
_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def memory_size(text: str) -> int:
    """Return a memory limit: a number of bytes, or one with a suffix such as Mi.

    Raises:
        ValueError: It is none, or too small for any download.
    """
    match = re.fullmatch(r"(\d{1,18})\s*([kmg]i?)?b?", text.strip().lower())
    size = int(match[1]) * _UNITS[match[2] or ""] if match else 0
    if size < LEAST_MEMORY:
        raise ValueError(f"must be a size of at least {LEAST_MEMORY // MIB}Mi, such as {DEFAULT_MEMORY // MIB}Mi")
    return size


def confine(limit: int) -> None:
    """Take no more than `limit` bytes from now on; threads that start later have small stacks."""
    threading.stack_size(STACK_BYTES)
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
    with suppress(OSError):  # where it is forbidden, the container's limit is the only one
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def release() -> None:
    """Lift the limit, so that a worker that has reached it can say so."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    with suppress(OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def is_exhaustion(error: BaseException) -> bool:
    """Whether an error means that there is no memory left; for a thread, Python has an error of another class."""
    is_full = isinstance(error, OSError) and error.errno == errno.ENOMEM
    no_thread = isinstance(error, RuntimeError) and "start new thread" in str(error)
    return isinstance(error, MemoryError) or is_full or no_thread
