"""How much the supervisor takes on."""

from __future__ import annotations

from dataclasses import dataclass

from storage.memory import DEFAULT_MEMORY

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the supervisor takes on.

    Attributes:
        jobs: Workers at once.
        queued: Jobs that may wait for a place.
        remembered: Ended jobs that are still shown.
        stall_timeout: Seconds without progress after which a worker is killed.
        restarts: Workers that may end in vain, one after the other, before the job fails.
        write_roots: Directories that copies must lie in; anywhere when there are none.
        worker_memory: Bytes of memory that a worker may take.
        worker_nice: How far workers step back for the other processes of the container, as in nice(1).
    """

    jobs: int = 2
    queued: int = 32
    remembered: int = 100
    stall_timeout: float = 60.0
    restarts: int = 5
    write_roots: tuple[str, ...] = ()
    worker_memory: int = DEFAULT_MEMORY
    worker_nice: int = 19
