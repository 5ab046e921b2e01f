"""Limits for clients: deadlines, and the memory for unread answers and incomplete requests (docs/adr/0014)."""

from __future__ import annotations

import logging
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from exporter.api.channel import Standing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.api.channel import Channel

__all__ = ["UNSENT_BYTES", "Limits"]

logger: Final = logging.getLogger(__name__)

# How often the loop wakes up to check deadlines: while a client is sending a request, and otherwise.
_BUSY_WAKE_UP: Final = 1.0
_IDLE_WAKE_UP: Final = 5.0
# The shortest time between two checks of all connections: with very many of them, a check takes milliseconds.
_LOOK_SECONDS: Final = 0.1
# Bytes of answers that clients have not taken. Beyond it, the clients that have taken longest are disconnected, unless
# they have taken only a moment.
UNSENT_BYTES: Final = 32 * 1024 * 1024
_MOMENT: Final = 1.0
# Bytes of requests that are incomplete or wait for a thread. Beyond it, the largest requests are dropped first.
HELD_BYTES: Final = 16 * 1024 * 1024


class Limits:
    """Closes connections that exceed a limit. For the loop's thread only."""

    def __init__(self, unsent: int = UNSENT_BYTES) -> None:
        """Allow `unsent` bytes of answers that clients have not taken yet."""
        self._unsent = unsent
        self._looked_at = 0.0

    def enforce(self, channels: Sequence[Channel], unsent: int, now: float) -> float:
        """Check all connections, and return the seconds until the next check is due.

        Args:
            channels: The open connections.
            unsent: The sum of the unsent bytes of their answers.
            now: The time by the monotonic clock.
        """
        if unsent > self._unsent:
            _let_go_of_answers(channels, unsent - self._unsent, now)
        left = self._looked_at + _LOOK_SECONDS - now
        if left > 0:
            return left
        self._looked_at = now
        for channel in channels:
            if channel.is_late(now):
                logger.debug("a client was disconnected that was too slow, or idle")
                channel.handle_close()
        held = sum([channel.held() for channel in channels])
        if held > HELD_BYTES:
            _let_go_of_requests(channels, held)
        return _BUSY_WAKE_UP if any(channel.is_receiving() for channel in channels) else _IDLE_WAKE_UP


def _let_go_of_answers(channels: Sequence[Channel], excess: int, now: float) -> None:
    """Close the connections of clients that do not take their answers, until `excess` bytes are freed."""
    waiting = [channel for channel in channels if channel.unsent]
    for channel in sorted(waiting, key=attrgetter("unsent_since")):
        if excess > 0 and now - channel.unsent_since > _MOMENT:
            logger.debug("a client was disconnected that left %d bytes of its answer", channel.unsent)
            channel.handle_close()
            excess -= channel.unsent


def _let_go_of_requests(channels: Sequence[Channel], total: int) -> None:
    """Close the connections with the largest requests that no thread works on, until the sum is within the limit.

    `total` is the sum of all requests in bytes.
    """
    for size, channel in sorted(((one.held(), one) for one in channels), key=lambda pair: pair[0], reverse=True):
        if total > HELD_BYTES and channel.standing()[0] is not Standing.SERVED:
            logger.debug("a client was disconnected that had sent %d bytes of requests", size)
            channel.handle_close()
            total -= size
