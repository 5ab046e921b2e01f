"""Rate limit for log lines that a peer could provoke with each message: one per minute, with a count."""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Seldom"]

_SECONDS: Final = 60.0


class Seldom:
    """Counts events of one kind, and tells when a log line is due; the first one immediately. Not thread-safe."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._next = -inf
        self._count = 0

    def due(self, count: int = 1) -> int:
        """Add `count`; return the sum since the last line if another line is due, else 0."""
        self._count += count
        now = self._clock()
        if now < self._next:
            return 0
        self._next = now + _SECONDS
        count, self._count = self._count, 0
        return count
