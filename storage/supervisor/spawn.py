"""Starts worker processes, also before there is a request for them.

This module imports next to nothing, so that a worker can start, and import its libraries, while its parent is still
importing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    Start = Callable[[], subprocess.Popen[bytes]]

__all__ = ["COMMAND", "Spare", "start"]

# -P: Python must not import modules from the working directory. It may be a model's, with modules named like Python's.
COMMAND: Final = (sys.executable, "-P", "-m", "storage.worker")
# ADR 17: without this, glibc gives each thread its own heap and keeps freed memory there.
_HEAPS: Final = {"MALLOC_ARENA_MAX": "1"}


def start(command: Sequence[str] = COMMAND, *, nice: int = 0) -> subprocess.Popen[bytes]:
    """Start a worker. It waits for its request on standard input.

    Args:
        command: The program.
        nice: Its CPU niceness, as in nice(1). With 19, scrapes do not wait for it, but it gets only a hundredth of a
            core next to a process that never rests (docs/adr/0009).

    Raises:
        OSError: It cannot be started.
    """
    # Its own process group: Ctrl-C goes to the parent only, which then stops the worker in order. Not its own session:
    # a kernel that schedules sessions as groups would apply the niceness within that session only (ADR 9).
    process = subprocess.Popen(  # noqa: S603 - our own program
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0, env=os.environ | _HEAPS
    )
    if nice:
        with suppress(OSError):  # the worker has ended already
            os.setpriority(os.PRIO_PROCESS, process.pid, nice)
    return process


class Spare:
    """A worker that is started before there is a request; the first `take` returns it."""

    def __enter__(self) -> Self:
        self._process: subprocess.Popen[bytes] | None = None
        with suppress(OSError):  # `take` tries again, and reports the error
            self._process = start()
        return self

    def take(self) -> subprocess.Popen[bytes]:
        """Return the spare worker, or start a new one if it was taken already.

        Raises:
            OSError: A new one cannot be started.
        """
        process, self._process = self._process, None
        return process or start()

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
