"""The interface through which telemetry receives downloads: storage itself imports no prometheus_client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from storage.supervisor.status import JobStatus

__all__ = ["Observer", "Silent"]


class Observer(Protocol):
    """Receives every job, for metrics. Called from the jobs' threads; implementations must not block or raise."""

    def download_started(self, job: JobStatus) -> None:
        """A job's first worker starts."""

    def download_progress(self, job: JobStatus, fetched: int) -> None:
        """`fetched` more bytes arrived; `job` has the totals."""

    def download_retry(self, job: JobStatus, reason: str) -> None:
        """A request is retried, or a worker is restarted (`reason` is `stalled` or `died`)."""

    def download_finished(self, job: JobStatus) -> None:
        """A job ended; its state says how. Also called for jobs that never started."""


class Silent:
    """An observer that ignores everything."""

    def download_started(self, job: JobStatus) -> None:
        """Ignore it."""

    def download_progress(self, job: JobStatus, fetched: int) -> None:
        """Ignore it."""

    def download_retry(self, job: JobStatus, reason: str) -> None:
        """Ignore it."""

    def download_finished(self, job: JobStatus) -> None:
        """Ignore it."""
