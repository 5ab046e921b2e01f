"""The supervisor's limits."""

from __future__ import annotations

from dataclasses import dataclass

from storage.memory import DEFAULT_MEMORY

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The supervisor's limits and the settings of its workers.

    Attributes:
        jobs: Concurrent workers.
        queued: Jobs that may be queued.
        remembered: Ended jobs that are still listed.
        stall_timeout: Seconds without progress after which a worker is killed.
        restarts: Consecutive restarts without progress before the job fails.
        write_roots: Copies must be in one of these directories; no restriction if empty.
        worker_memory: Memory limit of a worker in bytes.
        worker_nice: CPU niceness of workers, as in nice(1): scrapes go first.
    """

    jobs: int = 2
    queued: int = 32
    remembered: int = 100
    stall_timeout: float = 60.0
    restarts: int = 5
    write_roots: tuple[str, ...] = ()
    worker_memory: int = DEFAULT_MEMORY
    worker_nice: int = 19
