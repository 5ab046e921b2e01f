"""Pauses that end early: on a signal that ends the demo, on a key, on a new size of the terminal.

Handlers only leave a byte in a socket, which the pause watches: nothing is ever interrupted half done.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Pauses", "StopDemo"]

_END_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What Ctrl-C types while the terminal makes no signals of keys.
_END_KEYS: Final = frozenset(b"qQ\x03")


class StopDemo(Exception):
    """Somebody asked the demo to end."""


class Pauses:
    """The one place where the demo waits; signals are its own while the ``with`` block runs."""

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.settimeout(0)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader, selectors.EVENT_READ)
        self._former_wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        # Under nohup the terminal may go, as whoever started it wants.
        ends = [number for number in _END_SIGNALS if number != signal.SIGHUP or _is_heeded(number)]
        self._former = {number: signal.signal(number, _leave_to_wakeup) for number in (*ends, signal.SIGWINCH)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._former_wakeup)
        self._selector.close()
        self._reader.close()
        self._writer.close()

    def watch_keys(self, keyboard: int) -> None:
        """End on `q` and Ctrl-C, read from this file descriptor."""
        self._selector.register(keyboard, selectors.EVENT_READ)

    def pause(self, seconds: float) -> bool:
        """Wait; return at once and with True when the terminal has a new size.

        Raises:
            StopDemo: A signal or a key asks for the end.
        """
        deadline = monotonic() + seconds
        while True:
            for key, _ in self._selector.select(max(0.0, deadline - monotonic())):
                if self._read(key.fd):
                    return True
            if monotonic() >= deadline:
                return False

    def _read(self, source: int) -> bool:
        received = os.read(source, 1024)
        if source != self._reader.fileno():
            if not received:
                self._selector.unregister(source)
            if _END_KEYS.intersection(received):
                raise StopDemo
            return False
        if set(_END_SIGNALS).intersection(received):
            raise StopDemo
        return signal.SIGWINCH in received


def _is_heeded(number: signal.Signals) -> bool:
    return signal.getsignal(number) != signal.SIG_IGN


def _leave_to_wakeup(number: int, frame: object) -> None:
    """Do nothing: the byte in the socket is all that is wanted."""
