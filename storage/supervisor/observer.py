"""Who is told of downloads: telemetry, in the runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from storage.supervisor.status import JobStatus

__all__ = ["Observer", "Silent"]


class Observer(Protocol):
    """Told of every job, for metrics; called from the jobs' threads, must not block or raise."""

    def download_started(self, job: JobStatus) -> None:
        """A job's first worker starts."""

    def download_progress(self, job: JobStatus, fetched: int) -> None:
        """`fetched` more bytes came; `job` has the totals."""

    def download_retry(self, job: JobStatus, reason: str) -> None:
        """A request is made again, or (`stalled`, `died`) a worker is started again."""

    def download_finished(self, job: JobStatus) -> None:
        """A job ended; its state says how. Also told of jobs that never started."""


class Silent:
    """An observer that nobody listens to."""

    def download_started(self, job: JobStatus) -> None:
        """Do nothing."""

    def download_progress(self, job: JobStatus, fetched: int) -> None:
        """Do nothing."""

    def download_retry(self, job: JobStatus, reason: str) -> None:
        """Do nothing."""

    def download_finished(self, job: JobStatus) -> None:
        """Do nothing."""
