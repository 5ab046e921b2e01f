"""A secret in a file, as Kubernetes mounts it: one line of text, read outside of requests.

A thread of its own reads the file, each second and when a request needs the
secret. So a file that hangs (a volume whose server is gone) holds up that
thread, and a request for a moment, once.
"""

from __future__ import annotations

import logging
from threading import Condition, Thread
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from storage.disk.regular import read_regular

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["SecretFile", "read_secret", "reason"]

logger: Final = logging.getLogger(__name__)

_INTERVAL_SECONDS: Final = 1.0
# A file that cannot be read within this time is an error at the start.
_START_SECONDS: Final = 5.0
# For so long a request waits for the file to be read.
_REQUEST_SECONDS: Final = 0.5
# What was read last counts for this long while the file hangs.
_STALE_SECONDS: Final = 10.0
_END_SECONDS: Final = 0.2
_MOST_BYTES: Final = 64 * 1024


class _Reading(NamedTuple):
    """What a look at the file brought.

    Attributes:
        text: Its secret, or the last one that it had.
        problem: Why it cannot be read, if it cannot.
        at: When that was.
    """

    text: str
    problem: OSError | ValueError | None
    at: float


class SecretFile:
    """Follows one file; safe for threads."""

    def __init__(
        self,
        path: Path,
        *,
        read: Callable[[Path], str] | None = None,
        patience: float = _START_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Read it for the first time.

        Args:
            path: The file.
            read: Returns its secret; may block.
            patience: Seconds until it must have been read.
            clock: A monotonic clock in seconds.

        Raises:
            OSError: It cannot be read, or not in time.
            ValueError: There is no secret in it.
        """
        self._path = path
        self._read = read or read_secret
        self._clock = clock
        self._changed = Condition()
        self._begun = self._done = 0
        self._is_asked = self._is_stopping = False
        self._is_hanging = self._is_told = False
        slow = TimeoutError(f"it was not read within {patience:g} s: is it on a volume that hangs?")
        self._reading = _Reading("", slow, clock())
        self._thread = Thread(target=self._follow, name=f"secret-{path.name}", daemon=True)
        self._thread.start()
        self._look_again(patience)
        if self._reading.problem:
            self.stop()
            raise self._reading.problem

    def __repr__(self) -> str:
        return f"SecretFile({str(self._path)!r})"

    def current(self) -> str | None:
        """Return the secret as the file has it now, or `None` if that is not known.

        It is not known while the file is missing, unreadable, empty or not one
        line of text. A file that hangs keeps its secret for ten seconds.
        """
        self._look_again(_REQUEST_SECONDS)
        reading = self._reading
        is_stale = self._clock() - reading.at > _STALE_SECONDS
        if is_stale and not self._is_told:
            self._is_told = True
            logger.warning("a secret file hangs, its secret counts no longer: file=%s", self._path)
        return None if is_stale or reading.problem else reading.text

    def last(self) -> str:
        """Return the secret as the file has it now, or as it was when it could be read last."""
        self._look_again(_REQUEST_SECONDS)
        return self._reading.text

    def start(self) -> None:
        """It works from the beginning."""

    def stop(self) -> None:
        """Read no more."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()

    def join(self) -> None:
        """Wait for the thread, but not for a file that hangs."""
        self._thread.join(_END_SECONDS)

    def _look_again(self, patience: float) -> None:
        """Wait until the file has been read once more; not if it hung the last time."""
        with self._changed:
            wanted = self._begun + 1
            self._is_asked = True
            self._changed.notify_all()
            if not self._is_hanging:
                self._is_hanging = not self._changed.wait_for(
                    lambda: self._done >= wanted or self._is_stopping, patience
                )

    def _follow(self) -> None:
        while self._is_next():
            try:
                new = _Reading(self._read(self._path), None, self._clock())
            except (OSError, ValueError) as error:
                new = _Reading(self._reading.text, error, self._clock())
            with self._changed:
                if self._done:
                    self._tell(new)
                self._reading, self._is_hanging, self._is_told = new, False, False
                self._done = self._begun
                self._changed.notify_all()

    def _is_next(self) -> bool:
        """Wait until it is time to read; return whether it is."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_asked or self._is_stopping, _INTERVAL_SECONDS)
            self._is_asked = False
            self._begun += 1
            return not self._is_stopping

    def _tell(self, new: _Reading) -> None:
        last = self._reading
        if new.problem and not last.problem:
            logger.warning("a secret file cannot be read: file=%s reason=%s", self._path, reason(new.problem))
        elif not new.problem and (last.problem or self._is_told):
            logger.info("a secret file can be read again: file=%s", self._path)


def read_secret(path: Path) -> str:
    """Return the line of text in a regular file.

    Raises:
        OSError: It cannot be read.
        ValueError: There is no such line in it.
    """
    text = read_regular(path, _MOST_BYTES).decode().strip()
    if not text:
        raise ValueError("the file is empty")
    if not text.isprintable():
        raise ValueError("it is not one line of text")
    return text


def reason(problem: OSError | ValueError) -> str:
    """Return what is wrong, without the secret."""
    if isinstance(problem, UnicodeError):
        return "it is not text in UTF-8"
    return getattr(problem, "strerror", None) or str(problem)
