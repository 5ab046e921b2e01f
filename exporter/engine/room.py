"""Room for pages: a limit for the bytes of all pages in memory (docs/adr/0018).

A page stays in memory until the last client has received it. A new scrape waits
while pages fill the room. Clients that read slowly therefore cost no more memory
than a few pages.
"""

from __future__ import annotations

from threading import Condition
from typing import Final

__all__ = ["Hold", "Room"]

# The smallest room that is used for pages, in bytes, whatever --max-scrape-bytes is.
LEAST: Final = 32 * 1024 * 1024


class Room:
    """Counts held bytes; safe for threads.

    Attributes:
        size: Capacity in bytes.
    """

    def __init__(self, size: int = LEAST) -> None:
        self.size = size
        # A Condition has a reentrant lock, and this needs one: `Hold.__del__` may run at any moment,
        # also in a thread that has the lock.
        self._changed = Condition()
        self._held = 0

    def claim(self, size: int, seconds: float) -> Hold | None:
        """Wait until `size` bytes fit and hold them; return `None` if they do not fit within `seconds`.

        The bytes are held until nothing refers to the returned object. A claim
        that is larger than the room succeeds when nothing else is held.
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
    """A number of bytes that is held in a room, and released when this object is destroyed."""

    __slots__ = ("_room", "_size")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._size = 0

    def resize(self, size: int) -> None:
        """Hold `size` bytes from now on; never waits, even if they exceed the room."""
        change, self._size = size - self._size, size
        self._room._add(change)  # noqa: SLF001 - the two are one

    def __del__(self) -> None:
        self.resize(0)
