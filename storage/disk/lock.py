"""A lock for one download per directory. It works on NFS, too, and a dead holder's lock can be taken over.

    lock-1     {"token": ..., "host": ..., "pid": ..., "boot": ..., "pids": ..., "born": ...}

The highest number holds the directory. A lock file is created with O_EXCL, which is reliable
on NFS, and its holder touches it every few seconds. A waiter uses its own monotonic clock to
see whether the file still changes, so clocks of different machines are never compared. A
dead holder on the same machine is recognised immediately.

To take over, a waiter creates the next number, checks the dead lock once more, and removes
it. If two waiters try, O_EXCL lets only one succeed.
"""

from __future__ import annotations

import json
import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Self

from storage.disk.regular import read_record
from storage.errors import LockedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Holder", "Lock"]

LEASE_SECONDS: Final = 20.0
RENEW_SECONDS: Final = 4.0
POLL_SECONDS: Final = 0.25

_NAME: Final = re.compile(r"lock-([0-9]{1,18})")
# No lock is taken over this often. A lock file with this number was not made by a download. Nothing could follow it, so
# it is removed instead.
_LAST_NUMBER: Final = 10**18 - 1
_MAX_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder of a lock, as its lock file says.

    Attributes:
        token: Random, so that no two locks are equal.
        host: Name of the machine or pod, for messages.
        pid: Process id.
        boot: The machine's boot id.
        pids: The PID namespace: a container has its own process ids.
        born: Start time of the process in kernel ticks: a process id can be reused.
    """

    token: str = ""
    host: str = ""
    pid: int = 0
    boot: str = ""
    pids: str = ""
    born: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else "an unknown process"

    def is_dead(self) -> bool:
        """Whether the holder has ended. Only a holder in the same PID namespace can be checked; otherwise False."""
        if not self.pid or (self.boot, self.pids) != (_boot(), _pid_namespace()):
            return False
        return _born(self.pid) != self.born


class Lock:
    """Holds a directory from `__enter__` to `__exit__`; a thread renews the lease meanwhile."""

    def __init__(
        self,
        directory: Path,
        *,
        timeout: float | None = None,
        on_wait: Callable[[Holder, float], None] = lambda _holder, _seconds: None,
        lease: float = LEASE_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Prepare; nothing is written yet.

        Args:
            directory: The directory for lock files; created if missing.
            timeout: Seconds to wait for another holder; `None` waits as long as the holder lives.
            on_wait: Receives the holder and the seconds waited, several times per second.
            lease: Seconds without a renewal after which a holder is dead.
            clock: A monotonic clock in seconds.
        """
        self._directory = directory
        self._timeout = timeout
        self._on_wait = on_wait
        self._lease = lease
        self._clock = clock
        self._holder = Holder(
            os.urandom(16).hex(), socket.gethostname(), os.getpid(), _boot(), _pid_namespace(), _born(os.getpid())
        )
        self._path = directory
        self._stopping = Event()
        self._lost = Event()
        self._renewer = Thread(target=self._renew, name="lock-lease", daemon=True)
        # The lock file and its mtime when it was last seen to change, and the time of that on this process's clock.
        self._seen: tuple[Path, int] | None = None
        self._since = 0.0

    def __enter__(self) -> Self:
        self._wait(self._try)
        self._renewer.start()
        return self

    def wait_for_others(self) -> None:
        """Wait until no other process holds the directory. Nothing is written there.

        Raises:
            LockedError: It took longer than the timeout.
        """
        self._wait(self._is_free)

    def _wait(self, is_done: Callable[[], bool]) -> None:
        started = self._clock()
        while not is_done():
            waited = self._clock() - started
            holder = _read(self._path)
            if self._timeout is not None and waited >= self._timeout:
                raise LockedError(f"{self._directory} is locked by {holder}, for longer than {self._timeout:g} s")
            self._on_wait(holder, waited)
            self._stopping.wait(POLL_SECONDS)

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        # With a limit: the renewer may hang in a file system that does not answer.
        self._renewer.join(RENEW_SECONDS)
        # Another process may have taken the lock over: its file must stay.
        if not self._lost.is_set() and _read(self._path) == self._holder:
            self._path.unlink(missing_ok=True)

    def check(self) -> None:
        """Check that this process still holds the lock.

        Raises:
            LockedError: Another process took it over: this process was suspended for too long.
        """
        if self._lost.is_set() or _newest(self._directory) != self._path or _read(self._path) != self._holder:
            self._lost.set()
            raise LockedError(f"{self._directory} was taken over by {_read(_newest(self._directory) or self._path)}")

    def _try(self) -> bool:
        newest = _newest(self._directory)
        if newest is None:
            return self._claim(self._directory / "lock-1", over=None)
        self._path = newest
        if not self._is_dead(newest):
            return False
        if _number(newest) == _LAST_NUMBER:
            newest.unlink(missing_ok=True)
            return False
        return self._claim(_next(newest), over=newest)

    def _is_free(self) -> bool:
        newest = _newest(self._directory)
        if newest is None:
            return True
        self._path = newest
        return self._is_dead(newest)

    def _is_dead(self, path: Path) -> bool:
        try:
            changed = path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        if self._seen != (path, changed):
            self._seen, self._since = (path, changed), self._clock()
        return _read(path).is_dead() or self._clock() - self._since > self._lease

    def _claim(self, path: Path, *, over: Path | None) -> bool:
        dead = _read(over) if over else None
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except (FileExistsError, FileNotFoundError):
            return False
        with os.fdopen(descriptor, "w") as file:
            json.dump({name: getattr(self._holder, name) for name in Holder.__slots__}, file)
        self._path = path
        # Check again: the dead lock may have been replaced, or two waiters may have found the directory empty.
        if _newest(self._directory) != path or (over and over.exists() and _read(over) != dead):
            path.unlink(missing_ok=True)
            return False
        if over:
            over.unlink(missing_ok=True)
        return True

    def _renew(self) -> None:
        while not self._stopping.wait(min(RENEW_SECONDS, self._lease / 4)):
            try:
                self.check()
                os.utime(self._path)
            except LockedError:
                return
            except OSError:  # the file system may come back; `check` then tells whether the lock was lost
                continue


def _newest(directory: Path) -> Path | None:
    try:
        names = [match for match in (_NAME.fullmatch(path.name) for path in directory.iterdir()) if match]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    return directory / max(names, key=lambda match: int(match[1]))[0] if names else None


def _next(path: Path) -> Path:
    return path.with_name(f"lock-{_number(path) + 1}")


def _number(path: Path) -> int:
    return int(path.name.removeprefix("lock-"))


def _read(path: Path) -> Holder:
    try:
        data: Any = json.loads(read_record(path, _MAX_BYTES))
        return Holder(**data)
    except (OSError, ValueError, TypeError, RecursionError):
        return Holder()  # the file is missing, or not written yet


def _boot() -> str:
    return _text("/proc/sys/kernel/random/boot_id")


def _pid_namespace() -> str:
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _born(pid: int) -> str:
    """Return a process's start time in kernel ticks; empty if there is no such process."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    # A zombie has ended, even if its parent has not collected it yet.
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""


def _text(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text().strip()
    return ""
