"""Metrics of downloads: the observer of `storage.supervisor.supervisor`."""

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
    """Metrics of downloads; safe for threads.

        kthena_runtime_downloads_in_progress{scheme="hf"} 1.0
        kthena_runtime_download_expected_bytes{download="..."} 2100000000.0
        kthena_runtime_download_completed_bytes{download="..."} 1300000000.0
        kthena_runtime_downloads_total{scheme="s3",outcome="done"} 3.0
        kthena_runtime_download_bytes_total{scheme="hf"} 1300000000.0
        kthena_runtime_download_duration_seconds_bucket{scheme="s3",le="60.0"} 2.0
        kthena_runtime_download_retries_total{scheme="hf",reason="..."} 1.0
        kthena_runtime_storage_free_bytes{root="/models"} 50000000000.0
        kthena_runtime_storage_size_bytes{root="/models"} 100000000000.0

    The two gauges with a `download` label exist only while the download runs.
    """

    def __init__(self, volumes: Volumes, write_roots: Sequence[str] = ()) -> None:
        """Start every series with known label values at 0.

        Args:
            volumes: Measures file systems.
            write_roots: The directories to measure. Without them, the output
                directories of running downloads are measured; this class then
                tells `volumes` which ones.
        """
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
        """Count a download as in progress."""
        with self._lock:
            self._running[job.id] = job
            self._follow()

    def download_progress(self, job: JobStatus, fetched: int) -> None:
        """Count `fetched` more bytes, and keep the newest status."""
        self._bytes.add(job.scheme, amount=fetched)
        with self._lock:
            # Progress that is reported after the end must not bring the download back.
            if job.id in self._running:
                self._running[job.id] = job

    def download_retry(self, job: JobStatus, reason: str) -> None:
        """Count a request or a worker that was started again."""
        self._retries.add(job.scheme, reason)

    def download_finished(self, job: JobStatus) -> None:
        """Count a finished download by outcome, and its duration if it ever started."""
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
        """Return the families with their current values."""
        with self._lock:
            running = tuple(self._running.values())
        jobs = _job_families(tuple((job.id, job.scheme, job.bytes_planned, job.bytes_done) for job in running))
        kept = (self._outcomes, self._bytes, self._duration, self._retries)
        return [*jobs, *(each.family() for each in (*kept, *_storage(self._volumes.usages())))]


@lru_cache(maxsize=4)  # usually no download runs, and the text stays the same
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
