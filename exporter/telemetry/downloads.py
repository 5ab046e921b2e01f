"""What the runtime says about downloads: the observer of `storage.supervisor.supervisor`."""

from __future__ import annotations

from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Final

from exporter.telemetry import names
from exporter.telemetry.instruments import Histogram, Value
from storage.supervisor.status import FINAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exporter.page.family import TextFamily
    from exporter.telemetry.volumes import Usage, Volumes
    from storage.supervisor.status import JobStatus

__all__ = ["DownloadTelemetry"]

SCHEMES: Final = ("hf", "s3", "obs", "pvc")
OUTCOMES: Final = tuple(sorted(state.value for state in FINAL))
_BUCKETS: Final = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0)


class DownloadTelemetry:
    """Counters of jobs and bytes, and gauges of those that run."""

    def __init__(self, volumes: Volumes, write_roots: Sequence[str] = ()) -> None:
        """Start everything at 0; `volumes` measures the write roots, or the directories of running jobs without any."""
        self._volumes = volumes
        self._write_roots = write_roots
        self._lock = Lock()
        self._running: dict[str, JobStatus] = {}
        self._outcomes = Value(names.DOWNLOADS)
        self._bytes = Value(names.DOWNLOAD_BYTES)
        self._duration = Histogram(names.DOWNLOAD_DURATION, _BUCKETS)
        self._retries = Value(names.DOWNLOAD_RETRIES)
        for scheme in SCHEMES:
            self._bytes.add(scheme, amount=0)
            self._duration.make(scheme)
            for outcome in OUTCOMES:
                self._outcomes.add(scheme, outcome, amount=0)

    def download_started(self, job: JobStatus) -> None:
        """Note a job."""
        with self._lock:
            self._running[job.id] = job
            self._follow()

    def download_progress(self, job: JobStatus, fetched: int) -> None:
        """Count bytes."""
        self._bytes.add(job.scheme, amount=fetched)
        with self._lock:
            if job.id in self._running:
                self._running[job.id] = job

    def download_retry(self, job: JobStatus, reason: str) -> None:
        """Count another try."""
        self._retries.add(job.scheme, reason)

    def download_finished(self, job: JobStatus) -> None:
        """Count an end."""
        with self._lock:
            self._running.pop(job.id, None)
            self._follow()
        self._outcomes.add(job.scheme, job.state.value)
        if job.started is not None and job.finished is not None:
            self._duration.observe(job.scheme, value=job.finished - job.started)

    def _follow(self) -> None:
        if not self._write_roots:
            self._volumes.follow({job.output_dir for job in self._running.values()})

    def families(self) -> list[TextFamily]:
        """Return the families as they are now."""
        with self._lock:
            running = tuple(self._running.values())
        jobs = _job_families(tuple((job.id, job.scheme, job.bytes_planned, job.bytes_done) for job in running))
        kept = (self._outcomes, self._bytes, self._duration, self._retries)
        return [*jobs, *(each.family() for each in (*kept, *_storage(self._volumes.usages())))]


@lru_cache(maxsize=4)  # mostly there is none
def _job_families(jobs: tuple[tuple[str, str, int | None, int], ...]) -> tuple[TextFamily, ...]:
    in_progress = Value(names.DOWNLOADS_IN_PROGRESS)
    for scheme in SCHEMES:
        in_progress.add(scheme, amount=0)
    expected, completed = Value(names.DOWNLOAD_EXPECTED_BYTES), Value(names.DOWNLOAD_COMPLETED_BYTES)
    for download, scheme, planned, done in jobs:
        in_progress.add(scheme)
        if planned is not None:
            expected.set(download, value=float(planned))
        completed.set(download, value=float(done))
    return in_progress.family(), expected.family(), completed.family()


def _storage(usages: Mapping[str, Usage]) -> tuple[Value, Value]:
    free, size = Value(names.STORAGE_FREE), Value(names.STORAGE_SIZE)
    for root, usage in usages.items():
        free.set(root, value=float(usage.free))
        size.set(root, value=float(usage.total))
    return free, size
