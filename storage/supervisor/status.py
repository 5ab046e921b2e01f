"""A snapshot of a job, for the API and for observers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storage.errors import StorageError

__all__ = ["FINAL", "JobStatus", "State"]


class State(StrEnum):
    """The state of a job: queued -> running <-> waiting, retrying -> done, failed or cancelled."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    RETRYING = "retrying"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL: Final = frozenset((State.DONE, State.FAILED, State.CANCELLED))


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A snapshot of one job.

    Attributes:
        id: Its id.
        source: The source's URI, without credentials.
        scheme: `hf`, `s3`, `obs` or `pvc`.
        output_dir: The target directory.
        state: Its state.
        created: Unix seconds.
        started: Unix seconds; `None` while queued.
        finished: Unix seconds; `None` until it ends.
        bytes_done: Bytes of the copy that are on disk.
        bytes_planned: Bytes of the whole copy; `None` until they are known.
        bytes_fetched: Bytes that this job fetched or copied.
        files: Files of the copy; `None` until they are known.
        files_done: Complete files.
        rate: Recent bytes per second.
        eta: Seconds to the end at this rate; `None` if unknown.
        current_file: The file that is being fetched.
        revision: The revision that the source was resolved to.
        path: The directory of the published copy; empty until then.
        retries: Retried requests and restarted workers.
        files_removed: Files whose content is gone: removed, or overwritten although they were not an older state of
            the same source (docs/adr/0016).
        removed: The names of the first of them.
        detail: The lock's holder that it waits for, or the reason for a retry.
        error: Why it failed.
    """

    id: str
    source: str
    scheme: str
    output_dir: str
    state: State
    created: float
    started: float | None = None
    finished: float | None = None
    bytes_done: int = 0
    bytes_planned: int | None = None
    bytes_fetched: int = 0
    files: int | None = None
    files_done: int = 0
    rate: float = 0.0
    eta: float | None = None
    current_file: str = ""
    revision: str = ""
    path: str = ""
    retries: int = 0
    files_removed: int = 0
    removed: tuple[str, ...] = ()
    detail: str = ""
    error: StorageError | None = None

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.state in FINAL

    def to_json(self) -> Mapping[str, Any]:
        """Return the JSON form for the HTTP API."""
        values = {name: getattr(self, name) for name in self.__slots__}
        error = {"code": self.error.code, "message": self.error.message} if self.error else None
        return values | {"state": self.state.value, "error": error, "rate": round(self.rate)}
