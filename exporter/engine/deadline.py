"""One deadline for all that a scrape reads, however the engine spreads it."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Deadline", "DeadlineSocket", "DeadlineTLSSocket"]

_BUFFER: Final = 1 << 16


class Deadline:
    """The moment by which the request under way must be over.

    A socket's timeout counts from one read to the next, so an engine that sends
    a byte now and then would hold a scrape for ever. The sockets below give
    each read only what is left.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._at = 0.0

    def set(self, budget: float) -> None:
        """Allow so many seconds from now."""
        self._at = self._clock() + budget

    def left(self) -> float:
        """Return the seconds left; raises TimeoutError when there are none."""
        left = self._at - self._clock()
        if left <= 0:
            message = "the deadline is over"
            raise TimeoutError(message)
        return left


class DeadlineSocket(socket.socket):
    """A socket that reads until its `deadline`."""

    deadline: Deadline

    def makefile(self, *args: Any, **kwargs: Any) -> Any:
        """Return a file whose buffer holds a small page, which is then there with one read."""
        return super().makefile(*args, **({"buffering": _BUFFER} | kwargs))

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Read, within what is left."""
        self.settimeout(self.deadline.left())
        return super().recv_into(*args, **kwargs)


class DeadlineTLSSocket(ssl.SSLSocket):
    """An encrypted one; its deadline is put on once it is connected."""

    deadline: Deadline

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Read, within what is left."""
        # The handshake reads too, before the deadline has been put on.
        if hasattr(self, "deadline"):
            self.settimeout(self.deadline.left())
        return super().recv_into(*args, **kwargs)
