"""A worker's events, one JSON object per line.

    {"event": "waiting", "holder": "process 7 on pod-a", "seconds": 1.5}
    {"event": "planned", "action": "download", "source": ..., "revision": ..., "files": 24, "bytes": ...,
     "kept_files": 0, "kept_bytes": 0, "fetch_files": 24, "fetch_bytes": ..., "resumed_bytes": 0, "free_bytes": ...}
    {"event": "progress", "bytes": ..., "total": ..., "hashed": ..., "file": "model.safetensors", "files_done": 3}
    {"event": "retry", "file": ..., "reason": "timeout", "detail": ..., "pause": 0.5}
    {"event": "verified", "file": ..., "size": ..., "digest": {"algorithm": "sha256", "value": ...} or null}
    {"event": "removal", "file": ..., "size": ..., "overwritten": false}    in a dry run: its content would be gone
    {"event": "removed", "file": ..., "size": ..., "overwritten": true}     its content is gone, another has its name
    {"event": "done", "files": 24, "bytes": ..., "fetched_bytes": ..., "revision": ..., "path": ..., "seconds": 3.2,
     "removed_files": 2, "removed": ["config.json", "old.bin"]}
    {"event": "failed", "code": "denied", "message": ..., "exit_code": 4}

`bytes` counts the whole copy, including files that were there before. `hashed` counts bytes that were read for
verification, which is progress, too. `removed` has only the first names.
"""

from __future__ import annotations

from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from storage.request.limits import NAMED

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.disk.changes import Removal
    from storage.disk.listing import RemoteFile
    from storage.disk.lock import Holder

__all__ = ["Reporter"]

# Minimum seconds between two `progress` events, and between two `waiting` events.
PROGRESS_SECONDS: Final = 0.25
WAITING_SECONDS: Final = 2.0


class Reporter:
    """Turns a download's steps into events; a `TransferObserver`, safe for threads."""

    def __init__(self, emit: Callable[[dict[str, Any]], None], *, clock: Callable[[], float] = monotonic) -> None:
        self._emit = emit
        self._clock = clock
        self._lock = Lock()
        self._started = clock()
        self._told = 0.0
        self._waited = -WAITING_SECONDS
        self._bytes = 0
        self._kept = 0
        self._resumed = 0
        self._total = 0
        self._hashed = 0
        self._file = ""
        self._files_done = 0
        self._removed: list[str] = []
        self._removed_files = 0

    def waiting(self, holder: Holder, seconds: float) -> None:
        """Report the holder of the lock; `seconds` is the time waited so far."""
        if seconds - self._waited >= WAITING_SECONDS:
            self._waited = seconds
            self.say("waiting", holder=str(holder), seconds=round(seconds, 1))

    def planned(self, *, total: int, kept: int, resumed: int, **more: Any) -> None:
        """Report the plan, and reset the counts."""
        self._total, self._kept, self._resumed, self._bytes = total, kept, resumed, kept
        self.say("planned", bytes=total, kept_bytes=kept, resumed_bytes=resumed, **more)

    def on_bytes(self, path: str, count: int) -> None:
        with self._lock:
            self._bytes += count
            self._file = path
        self._progress()

    def on_hashed(self, count: int) -> None:
        with self._lock:
            self._hashed += count
        self._progress()

    def on_retry(self, path: str, reason: str, detail: str, pause: float) -> None:
        """Report that a request will be retried after `pause` seconds."""
        self.say("retry", file=path, reason=reason, detail=detail, pause=round(pause, 3))

    def on_verified(self, file: RemoteFile) -> None:
        with self._lock:
            self._files_done += 1
        self.say("verified", file=file.path, size=file.size, digest=file.digest.to_wire() if file.digest else None)

    def removal(self, removal: Removal) -> None:
        """Report a file that a download would remove or overwrite (dry run)."""
        self._say_removal("removal", removal)

    def removed(self, removal: Removal) -> None:
        """Report a file that was removed or overwritten."""
        self._removed_files += 1
        self._removed += [removal.path] if len(self._removed) < NAMED else []
        self._say_removal("removed", removal)

    def _say_removal(self, event: str, removal: Removal) -> None:
        self.say(event, file=removal.path, size=removal.size, overwritten=removal.overwritten)

    def done(self, **more: Any) -> None:
        """Report the end of a successful run."""
        self._progress(now=True)
        fetched = max(self._bytes - self._kept - self._resumed, 0)
        seconds = round(self._clock() - self._started, 3)
        removed = {"removed_files": self._removed_files, "removed": self._removed}
        self.say("done", bytes=self._total, fetched_bytes=fetched, seconds=seconds, **removed, **more)

    def _progress(self, *, now: bool = False) -> None:
        with self._lock:
            if not now and self._clock() - self._told < PROGRESS_SECONDS:
                return
            self._told = self._clock()
            counts = {"bytes": self._bytes, "total": self._total, "hashed": self._hashed}
            where = {"file": self._file, "files_done": self._files_done}
        # Not under the lock: writing to the pipe may block, and other threads must be able to count on.
        self.say("progress", **counts, **where)

    def say(self, event: str, **fields: Any) -> None:
        self._emit({"event": event, **fields})
