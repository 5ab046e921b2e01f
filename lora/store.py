"""What of the slots outlives the process, and when it is written down.

A promise is written before the call is answered; what was noticed later is
written as soon as that works. The writes have a lock of their own, in which the
set is read and written, so their order is that of the changes. Only a thread that
writes waits for the disk: the manager's lock is never held meanwhile.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Final

from lora.errors import LoraError
from lora.state_file import Kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lora.adapter import Wanted
    from lora.engine.prefix_cache import Served
    from lora.record import Slot
    from lora.state_file import Desired

__all__ = ["Keeping", "kept_of"]

_log: Final = logging.getLogger(__name__)


class Keeping:
    """Keeps the desired set; safe for threads, which must not hold the manager's lock."""

    def __init__(self, desired: Desired, present: Callable[[], Kept]) -> None:
        """Keep in `desired` what `present` returns, which takes the manager's lock."""
        self._desired = desired
        self._present = present
        self._writing = Lock()
        self._written: Kept | None = None  # `None` while the disk may hold something else
        self._is_behind = False

    def read(self) -> Kept:
        """Return what was kept by the process before."""
        self._written = self._desired.read()
        return self._written

    @contextmanager
    def promised(self, name: str, wanted: Wanted | None) -> Iterator[None]:
        """Write the set down with an adapter, or without; the block then makes it so.

        Raises:
            LoraError: It cannot be kept.
        """
        with self._writing:
            try:
                self._write(_changed(self._present(), name, wanted))
            except OSError as error:
                raise LoraError("state_not_kept", f"--state-dir cannot be written: {error.strerror}") from error
            yield

    def write(self) -> None:
        """Write the set down if it changed; log once when that is not possible."""
        with self._writing:
            self._catch_up()

    def catch_up(self) -> None:
        """Do the same, unless another thread is writing."""
        if self._writing.acquire(blocking=False):
            try:
                self._catch_up()
            finally:
                self._writing.release()

    def _catch_up(self) -> None:
        kept = self._present()
        if kept == self._written:
            return
        try:
            self._write(kept)
            self._is_behind = False
        except OSError as error:
            if not self._is_behind:
                _log.error("the desired adapters cannot be kept: %s", error.strerror)
            self._is_behind = True

    def _write(self, kept: Kept) -> None:
        self._written = None
        self._desired.write(kept)
        self._written = kept


def kept_of(slots: Iterable[Slot], served: tuple[Served, ...]) -> Kept:
    """Return what is desired, what is on its way out, and what the cache may hold; called with the manager's lock held."""
    slots = sorted(slots, key=lambda slot: slot.name)
    wanted = tuple(slot.desired for slot in slots if slot.desired)
    return Kept(wanted, tuple(slot.name for slot in slots if slot.leaving and not slot.desired), served)


def _changed(kept: Kept, name: str, wanted: Wanted | None) -> Kept:
    """Return the set with another adapter under a name, or with none."""
    adapters = {one.name: one for one in kept.wanted if one.name != name} | ({name: wanted} if wanted else {})
    removed = {*kept.removed, name} if wanted is None else {*kept.removed} - {name}
    return Kept(tuple(adapters[key] for key in sorted(adapters)), tuple(sorted(removed)), kept.served)
