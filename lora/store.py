"""The desired set in memory and on disk: what is written, and when.

A call with an asynchronous load or an unload is answered only after the set was
written. Changes that the runtime notices by itself are written as soon as possible.

Writes have their own lock. A thread reads and writes the set while it holds this lock,
so writes happen in the order of the changes. The records' lock is never held during a
write: a state directory that hangs blocks writers only, not scrapes or status requests.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from threading import Lock, Thread
from typing import TYPE_CHECKING, Final

from lora import codes
from lora.errors import LoraError
from lora.state_file import Kept

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora.adapter import Wanted
    from lora.engine.prefix_cache import PrefixCache
    from lora.state_file import Medium
    from lora.transitions import Records

__all__ = ["Store"]

logger: Final = logging.getLogger(__name__)


class Store:
    """Writes the desired set to a medium. Safe for threads; callers must not hold the records' lock."""

    def __init__(self, medium: Medium, records: Records, cache: PrefixCache) -> None:
        """Write the desired adapters of `records` and the served contents of `cache` to `medium`."""
        self._medium = medium
        self._records = records
        self._cache = cache
        self._writing = Lock()
        self._written: Kept | None = None  # `None` while the file may hold something else, after a failed write
        self._is_behind = False

    def restore(self) -> None:
        """Restore the set that the former process wrote."""
        kept = self._written = self._medium.read()
        self._cache.restore(kept.served)
        self._records.restore(kept.wanted, kept.removed)

    @contextmanager
    def promised(self, name: str, wanted: Wanted | None) -> Iterator[None]:
        """Write the set with `name` changed to `wanted`, or removed; the block then changes the records.

        The write comes first: if it fails, the call fails and no record changes.

        Raises:
            LoraError: The set cannot be written.
        """
        with self._writing:
            try:
                self._write(_changed(self._present(), name, wanted))
            except OSError as error:
                raise LoraError(codes.STATE_NOT_KEPT, f"--state-dir cannot be written: {error.strerror}") from error
            yield

    def write(self) -> None:
        """Write the set if it changed. A failure is logged once, until a write succeeds again."""
        with self._writing:
            self._catch_up()

    def catch_up(self) -> None:
        """Write the set in a thread of its own if it changed, unless another thread is writing.

        The watcher calls this: it must not wait for a state directory that hangs.
        """
        if not self._writing.locked() and self._present() != self._written:
            Thread(target=self.write, name="lora-store", daemon=True).start()

    def _catch_up(self) -> None:
        kept = self._present()
        if kept == self._written:
            return
        try:
            self._write(kept)
            self._is_behind = False
        except OSError as error:
            if not self._is_behind:
                logger.error("the desired adapters cannot be kept: %s", error.strerror)
            self._is_behind = True

    def _present(self) -> Kept:
        with self._records.lock:
            records = sorted(self._records.all(), key=lambda record: record.name)
            wanted = tuple(record.desired for record in records if record.desired)
            removed = tuple(record.name for record in records if record.intent == "gone")
            return Kept(wanted, removed, self._cache.remembered())

    def _write(self, kept: Kept) -> None:
        # After a failed write the file may have either content, so the next write must not be skipped.
        self._written = None
        self._medium.write(kept)
        self._written = kept


def _changed(kept: Kept, name: str, wanted: Wanted | None) -> Kept:
    """Return the set with `name` set to `wanted`, or with `name` removed."""
    adapters = {one.name: one for one in kept.wanted if one.name != name} | ({name: wanted} if wanted else {})
    removed = {*kept.removed, name} if wanted is None else {*kept.removed} - {name}
    return Kept(tuple(adapters[key] for key in sorted(adapters)), tuple(sorted(removed)), kept.served)
