"""The demo in a process, on a pipe or on a terminal of its own, and what is left of it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from simulators.waiting import PATIENCE, wait_until
from tests.harness.runtime import environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

__all__ = ["ANY_PORTS", "DemoProcess"]

_ROOT: Final = Path(__file__).parents[2]
_MARK: Final = "KTHENA_DEMO_TEST"
_STYLE: Final = re.compile(r"\x1b\[[\d;]*m")
_LOOK_SECONDS: Final = 0.1
# Under nohup, and in some CI, SIGHUP is ignored, also by what is started there.
_NORMAL_SIGNALS: Final = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL)"
# A terminal is whose leader of a session takes it, so that keys and new sizes make signals there.
_ON_A_TERMINAL: Final = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
_GO_ON: Final = "os.execv(sys.argv[1], sys.argv[1:])"


# Tests run side by side: the usual ports are for one at a time.
ANY_PORTS: Final = ("--port", "0", "--prometheus-port", "0")


class DemoProcess:
    """A running demo; a context manager that leaves nothing behind."""

    def __init__(
        self,
        *arguments: str,
        folder: Path,
        ports: Sequence[str] = ANY_PORTS,
        size: tuple[int, int] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.command = [sys.executable, "-m", "demo", *ports, *arguments]
        self.folder = folder
        self._size = size
        self._mark = f"{_MARK}={uuid4().hex}"
        own = {"TMPDIR": str(folder), "TERM": "xterm-256color", "PYTHONUTF8": "1", _MARK: self._mark.partition("=")[2]}
        self._variables = environment(own | dict(variables or {}))
        self._received = bytearray()
        self._closing = Event()

    def __enter__(self) -> Self:
        if self._size:
            self._ours, theirs = pty.openpty()
            self.resize(*self._size)
        else:
            self._ours, theirs = os.pipe()
        first = "; ".join((_NORMAL_SIGNALS, _ON_A_TERMINAL, _GO_ON) if self._size else (_NORMAL_SIGNALS, _GO_ON))
        self.command = [sys.executable, "-S", "-c", first, *self.command]
        self.process = subprocess.Popen(
            self.command,
            cwd=_ROOT,
            env=self._variables,
            stdin=theirs if self._size else subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *exception: object) -> None:
        for pid in self.left():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.close()

    def close(self) -> None:
        """Stop reading what it writes."""
        self._closing.set()
        self._reader.join()

    def __str__(self) -> str:
        """Return what it wrote, without colours."""
        return _STYLE.sub("", self.raw)

    @property
    def raw(self) -> str:
        """What it wrote."""
        return self._received.decode(errors="replace")

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal a new size; the kernel tells the demo."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._ours, keys)

    def echoes(self) -> bool:
        """Whether the terminal shows what is typed, as it does by default."""
        return bool(termios.tcgetattr(self._ours)[3] & termios.ECHO)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return a match in the output as soon as there is one."""
        wait_until(lambda: re.search(pattern, str(self)) or self.process.poll() is not None, f"it says {pattern}")
        found = re.search(pattern, str(self))
        assert found, f"the demo ended: {self}"
        return found

    def wait(self) -> int:
        """Return the exit code, once it ended and everything it wrote is here."""
        code = self.process.wait(timeout=PATIENCE)
        self._reader.join(timeout=PATIENCE)
        return code

    def left(self) -> dict[int, str]:
        """Return the command lines of all its processes that still run, by pid."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark in (folder / "environ").read_text(errors="replace").split("\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
        return found

    def child(self, name: str) -> int:
        """Return the pid of the one process whose command line has this."""
        (pid,) = (pid for pid, line in self.left().items() if name in line)
        return pid

    def _read(self) -> None:
        try:
            while not self._closing.is_set():
                if not select.select([self._ours], [], [], _LOOK_SECONDS)[0]:
                    continue
                received = os.read(self._ours, 65536)
                if not received:
                    break
                self._received += received
        except OSError:
            # A terminal that nobody holds any more.
            pass
        finally:
            os.close(self._ours)
