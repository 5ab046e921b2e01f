"""The free space of file systems, measured outside of scrapes by one thread per directory.

A volume whose server is gone blocks its own thread only. Scrapes and the other
volumes go on. The last measurement of a hanging volume is exported for a minute;
after that, the volume has no series.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from threading import Condition, Thread
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Usage", "Volumes", "measure"]

logger: Final = logging.getLogger(__name__)

_INTERVAL_SECONDS: Final = 5.0
_STALE_SECONDS: Final = 60.0
_END_SECONDS: Final = 0.2
# Downloads may name any number of directories on a volume that hangs, and each would leave a blocked thread.
# A directory beyond this number is not measured.
_MOST_THREADS: Final = 16


class Usage(NamedTuple):
    """Free and total space of a file system, in bytes."""

    free: int
    total: int


class Volumes:
    """Measures the file systems of directories repeatedly; safe for threads."""

    def __init__(
        self,
        *,
        look: Callable[[str], Usage] | None = None,
        interval: float = _INTERVAL_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Prepare; no thread starts before `follow`.

        Args:
            look: Measures a directory; may block, and raise OSError.
            interval: Seconds between two measurements.
            clock: A monotonic clock in seconds.
        """
        self._look = look or measure
        self._interval = interval
        self._clock = clock
        self._changed = Condition()
        self._followed: frozenset[str] = frozenset()
        self._threads: dict[str, Thread] = {}
        self._readings: dict[str, tuple[Usage, float]] = {}
        # When the current measurement of each directory began, and the hanging directories that were logged.
        self._since: dict[str, float] = {}
        self._hanging: set[str] = set()

    def follow(self, directories: Iterable[str]) -> None:
        """Measure these directories from now on, and no others; does not block."""
        with self._changed:
            self._followed = frozenset(directories)
            for directory in sorted(self._followed - self._threads.keys()):
                if len(self._threads) < _MOST_THREADS:
                    thread = Thread(target=self._run, args=(directory,), name="volume", daemon=True)
                    self._threads[directory] = thread
                    thread.start()
            self._changed.notify_all()

    def usages(self) -> dict[str, Usage]:
        """Return the measurements of the last minute by directory; does not block."""
        with self._changed:
            now = self._clock()
            fresh = {name: usage for name, (usage, at) in self._readings.items() if now - at <= _STALE_SECONDS}
            hanging = {name for name, since in self._since.items() if now - since > _STALE_SECONDS} - self._hanging
            self._hanging |= hanging
            followed = self._followed
        # The lock is released: a log handler that blocks must not stop the measuring threads.
        for name in sorted(hanging):
            logger.warning("a volume hangs and has no figures until it answers: directory=%s", name)
        return {name: fresh[name] for name in sorted(followed & fresh.keys())}

    def join(self) -> None:
        """Wait until all threads have ended, but not for a volume that hangs; call `follow(())` first."""
        with self._changed:
            self._changed.wait_for(lambda: not self._threads, _END_SECONDS)

    def _run(self, directory: str) -> None:
        is_followed = True
        while is_followed:
            with self._changed:
                self._since[directory] = self._clock()
            try:
                usage = self._look(directory)
            except OSError:
                self._note(directory, None)
            else:
                self._note(directory, usage)
            is_followed = self._rest(directory)

    def _note(self, directory: str, usage: Usage | None) -> None:
        with self._changed:
            del self._since[directory]
            self._readings.pop(directory, None)
            if usage:
                self._readings[directory] = usage, self._clock()
            is_back = directory in self._hanging
            self._hanging.discard(directory)
        if is_back:
            logger.info("a volume answers again: directory=%s", directory)

    def _rest(self, directory: str) -> bool:
        """Wait until the next measurement is due; return whether the directory is still followed."""
        with self._changed:
            if not self._changed.wait_for(lambda: directory not in self._followed, self._interval):
                return True
            del self._threads[directory]
            self._readings.pop(directory, None)
            self._changed.notify_all()
            return False


def measure(directory: str) -> Usage:
    """Measure the file system of a directory, or of its nearest existing parent.

    Raises:
        OSError: The file system cannot be measured.
    """
    path = Path(directory)
    while not path.exists() and path != path.parent:
        path = path.parent
    usage = shutil.disk_usage(path)
    return Usage(usage.free, usage.total)
