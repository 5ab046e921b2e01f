"""A secret in a file, as Kubernetes mounts it: one line of text, read outside of requests (docs/adr/0013).

A thread reads the file every second, and when a request needs the secret. A file
that hangs (a volume whose server is gone) therefore blocks that thread only. A
request waits for half a second at most, and not at all while the file is known to hang.
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
# At the start, a file that is not read within this time is an error.
_START_SECONDS: Final = 5.0
# How long a request waits until the file has been read.
_REQUEST_SECONDS: Final = 0.5
# While the file hangs, the last secret is valid for this long: a hanging read says nothing about the content.
_STALE_SECONDS: Final = 10.0
_END_SECONDS: Final = 0.2
_MOST_BYTES: Final = 64 * 1024


class _Reading(NamedTuple):
    """The result of reading the file once.

    Attributes:
        text: The secret; after a failure, the last one that was read.
        problem: Why the file cannot be read; `None` after a success.
        at: When it was read, by the monotonic clock.
    """

    text: str
    problem: OSError | ValueError | None
    at: float


class SecretFile:
    """The secret in one file, which may change; safe for threads. `repr` shows the path only."""

    def __init__(
        self,
        path: Path,
        *,
        read: Callable[[Path], str] | None = None,
        patience: float = _START_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Start the thread, and wait until it has read the file for the first time.

        Args:
            path: The file.
            read: Returns the secret; may block; `read_secret` when `None`.
            patience: Seconds that the first reading may take.
            clock: A monotonic clock in seconds.

        Raises:
            OSError: The file cannot be read, or not within `patience`.
            ValueError: The file does not contain one line of text.
        """
        self._path = path
        self._read = read or read_secret
        self._clock = clock
        self._changed = Condition()
        # Numbers of the last reading that began, and of the last that ended.
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
        """Return the file's current secret, or `None` while it is not known; waits for half a second at most.

        It is not known while the file is missing, unreadable, empty or not one
        line of text. While a read hangs, the last secret is valid for ten seconds.
        """
        self._look_again(_REQUEST_SECONDS)
        reading = self._reading
        is_stale = self._clock() - reading.at > _STALE_SECONDS
        if is_stale and not self._is_told:
            self._is_told = True
            logger.warning("a secret file hangs, its secret counts no longer: file=%s", self._path)
        return None if is_stale or reading.problem else reading.text

    def last(self) -> str:
        """Return the file's current secret, or the last one that could be read; waits for half a second at most."""
        self._look_again(_REQUEST_SECONDS)
        return self._reading.text

    def start(self) -> None:
        """Do nothing: the thread runs from `__init__` on, because the start needs the secret."""

    def stop(self) -> None:
        """Ask the thread to end."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()

    def join(self) -> None:
        """Wait for the thread to end, but not for a file that hangs."""
        self._thread.join(_END_SECONDS)

    def _look_again(self, patience: float) -> None:
        """Wait until the file has been read again, unless the last reading still hangs."""
        with self._changed:
            # The reading in flight does not count: it may have begun before the file changed.
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
        """Wait until the next reading is due; return whether to read, else the thread ends."""
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
    """Return the one line of text in a regular file, without surrounding blanks.

    Raises:
        OSError: The file cannot be read, is too large, or is not a regular file.
        ValueError: The content is empty, not UTF-8, or not one line of text.
    """
    text = read_regular(path, _MOST_BYTES).decode().strip()
    if not text:
        raise ValueError("the file is empty")
    if not text.isprintable():
        raise ValueError("it is not one line of text")
    return text


def reason(problem: OSError | ValueError) -> str:
    """Return a problem as a phrase without the file's content: a UnicodeError's own text would show bytes of it."""
    if isinstance(problem, UnicodeError):
        return "it is not text in UTF-8"
    return getattr(problem, "strerror", None) or str(problem)
