"""The desired set, and when it is written down.

A promise is written before the call is answered; what was noticed later is
written as soon as that works. The writes have a lock of their own, in which the
set is read and written, so their order is that of the changes. Only a thread that
writes waits for the disk: the records' lock is never held meanwhile.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from threading import Lock
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
    """Keeps the desired set; safe for threads, which must not hold the records' lock."""

    def __init__(self, medium: Medium, records: Records, cache: PrefixCache) -> None:
        """Keep in `medium` what the records and the cache say."""
        self._medium = medium
        self._records = records
        self._cache = cache
        self._writing = Lock()
        self._written: Kept | None = None  # `None` while the disk may hold something else
        self._is_behind = False

    def restore(self) -> None:
        """Take up what was kept by the process before."""
        kept = self._written = self._medium.read()
        self._cache.restore(kept.served)
        self._records.restore(kept.wanted, kept.removed)

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
                raise LoraError(codes.STATE_NOT_KEPT, f"--state-dir cannot be written: {error.strerror}") from error
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
                logger.error("the desired adapters cannot be kept: %s", error.strerror)
            self._is_behind = True

    def _present(self) -> Kept:
        with self._records.lock:
            records = sorted(self._records.all(), key=lambda record: record.name)
            wanted = tuple(record.desired for record in records if record.desired)
            removed = tuple(record.name for record in records if record.intent == "gone")
            return Kept(wanted, removed, self._cache.remembered())

    def _write(self, kept: Kept) -> None:
        self._written = None
        self._medium.write(kept)
        self._written = kept


def _changed(kept: Kept, name: str, wanted: Wanted | None) -> Kept:
    """Return the set with another adapter under a name, or with none."""
    adapters = {one.name: one for one in kept.wanted if one.name != name} | ({name: wanted} if wanted else {})
    removed = {*kept.removed, name} if wanted is None else {*kept.removed} - {name}
    return Kept(tuple(adapters[key] for key in sorted(adapters)), tuple(sorted(removed)), kept.served)
