"""How a worker process is started, also ahead of its request.

This imports next to nothing: a worker that is started first imports while its parent still does.
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

# -P: a module in the directory that it is started in, a model's perhaps, is not imported.
COMMAND: Final = (sys.executable, "-P", "-m", "storage.worker")
# glibc gives each thread a heap of its own otherwise, and keeps there what was freed.
_HEAPS: Final = {"MALLOC_ARENA_MAX": "1"}


def start(command: Sequence[str] = COMMAND, *, nice: int = 0) -> subprocess.Popen[bytes]:
    """Start a worker, which waits for its request.

    Args:
        command: The program.
        nice: How far it steps back for the other processes of the container, as in nice(1). At 19 scrapes do not
            wait for it, and it gets a hundredth of a core beside a process that never rests.

    Raises:
        OSError: It cannot be started.
    """
    # Its own group: Ctrl-C is for the parent, which ends it in order. Not its own session, which kernels schedule as
    # one where there is no container: it would step back among itself only.
    process = subprocess.Popen(  # noqa: S603 - our own program
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0, env=os.environ | _HEAPS
    )
    if nice:
        with suppress(OSError):  # it is gone already
            os.setpriority(os.PRIO_PROCESS, process.pid, nice)
    return process


class Spare:
    """A worker that is there before its request is: the first that is taken."""

    def __enter__(self) -> Self:
        self._process: subprocess.Popen[bytes] | None = None
        with suppress(OSError):  # whoever wants one will be told
            self._process = start()
        return self

    def take(self) -> subprocess.Popen[bytes]:
        """Return it, or a new one when it is gone.

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
