"""A worker's own memory limit, below the container's (docs/adr/0017).

The kernel kills a container that exceeds its limit, and with it the runtime's scrapes. A
worker that reaches its own limit gets a MemoryError instead, and reports `out_of_memory`.

RLIMIT_DATA counts memory that a process may write to, used or not: heap, buffers and
thread stacks. For that reason stacks are kept small. RLIMIT_AS is of no use: it counts
address space, of which Python and its threads reserve far more than they use.
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
# Two workers and the runtime fit into a container of 256 MiB: shared code counts once.
DEFAULT_MEMORY: Final = 80 * MIB
LEAST_MEMORY: Final = 64 * MIB
# Twice the default of musl; glibc reserves 8 MiB. No worker thread recurses.
STACK_BYTES: Final = 256 << 10
_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def memory_size(text: str) -> int:
    """Parse a memory limit: a number of bytes, optionally with a suffix such as Mi.

    Raises:
        ValueError: The text is not a size, or the size is too small for any download.
    """
    match = re.fullmatch(r"(\d{1,18})\s*([kmg]i?)?b?", text.strip().lower())
    size = int(match[1]) * _UNITS[match[2] or ""] if match else 0
    if size < LEAST_MEMORY:
        raise ValueError(f"must be a size of at least {LEAST_MEMORY // MIB}Mi, such as {DEFAULT_MEMORY // MIB}Mi")
    return size


def confine(limit: int) -> None:
    """Limit this process to `limit` bytes, and the stacks of threads that start later."""
    threading.stack_size(STACK_BYTES)
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
    with suppress(OSError):  # where setrlimit is forbidden, only the container's limit remains
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def release() -> None:
    """Lift the limit: a worker that has reached it needs memory to release its lock and report the error."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    with suppress(OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def is_exhaustion(error: BaseException) -> bool:
    """Whether an error means that memory is exhausted.

    Python raises a RuntimeError, not a MemoryError, if a thread cannot start.
    """
    is_full = isinstance(error, OSError) and error.errno == errno.ENOMEM
    no_thread = isinstance(error, RuntimeError) and "start new thread" in str(error)
    return isinstance(error, MemoryError) or is_full or no_thread
