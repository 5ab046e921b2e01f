"""What of the slots outlives the process, and when it is written down.

What a call is promised is written before it is answered; what was noticed later is written as soon as that works.
The manager calls this with its lock held.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from lora.desired import Kept
from lora.errors import LoraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lora.adapter import Wanted
    from lora.desired import Desired
    from lora.prefix_cache import Served
    from lora.slot import Slot

__all__ = ["Keeping"]

_log: Final = logging.getLogger(__name__)


class Keeping:
    """Keeps the desired set as the slots have it."""

    def __init__(self, desired: Desired, served: Callable[[], tuple[Served, ...]]) -> None:
        """Keep it in `desired`, with what `served` returns of the engine's prefix cache."""
        self._desired = desired
        self._served = served
        self._is_behind = False
        self._written: tuple[Served, ...] = ()

    def read(self) -> Kept:
        """Return what was kept by the process before."""
        kept = self._desired.read()
        self._written = kept.served
        return kept

    def first(self, slots: Iterable[Slot], name: str, wanted: Wanted | None) -> None:
        """Write the set down as it is about to be: with an adapter, or without.

        Raises:
            LoraError: It cannot be kept.
        """
        try:
            self._write(slots, {name: wanted})
        except OSError as error:
            raise LoraError("state_not_kept", f"--state-dir cannot be written: {error.strerror}") from error

    def desire(self, slots: Iterable[Slot], slot: Slot, wanted: Wanted) -> None:
        """Want from now on what is loaded."""
        is_new, slot.desired = slot.desired != wanted, wanted
        if is_new:
            self.write(slots)
        else:
            self.catch_up(slots)

    def catch_up(self, slots: Iterable[Slot]) -> None:
        """Write the set down if that failed the last time, or the cache may hold something else by now."""
        if self._is_behind or self._served() != self._written:
            self.write(slots)

    def write(self, slots: Iterable[Slot]) -> None:
        """Write the set down as it is; say so once when that is not possible."""
        try:
            self._write(slots, {})
            self._is_behind = False
        except OSError as error:
            if not self._is_behind:
                _log.error("the desired adapters cannot be kept: %s", error.strerror)
            self._is_behind = True

    def _write(self, slots: Iterable[Slot], changes: Mapping[str, Wanted | None]) -> None:
        kept = self._kept(slots, changes)
        self._desired.write(kept)
        self._written = kept.served

    def _kept(self, slots: Iterable[Slot], changes: Mapping[str, Wanted | None]) -> Kept:
        """Return what is desired, what is on its way out, and what the cache may hold."""
        slots = list(slots)
        desired = {slot.name: slot.desired for slot in slots} | dict(changes)
        leaving = {slot.name for slot in slots if slot.leaving}
        leaving |= {name for name, wanted in changes.items() if wanted is None}
        return Kept(
            tuple(wanted for wanted in desired.values() if wanted),
            tuple(name for name in leaving if desired.get(name) is None),
            self._served(),
        )
