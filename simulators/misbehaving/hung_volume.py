"""A volume whose server is gone: a call that names a path on it waits without end.

No such volume is mounted, which takes rights that containers lack. Programs are
started with a seccomp filter (`trapped.py`): their calls with a path wait until
this process lets them go on. It never does where the path, links resolved, is on
the volume. Any user may do that, also as `docker run` starts containers by
default; it takes Linux 5.5.
"""

from __future__ import annotations

import os
import platform
import select
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager, suppress
from fcntl import ioctl
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest

from simulators.misbehaving import trapped

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HungVolume", "hung_volume"]

_RECEIVE: Final = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV
_SEND: Final = 0xC0182101  # SECCOMP_IOCTL_NOTIF_SEND
_CALL: Final = struct.Struct("QIIiIQ6Q")
_LET_GO_ON: Final = 1
_LONGEST_PATH: Final = 4096
_WHAT_TO_DO: Final = (
    "a hung volume takes seccomp's user notifications: Linux 5.5 or later, and a container whose own seccomp profile "
    "allows seccomp(2) and has no listener itself, as Docker's default profile does; and this process must be allowed "
    "to read the memory of its children (/proc/PID/mem)"
)


class HungVolume:
    """Lets no call end that programs started with `confine` make on it.

    Attributes:
        folder: Where it is.
        is_blind: Whether it may not see which path a program names.
        waiting: The threads whose calls have met the volume, each once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._name = f"kthena-hung-{uuid4().hex}"
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(f"\0{self._name}")
        self._door.listen()
        self._end, self._end_asked = os.pipe()
        self._listeners: list[int] = []
        self._thread = Thread(target=self._serve, daemon=True)
        self.is_blind = False
        self.waiting: set[int] = set()

    def confine(self, command: list[str]) -> list[str]:
        """Return the command that runs `command` where this volume hangs."""
        return [sys.executable, "-I", "-S", trapped.__file__, self._name, *command]

    def start(self) -> None:
        """Begin to hang."""
        self._thread.start()

    def stop(self) -> None:
        """End; calls that wait fail, so the programs should have ended before."""
        os.close(self._end_asked)
        self._thread.join()
        for each in (self._end, *self._listeners):
            os.close(each)
        self._door.close()

    def _serve(self) -> None:
        while True:
            watched: list[socket.socket | int] = [self._door, self._end, *self._listeners]
            ready = select.select(watched, [], [])[0]
            if self._end in ready:
                return
            for each in ready:
                if isinstance(each, int):
                    self._answer(each)
                else:
                    self._welcome()

    def _welcome(self) -> None:
        client, _ = self._door.accept()
        with client:
            self._listeners += socket.recv_fds(client, 1, 1)[1]

    def _answer(self, listener: int) -> None:
        """Let a call go on if it is not about the volume."""
        call = bytearray(_CALL.size)
        try:
            ioctl(listener, _RECEIVE, call)
        except FileNotFoundError:  # the caller has ended meanwhile, or all of them
            self._forget_dead(listener)
            return
        number, thread, _, kind, _, _, *arguments = _CALL.unpack(call)
        if self._is_mine(thread, kind, arguments):
            self.waiting.add(thread)
            return
        with suppress(FileNotFoundError):
            ioctl(listener, _SEND, struct.pack("QqiI", number, 0, 0, _LET_GO_ON))

    def _forget_dead(self, listener: int) -> None:
        poll = select.poll()
        poll.register(listener, 0)
        if poll.poll(0):
            self._listeners.remove(listener)
            os.close(listener)

    def _is_mine(self, thread: int, kind: int, arguments: list[int]) -> bool:
        first = trapped.MACHINES[platform.machine()][2]
        try:
            path = _text(thread, arguments[0 if kind in first else 1])
            base = Path(f"/proc/{thread}/cwd").readlink()
        except PermissionError:
            self.is_blind = True
            return False
        except OSError:  # it has ended
            return False
        return bool(path) and Path(os.path.realpath(base / path)).is_relative_to(self.folder)


def _text(thread: int, address: int) -> str:
    """Return the text at an address of a thread's memory."""
    memory = os.open(f"/proc/{thread}/mem", os.O_RDONLY)
    try:
        # Not beyond a page's end, behind which there may be nothing.
        size = _LONGEST_PATH - address % _LONGEST_PATH
        text = os.pread(memory, size, address)
        if b"\0" not in text and size < _LONGEST_PATH:
            with suppress(OSError):
                text += os.pread(memory, _LONGEST_PATH, address + size)
    finally:
        os.close(memory)
    return os.fsdecode(text.partition(b"\0")[0])


@contextmanager
def hung_volume(folder: Path) -> Iterator[HungVolume]:
    """Make a new `folder`, and make it one for the programs that are started with its `confine`; fail where that cannot be done."""
    folder.mkdir()
    volume = HungVolume(folder)
    volume.start()
    try:
        tried = subprocess.run(volume.confine(["/bin/true"]), capture_output=True, text=True, check=False, timeout=60)
        if tried.returncode or volume.is_blind:
            pytest.fail(f"{_WHAT_TO_DO}; {tried.stderr.strip()}")
        yield volume
    finally:
        volume.stop()
