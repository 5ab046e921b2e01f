"""How full file systems are: measured beside the scrapes, by a thread for each directory.

A volume whose server is gone holds up its own thread, and neither a scrape nor
the figures of other volumes. Its last figures count for a minute, then it has none.
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
# Directories without a thread have no figures. Only those on volumes that hang outlast their use.
_MOST_THREADS: Final = 16


class Usage(NamedTuple):
    """A file system, in bytes."""

    free: int
    total: int


class Volumes:
    """Follows the file systems of directories; safe for threads."""

    def __init__(
        self,
        *,
        look: Callable[[str], Usage] | None = None,
        interval: float = _INTERVAL_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Prepare; `look` measures a directory, and may block, every `interval` seconds."""
        self._look = look or measure
        self._interval = interval
        self._clock = clock
        self._changed = Condition()
        self._followed: frozenset[str] = frozenset()
        self._threads: dict[str, Thread] = {}
        self._readings: dict[str, tuple[Usage, float]] = {}
        # Since when a look is under way, and of which that was logged.
        self._since: dict[str, float] = {}
        self._hanging: set[str] = set()

    def follow(self, directories: Iterable[str]) -> None:
        """Measure these from now on, and no others; does not wait for them."""
        with self._changed:
            self._followed = frozenset(directories)
            for directory in sorted(self._followed - self._threads.keys()):
                if len(self._threads) < _MOST_THREADS:
                    thread = Thread(target=self._run, args=(directory,), name="volume", daemon=True)
                    self._threads[directory] = thread
                    thread.start()
            self._changed.notify_all()

    def usages(self) -> dict[str, Usage]:
        """Return what was measured within the last minute, by directory; does not wait."""
        with self._changed:
            now = self._clock()
            fresh = {name: usage for name, (usage, at) in self._readings.items() if now - at <= _STALE_SECONDS}
            hanging = {name for name, since in self._since.items() if now - since > _STALE_SECONDS} - self._hanging
            self._hanging |= hanging
            followed = self._followed
        for name in sorted(hanging):
            logger.warning("a volume hangs and has no figures until it answers: directory=%s", name)
        return {name: fresh[name] for name in sorted(followed & fresh.keys())}

    def join(self) -> None:
        """Wait for the threads of directories that are followed no more, but not for a volume that hangs."""
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
        """Wait until it is time to measure again; return whether that is still wanted."""
        with self._changed:
            if not self._changed.wait_for(lambda: directory not in self._followed, self._interval):
                return True
            del self._threads[directory]
            self._readings.pop(directory, None)
            self._changed.notify_all()
            return False


def measure(directory: str) -> Usage:
    """Measure the file system of a directory, or of where it will be.

    Raises:
        OSError: It cannot be looked at.
    """
    path = Path(directory)
    while not path.exists() and path != path.parent:
        path = path.parent
    usage = shutil.disk_usage(path)
    return Usage(usage.free, usage.total)
