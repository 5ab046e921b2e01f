"""A worker process seen from its parent: the request goes in, events come out, stalls end it."""

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

GRACE_SECONDS: Final = 3.0
START_SECONDS: Final = 90.0
_READ: Final = 1 << 16
_MAX_LINE: Final = 1 << 20
# What shows that something moves. A retry does not: it may be the same stall again.
_SIGNS: Final = frozenset(("waiting", "planned", "verified", "done", "failed"))


class Stalled(Exception):
    """The worker gave no sign for too long."""


class WorkerProcess:
    """One run of a worker."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        request: DownloadRequest,
        *,
        stall_timeout: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Hand a worker its request."""
        self._process = process
        self._clock = clock
        self._stall_timeout = stall_timeout
        # Libraries are imported and a listing is waited for, which has its own timeouts, before there is a plan.
        self._excused_until = clock() + START_SECONDS
        self._sign = clock()
        self._deadline = inf
        self._position = (-1, -1)
        assert self._process.stdin is not None  # noqa: S101 - piped
        with suppress(BrokenPipeError):  # it died at once; its exit code says so
            self._process.stdin.write(request.to_json().encode() + b"\n")
            self._process.stdin.flush()

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield what the worker says until it ends.

        Raises:
            Stalled: It made no progress for the stall timeout, and was killed.
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
                self._sign += self._clock() - handed  # while they who take it were slow, it could say nothing
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
            # The server asked to be left alone for so long; then it has its time to answer.
            self._excused_until = max(self._excused_until, now + event["pause"] + self._stall_timeout)

    def terminate(self) -> None:
        """Ask it to end; `events` kills it when it does not soon. May be called by a signal handler."""
        self._deadline = min(self._deadline, self._clock() + GRACE_SECONDS)
        self._process.terminate()

    def kill(self) -> None:
        """End it."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code; kill it when it does not end in time."""
        try:
            return self._process.wait(timeout)
        except TimeoutExpired:
            self.kill()
            return self._process.wait()

    def close(self) -> int:
        """Make sure that it has ended, and close its pipes; return its exit code."""
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
