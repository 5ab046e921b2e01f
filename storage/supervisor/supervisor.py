"""The supervisor: runs a bounded number of downloads concurrently, each in its own worker process.

A worker without progress is killed, and one that died is replaced; the next worker resumes
from disk. The sources' libraries are never imported in this process (docs/adr/0009).
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace
from functools import partial
from threading import Condition, Thread
from time import monotonic
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from storage.errors import BusyError, NotFoundError
from storage.request.source import parse_source
from storage.request.target import check_target
from storage.supervisor.job import Job
from storage.supervisor.limits import Limits
from storage.supervisor.observer import Silent
from storage.supervisor.spawn import COMMAND, start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from storage.request.download import DownloadRequest
    from storage.supervisor.observer import Observer
    from storage.supervisor.status import JobStatus

__all__ = ["Supervisor"]

logger: Final = logging.getLogger(__name__)


class Supervisor:
    """Queues, runs and lists downloads; safe for threads."""

    def __init__(
        self, limits: Limits | None = None, *, observer: Observer | None = None, command: Sequence[str] = COMMAND
    ) -> None:
        """Prepare; no thread or process is started yet.

        Args:
            limits: Limits and the settings of workers.
            observer: Receives every job.
            command: The worker program.
        """
        self._limits = limits or Limits()
        self._observer = observer or Silent()
        self._start = partial(start, command, nice=self._limits.worker_nice)
        # Guards the fields below, and wakes `wait` when a job has ended.
        self._condition = Condition()
        self._jobs: dict[str, Job] = {}
        self._queue: deque[Job] = deque()
        self._running: dict[Job, Thread] = {}
        self._stopped = False

    def submit(self, request: DownloadRequest) -> JobStatus:
        """Queue a download. A request for what an unfinished job does already returns that job.

        Raises:
            UsageError: The source, the directory or a number is invalid.
            BusyError: Too many jobs are queued, or the supervisor has stopped.
        """
        source = parse_source(request.source)
        target = check_target(request.output_dir, self._limits.write_roots)
        request = replace(
            # A read times out before the supervisor considers the worker stalled: the worker can retry first.
            request, output_dir=str(target), write_roots=self._limits.write_roots, follow_parent=True,
            read_timeout=min(max(self._limits.stall_timeout / 3, 0.5), 30.0), memory=self._limits.worker_memory,
        )  # fmt: skip
        with self._condition:
            twin = self._find_twin(request)
            if twin:
                return twin.status()
            if self._stopped or len(self._queue) >= self._limits.queued:
                raise BusyError(f"{len(self._queue)} downloads wait already, try again later")
            job = Job(uuid4().hex[:12], source, request, self._limits, self._observer, self._start)
            self._jobs[job.id] = job
            self._queue.append(job)
            self._start_more()
        return job.status()

    def _find_twin(self, request: DownloadRequest) -> Job | None:
        return next((job for job in self._jobs.values() if job.does(request)), None)

    def _start_more(self) -> None:
        """Start queued jobs while the limit allows it; called with the condition held."""
        while self._queue and len(self._running) < self._limits.jobs and not self._stopped:
            job = self._queue.popleft()
            thread = Thread(target=self._run, args=(job,), name=f"download-{job.id}", daemon=True)
            self._running[job] = thread
            thread.start()

    def _run(self, job: Job) -> None:
        try:
            job.run()
        except Exception:
            logger.exception("the supervision of download %s failed", job.id)
        finally:
            with self._condition:
                # The thread's last act frees its place, whatever happened: the next job must start.
                del self._running[job]
                self._forget_old()
                self._start_more()
                self._condition.notify_all()

    def _forget_old(self) -> None:
        ended = [job for job in self._jobs.values() if job.status().is_final]
        for job in ended[: max(len(ended) - self._limits.remembered, 0)]:
            del self._jobs[job.id]

    def get(self, job_id: str) -> JobStatus:
        """Return the status of a job.

        Raises:
            NotFoundError: There is no such job.
        """
        return self._job(job_id).status()

    def list(self) -> list[JobStatus]:
        """Return the status of all jobs, the oldest first."""
        with self._condition:
            return [job.status() for job in self._jobs.values()]

    def wait(self, job_id: str, timeout: float | None = None) -> JobStatus:
        """Return a job's status when it has ended, or after `timeout` seconds.

        Raises:
            NotFoundError: There is no such job.
        """
        job = self._job(job_id)
        with self._condition:
            self._condition.wait_for(lambda: job.status().is_final, timeout)
        return job.status()

    def cancel(self, job_id: str) -> JobStatus:
        """Cancel a job, without waiting for its end. Bytes that have arrived stay on disk for a later job.

        Raises:
            NotFoundError: There is no such job.
        """
        job = self._job(job_id)
        with self._condition:
            if job in self._queue:
                self._queue.remove(job)
                job.end_before_start()
                self._forget_old()
                self._condition.notify_all()
        job.cancel()
        return job.status()

    def stop(self, timeout: float = 8.0) -> None:
        """Cancel all jobs, and wait for their workers. After `timeout` seconds, the remaining workers are killed."""
        with self._condition:
            self._stopped = True
            waiting, threads = list(self._queue), list(self._running.items())
            self._queue.clear()
        for job in waiting:
            job.end_before_start()
        for job, _ in threads:
            job.cancel()
        deadline = monotonic() + timeout
        for job, thread in threads:
            thread.join(max(deadline - monotonic(), 0.0))
            if thread.is_alive():
                job.kill()
                thread.join(1.0)

    def _job(self, job_id: str) -> Job:
        with self._condition:
            job = self._jobs.get(job_id)
        if job is None:
            raise NotFoundError(f"there is no download {job_id!r}")
        return job
