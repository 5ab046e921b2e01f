"""One job: runs its worker, restarts the worker if that may help, and keeps the job's status."""

from __future__ import annotations

import logging
import signal
from collections import deque
from dataclasses import replace
from random import random
from threading import Event
from time import monotonic, time
from typing import TYPE_CHECKING, Any, ClassVar, Final

from storage.errors import CancelledError, StalledError, StorageError, WorkerError, clipped, listed, of_code
from storage.request.limits import NAMED
from storage.request.retries import Retry
from storage.supervisor.spawn import start as start_worker
from storage.supervisor.status import JobStatus, State
from storage.supervisor.worker_process import Stalled, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from storage.request.download import DownloadRequest
    from storage.request.source import Source
    from storage.supervisor.limits import Limits
    from storage.supervisor.observer import Observer
    from storage.supervisor.spawn import Start

__all__ = ["Job"]

logger: Final = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 30.0
# Characters of removed files' names that the status remembers.
NAMED_LETTERS: Final = 4096
# Seconds over which the rate is averaged.
RATE_SECONDS: Final = 10.0


class Job:
    """A supervised download. One thread calls `run`; any thread may call the other methods."""

    def __init__(
        self,
        job_id: str,
        source: Source,
        request: DownloadRequest,
        limits: Limits,
        observer: Observer,
        start: Start = start_worker,
        on_event: Callable[[Mapping[str, Any]], None] = lambda _event: None,
    ) -> None:
        self.id = job_id
        self._request: DownloadRequest | None = request  # dropped at the end: ended jobs are kept
        self._limits = limits
        self._observer = observer
        self._start = start
        self._on_event = on_event
        self._cancelled = Event()
        self._worker: WorkerProcess | None = None
        self._fetched_before = 0
        self._base = 0
        self._most = 0
        self._marks: deque[tuple[float, int]] = deque()
        self._status = JobStatus(job_id, source.uri, source.scheme, request.output_dir, State.QUEUED, time())

    def status(self) -> JobStatus:
        """Return the current status, also while the job runs."""
        return self._status

    def does(self, request: DownloadRequest) -> bool:
        """Whether this job has not ended and does what a request asks for."""
        mine = self._request
        if mine is None or self._status.is_final or self._cancelled.is_set():
            return False
        # A running worker may have listed the source before this request was made.
        if request.fresh and self._status.started is not None:
            return False
        names = ("output_dir", "action", "include", "exclude", "config", "replace", "by_content")
        same_source = mine.source.strip().removeprefix("hf://") == request.source.strip().removeprefix("hf://")
        return same_source and all(getattr(mine, name) == getattr(request, name) for name in names)

    def run(self) -> None:
        """Run workers until the job has ended; the status has the outcome."""
        self._change(state=State.RUNNING, started=time())
        self._observer.download_started(self._status)
        error: StorageError | None = WorkerError("the worker could not be followed to its end")
        try:
            error = self._run_workers()
        finally:
            self._end(error)

    def _run_workers(self) -> StorageError | None:
        in_vain = 0
        while True:
            before = self._most
            error, again = self._run_worker()
            # A worker that finished in spite of a cancellation has succeeded.
            if not again or self._cancelled.is_set():
                return _cancelled() if self._cancelled.is_set() and error else error
            # Only progress beyond the furthest point so far counts. A worker that fetches lost bytes again has not
            # progressed.
            in_vain = 0 if self._most > before else in_vain + 1
            if in_vain > self._limits.restarts:
                return error
            reason = Retry.STALLED if isinstance(error, StalledError) else Retry.DIED
            self._change(state=State.RETRYING, retries=self._status.retries + 1, detail=str(error))
            self._observer.download_retry(self._status, reason)
            logger.warning("download %s of %s: %s; it goes on with a new worker", self.id, self._status.source, error)
            pause = min(FIRST_PAUSE_SECONDS * 2**in_vain, LONGEST_PAUSE_SECONDS)
            # A random part, so that jobs which failed together do not restart together.
            self._cancelled.wait(pause * (0.5 + random() / 2))

    def _run_worker(self) -> tuple[StorageError | None, bool]:
        """Run one worker to its end; return its error, and whether a restart may help."""
        assert self._request is not None  # noqa: S101 - the job has not ended
        try:
            process = self._start()
        except OSError as failure:
            return WorkerError(f"the worker cannot be started: {failure.strerror}"), False
        worker = WorkerProcess(process, self._request, stall_timeout=self._limits.stall_timeout)
        # Published before the check: a `cancel` in between either finds the worker here, or sets the flag in time.
        self._worker = worker
        if self._cancelled.is_set():
            worker.terminate()
        ending: dict[str, Any] | None = None
        try:
            for event in worker.events():
                self._take(event)
                if event["event"] in ("done", "failed"):
                    ending = event
        except Stalled:
            seconds = self._limits.stall_timeout
            return StalledError(f"{self._status.source} stalled: no byte for {seconds:g} s"), True
        finally:
            self._worker = None
            code = worker.close()
        if ending is None:
            return WorkerError(_ending_text(code)), True
        # The worker retries by itself what a retry can fix, so its own verdict is final.
        if ending["event"] == "failed":
            return of_code(str(ending.get("code")), str(ending.get("message"))), False
        return None, False

    def _take(self, event: Mapping[str, Any]) -> None:
        self._on_event(event)
        handle = self._HANDLERS.get(event["event"])
        if handle:
            handle(self, event)

    def _on_waiting(self, event: Mapping[str, Any]) -> None:
        self._change(state=State.WAITING, detail=clipped(f"waits for {event.get('holder')}, who has the directory"))

    def _on_planned(self, event: Mapping[str, Any]) -> None:
        # A restarted worker plans again: its counts start from what is on disk now.
        self._fetched_before = self._status.bytes_fetched
        self._base = int(event.get("kept_bytes", 0)) + int(event.get("resumed_bytes", 0))
        self._marks.clear()
        self._change(
            state=State.RUNNING, detail="", bytes_planned=int(event.get("bytes", 0)), bytes_done=self._base,
            files=int(event.get("files", 0)), files_done=int(event.get("kept_files", 0)),
            revision=str(event.get("revision", "")),
        )  # fmt: skip

    def _on_progress(self, event: Mapping[str, Any]) -> None:
        done, before = int(event.get("bytes", 0)), self._status
        fetched = max(self._fetched_before + done - self._base, before.bytes_fetched)
        # Bytes that a resumed download counts again are not progress; only going beyond the maximum is.
        self._most = max(self._most, done)
        rate = self._rate(done)
        left = max((before.bytes_planned or 0) - done, 0)
        self._change(
            state=State.RUNNING, bytes_done=done, bytes_fetched=fetched, current_file=str(event.get("file", "")),
            rate=rate, eta=left / rate if rate else None,
        )  # fmt: skip
        if fetched > before.bytes_fetched:
            self._observer.download_progress(self._status, fetched - before.bytes_fetched)

    def _rate(self, done: int) -> float:
        now = monotonic()
        self._marks.append((now, done))
        while now - self._marks[0][0] > RATE_SECONDS:
            self._marks.popleft()
        seconds, count = now - self._marks[0][0], done - self._marks[0][1]
        return max(count / seconds, 0.0) if seconds else 0.0

    def _on_retry(self, event: Mapping[str, Any]) -> None:
        self._change(retries=self._status.retries + 1, detail=clipped(str(event.get("detail", ""))))
        self._observer.download_retry(self._status, str(event.get("reason", "")))

    def _on_verified(self, _event: Mapping[str, Any]) -> None:
        self._change(files_done=self._status.files_done + 1)

    def _on_done(self, event: Mapping[str, Any]) -> None:
        self._change(path=str(event.get("path", "")))

    def _on_removed(self, event: Mapping[str, Any]) -> None:
        before = self._status
        removed = (*before.removed, str(event.get("file", "")))
        is_short = len(removed) <= NAMED and sum(map(len, removed)) <= NAMED_LETTERS
        self._change(files_removed=before.files_removed + 1, removed=removed if is_short else before.removed)

    _HANDLERS: ClassVar[Mapping[str, Callable[[Job, Mapping[str, Any]], None]]] = {
        "waiting": _on_waiting,
        "planned": _on_planned,
        "progress": _on_progress,
        "retry": _on_retry,
        "removed": _on_removed,
        "verified": _on_verified,
        "done": _on_done,
    }

    def cancel(self) -> None:
        """Ask the worker to end; it is killed if it does not end in time.

        Returns immediately, and may be called by a signal handler.
        """
        self._cancelled.set()
        worker = self._worker
        if worker:
            worker.terminate()

    def kill(self) -> None:
        """Kill the worker."""
        worker = self._worker
        if worker:
            worker.kill()

    def end_before_start(self) -> None:
        """End a job that is still queued. The supervisor calls it after it took the job off its queue."""
        self._cancelled.set()
        self._end(CancelledError("the download was cancelled before it started"))

    def _end(self, error: StorageError | None) -> None:
        state = State.CANCELLED if isinstance(error, CancelledError) else State.FAILED if error else State.DONE
        planned = self._status.bytes_planned
        done = planned if state is State.DONE and planned is not None else self._status.bytes_done
        self._change(state=state, finished=time(), error=error, rate=0.0, eta=None, current_file="", bytes_done=done)
        self._request = None
        self._log_removed()
        self._observer.download_finished(self._status)

    def _log_removed(self) -> None:
        job = self._status
        if job.files_removed:
            names = listed(job.removed, job.files_removed)
            logger.info(
                "download %s removed or overwrote files: directory=%s source=%s files=%d names=%s",
                job.id, job.output_dir, job.source, job.files_removed, names,
            )  # fmt: skip

    def _change(self, **fields: Any) -> None:
        self._status = replace(self._status, **fields)


def _cancelled() -> CancelledError:
    return CancelledError("the download was cancelled; what has arrived stays for the next one")


def _ending_text(code: int) -> str:
    if code == -signal.SIGKILL:
        return "the worker was killed, for want of memory as a rule"
    return f"the worker ended with code {code} and did not say why"
