"""Room for pages: how many bytes of them are held at once.

A page is held while it is checked and until the last of its readers has taken
it. A scrape waits while there is too much of that, so that readers who take
their time cost no more memory than a few pages.
"""

from __future__ import annotations

from threading import Condition
from typing import Final

__all__ = ["Hold", "Room"]

# Less is never too much.
LEAST: Final = 32 * 1024 * 1024


class Room:
    """Counts held bytes; safe for threads.

    Attributes:
        size: Bytes beyond which nothing more is begun.
    """

    def __init__(self, size: int = LEAST) -> None:
        """Offer so many bytes."""
        self.size = size
        # Its lock is reentrant: a hold may be let go of anywhere, by the garbage collector too.
        self._changed = Condition()
        self._held = 0

    def claim(self, size: int, seconds: float) -> Hold | None:
        """Hold `size` bytes as soon as they fit, or `None` if they do not within `seconds`.

        They are held until nothing refers to the returned object any more. What
        is larger than the room fits when nothing else is held.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._held or self._held + size <= self.size, seconds):
                return None
            hold = Hold(self)
            hold.resize(size)
            return hold

    def _add(self, size: int) -> None:
        with self._changed:
            self._held += size
            if size < 0:
                self._changed.notify_all()


class Hold:
    """Some bytes of a room."""

    __slots__ = ("_room", "_size")

    def __init__(self, room: Room) -> None:
        """Hold nothing yet."""
        self._room = room
        self._size = 0

    def resize(self, size: int) -> None:
        """Hold so many bytes from now on."""
        change, self._size = size - self._size, size
        self._room._add(change)  # noqa: SLF001 - the two are one

    def __del__(self) -> None:
        self.resize(0)
