"""A worker process seen from its parent: sends the request, reads events, and kills the worker if it stalls."""

from __future__ import annotations

import json
import select
from contextlib import suppress
from math import inf
from subprocess import TimeoutExpired
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from storage.request.download import DownloadRequest

__all__ = ["Stalled", "WorkerProcess"]

# Seconds that a worker has to end after SIGTERM.
GRACE_SECONDS: Final = 3.0
START_SECONDS: Final = 90.0
_READ: Final = 1 << 16
_MAX_LINE: Final = 1 << 20
# Events that count as progress. A retry does not: it may be the same stall again.
_SIGNS: Final = frozenset(("waiting", "planned", "verified", "done", "failed"))


class Stalled(Exception):
    """The worker made no progress for the stall timeout, and was killed."""


class WorkerProcess:
    """One run of a worker. One thread iterates `events`; any thread may call `terminate` and `kill`."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        request: DownloadRequest,
        *,
        stall_timeout: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Send the request to a started worker."""
        self._process = process
        self._clock = clock
        self._stall_timeout = stall_timeout
        # Until the plan, the worker imports libraries and lists the source. Listings have their own timeouts.
        self._excused_until = clock() + START_SECONDS
        self._sign = clock()
        self._deadline = inf
        self._position = (-1, -1)
        assert self._process.stdin is not None  # noqa: S101 - piped
        with suppress(BrokenPipeError):  # the worker has ended already; its exit code tells
            self._process.stdin.write(request.to_json().encode() + b"\n")
            self._process.stdin.flush()

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the worker's events until it ends. Lines that are not events are skipped.

        Raises:
            Stalled: The worker made no progress for the stall timeout, or did not end after `terminate`; it was killed.
        """
        assert self._process.stdout is not None  # noqa: S101 - piped
        output, rest = self._process.stdout.fileno(), b""
        poll = select.poll()
        poll.register(output, select.POLLIN)
        while True:
            stalled = max(self._sign + self._stall_timeout, self._excused_until)
            left = min(stalled, self._deadline) - self._clock()
            if left <= 0:
                self.kill()
                raise Stalled
            # At most half a second: `terminate` may bring the deadline forward from another thread or a signal handler.
            if not poll.poll(min(left, 0.5) * 1000):
                continue
            data = self._process.stdout.read1(_READ)  # type: ignore[attr-defined]
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for event in filter(None, map(_decode, lines)):
                self._note(event)
                handed = self._clock()
                yield event
                self._sign += self._clock() - handed  # a slow consumer is not a stalled worker: the pipe was full
            if len(rest) > _MAX_LINE:
                self.kill()
                return

    def _note(self, event: dict[str, Any]) -> None:
        kind, now = event["event"], self._clock()
        position = (event.get("bytes", -1), event.get("hashed", -1))
        if kind in _SIGNS or (kind == "progress" and position != self._position):
            self._position = position
            self._sign = now
        if kind == "planned":
            self._excused_until = now
        elif kind == "retry" and event.get("pause", 0.0) > self._stall_timeout / 2:
            # The server asked for a long pause (Retry-After). After it, the server gets the usual time to answer.
            self._excused_until = max(self._excused_until, now + event["pause"] + self._stall_timeout)

    def terminate(self) -> None:
        """Send SIGTERM; `events` kills the worker if it does not end in time. May be called by a signal handler."""
        self._deadline = min(self._deadline, self._clock() + GRACE_SECONDS)
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code; kill the worker if it does not end within `timeout` seconds."""
        try:
            return self._process.wait(timeout)
        except TimeoutExpired:
            self.kill()
            return self._process.wait()

    def close(self) -> int:
        """Close the pipes, make sure that the worker has ended, and return its exit code."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()
        return self.wait(GRACE_SECONDS)


def _decode(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
