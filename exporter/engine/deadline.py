"""Sockets that share one deadline for a whole fetch (docs/adr/0002).

A socket's own timeout counts from one read to the next. An engine that sends a
byte now and then would hold a scrape forever, and Prometheus would give up first.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Deadline", "DeadlineSocket", "DeadlineTLSSocket"]

_BUFFER: Final = 1 << 16


class Deadline:
    """The end of the current fetch. The sockets below give each read only the time that is left."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = 0.0

    def set(self, budget: float) -> None:
        """Set the end to `budget` seconds from now."""
        self._at = self._clock() + budget

    def left(self) -> float:
        """Return the seconds left, always above 0.

        Raises:
            TimeoutError: No time is left.
        """
        left = self._at - self._clock()
        if left <= 0:
            message = "the deadline is over"
            raise TimeoutError(message)
        return left


class DeadlineSocket(socket.socket):
    """A socket whose reads end at its `deadline`. Set `deadline` before the first read."""

    deadline: Deadline

    def makefile(self, *args: Any, **kwargs: Any) -> Any:
        """Return a file with a buffer for a small page, which then needs one system call instead of many."""
        return super().makefile(*args, **({"buffering": _BUFFER} | kwargs))

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Read within the time that is left; the file of `makefile` reads with this method only."""
        self.settimeout(self.deadline.left())
        return super().recv_into(*args, **kwargs)


class DeadlineTLSSocket(ssl.SSLSocket):
    """A TLS socket whose reads end at its `deadline`, which is set after the handshake."""

    deadline: Deadline

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Read within the time that is left, if there is a deadline yet."""
        # The handshake comes first: `SSLContext.wrap_socket` creates the object without a deadline.
        if hasattr(self, "deadline"):
            self.settimeout(self.deadline.left())
        return super().recv_into(*args, **kwargs)
