"""Log lines that a peer can provoke with each message: one a minute, with the count since the last one."""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Seldom"]

_SECONDS: Final = 60.0


class Seldom:
    """Counts what happens, and tells when it is time for a line. For one thread."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        """Start with nothing counted: the first line is due immediately."""
        self._clock = clock
        self._next = -inf
        self._count = 0

    def due(self, count: int = 1) -> int:
        """Add `count`; return the sum since the last line if another is due, else 0."""
        self._count += count
        now = self._clock()
        if now < self._next:
            return 0
        self._next = now + _SECONDS
        count, self._count = self._count, 0
        return count
