"""What a job looks like from outside, at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storage.errors import StorageError

__all__ = ["FINAL", "JobStatus", "State"]


class State(StrEnum):
    """Where a job is: queued -> running <-> waiting, retrying -> done, failed or cancelled."""

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
    """One job.

    Attributes:
        id: Its name.
        source: The source's URI; no credentials are in it.
        scheme: `hf`, `s3`, `obs` or `pvc`.
        output_dir: Where the copy goes.
        state: Where it is.
        created: Unix seconds.
        started: Unix seconds; `None` while queued.
        finished: Unix seconds; `None` before its end.
        bytes_done: Bytes of the copy that are there.
        bytes_planned: Bytes of the copy; `None` before they are known.
        bytes_fetched: Bytes that came over the network, or were copied, for this job.
        files: Files of the copy; `None` before they are known.
        files_done: Files that are whole.
        rate: Bytes a second, of late.
        eta: Seconds to the end at this rate; `None` when nobody can tell.
        current_file: What is fetched just now.
        revision: What the source was resolved to.
        path: The directory that has the copy; empty before the end.
        retries: Requests made again, and workers started again.
        files_removed: Files that were there and whose content is gone: removed, or overwritten though they were not
            an older state of the same source.
        removed: The names of the first of them.
        detail: Whom it waits for, or why it tries again.
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
        """Whether nothing will change any more."""
        return self.state in FINAL

    def to_json(self) -> Mapping[str, Any]:
        """Return what the HTTP API says of it."""
        values = {name: getattr(self, name) for name in self.__slots__}
        error = {"code": self.error.code, "message": self.error.message} if self.error else None
        return values | {"state": self.state.value, "error": error, "rate": round(self.rate)}
