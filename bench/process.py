"""A process under measurement: its start, its end, and what the kernel says it used.

CPU comes from the process's own clock, which counts in nanoseconds and keeps
the time of threads that have ended; /proc/PID/stat counts in steps of 10 ms.
"""

from __future__ import annotations

import re
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from time import clock_gettime, monotonic, sleep
from typing import TYPE_CHECKING, Final

from simulators.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

__all__ = ["HOST", "Process", "free_port"]

HOST: Final = "127.0.0.1"

_PAUSE: Final = 0.001
_CPUCLOCK_SCHED: Final = 2  # linux/posix-timers.h; the rest of a clock's number is the process
_SWITCHES: Final = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE)
_RESIDENT: Final = re.compile(r"^VmRSS:\s+(\d+) kB", re.MULTILINE)
_PEAK: Final = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)


class Process:
    """A program that listens on `port`; a context manager that ends it.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, command: Sequence[str], port: int, environment: Mapping[str, str] | None = None) -> None:
        self.port = port
        self._command = command
        self._environment = environment

    def __enter__(self) -> Self:
        self._log = TemporaryFile()
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.DEVNULL, stderr=self._log
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def wait_for(self, path: str, *, seconds: float = 60.0) -> None:
        """Return as soon as `path` is answered with 200.

        Raises:
            RuntimeError: The process ended before, or the time is over; with its log.
        """
        request = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
        deadline = monotonic() + seconds
        while self._process.poll() is None and monotonic() < deadline:
            with suppress(OSError), socket.create_connection((HOST, self.port), timeout=seconds) as connection:
                connection.sendall(request)
                if connection.recv(64).split(b" ", 2)[1:2] == [b"200"]:
                    return
            sleep(_PAUSE)
        message = f"{self._command[:3]} does not answer {path}: {self.log()}"
        raise RuntimeError(message)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def log(self) -> str:
        """Return what it wrote to standard error so far."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def cpu(self) -> float:
        """Return the CPU seconds of all its threads, user and system."""
        return clock_gettime((~self._process.pid << 3) | _CPUCLOCK_SCHED)

    def resident(self) -> int:
        """Return its resident memory in bytes."""
        return 1024 * self._count(_RESIDENT, Path(f"/proc/{self._process.pid}/status"))

    def peak(self) -> int:
        """Return the most bytes that were ever resident."""
        return 1024 * self._count(_PEAK, Path(f"/proc/{self._process.pid}/status"))

    def switches(self) -> int:
        """Return how often its threads went to sleep, which is how often they were woken."""
        threads = Path(f"/proc/{self._process.pid}/task").iterdir()
        return sum(self._count(_SWITCHES, thread / "status") for thread in threads)

    def threads(self) -> int:
        """Return the number of its threads."""
        return sum(1 for _ in Path(f"/proc/{self._process.pid}/task").iterdir())

    @staticmethod
    def _count(pattern: re.Pattern[str], file: Path) -> int:
        found = pattern.search(file.read_text())
        if found is None:
            message = f"{file} has no {pattern.pattern}"
            raise RuntimeError(message)
        return int(found[1])
