"""The watcher: a thread that periodically compares the engine's adapters with the desired set, and queues repairs."""

from __future__ import annotations

import logging
from threading import Event, Thread
from time import time
from typing import TYPE_CHECKING, Final, Protocol

from lora.errors import EngineUnavailableError, LoraError
from lora.record import WORKING, Phase

if TYPE_CHECKING:
    from lora.engine.client import EngineClient, Models
    from lora.engine.prefix_cache import PrefixCache
    from lora.housekeeping import Housekeeping
    from lora.procedure import Procedure
    from lora.record import Record
    from lora.store import Store
    from lora.transitions import Records

__all__ = ["RECONCILES", "Watcher", "WatcherObserver"]

logger: Final = logging.getLogger(__name__)

RECONCILES: Final = ("in_sync", "repaired", "engine_unavailable")
# An engine that does not list its adapters (SGLang before 0.5.6) is asked to load them again every so many rounds.
_UNLISTED_ROUNDS: Final = 12


class WatcherObserver(Protocol):
    """Receives each comparison. Implementations must not block or raise."""

    def reconciled(self, *, outcome: str) -> None:
        """The engine was compared with the desired set; `outcome` is one of `RECONCILES`."""


class Watcher:
    """Owns the thread. Without adapters it sleeps, and sends no requests to the engine."""

    def __init__(
        self,
        engine: EngineClient,
        records: Records,
        cache: PrefixCache,
        store: Store,
        procedure: Procedure,
        housekeeping: Housekeeping,
        observer: WatcherObserver,
        *,
        interval: float,
    ) -> None:
        """Compare every `interval` seconds.

        Args:
            engine: The engine to compare.
            records: The adapters; those that need work are queued.
            cache: The engine's prefix cache. A restart empties it; a reset that failed is retried.
            store: Writes changes that a failed write left behind.
            procedure: Knows whether the engine lists its adapters.
            housekeeping: Removes directories that are no longer needed.
            observer: Receives each comparison.
            interval: Seconds between two comparisons.
        """
        self._engine = engine
        self._records = records
        self._cache = cache
        self._store = store
        self._procedure = procedure
        self._housekeeping = housekeeping
        self._observer = observer
        self._interval = interval
        self._stopping = Event()
        self._rounds = 0
        self._engine_is_away = False
        self._engine_was_down = False
        self._thread = Thread(target=self._run, name="lora-watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, and wake it if it sleeps."""
        self._stopping.set()
        with self._records.lock:
            self._records.lock.notify_all()

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended, for `timeout` seconds at most."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while self._is_needed() and not self._stopping.wait(self._interval):
            try:
                self._compare()
            except Exception:
                logger.exception("comparing the adapters failed: a defect of the runtime")

    def _is_needed(self) -> bool:
        """Wait until there are adapters to compare; return False if the runtime stops."""
        with self._records.lock:
            self._records.lock.wait_for(lambda: self._stopping.is_set() or self._records.all() or self._has_left_any())
        return not self._stopping.is_set()

    def _has_left_any(self) -> bool:
        """Tell whether adapters that are gone may have left blocks in the engine's cache: its restart is worth knowing.

        Those of an earlier process are not looked after while nothing is wanted: an idle runtime asks nothing.
        """
        return self._records.were_any and bool(self._cache.remembered())

    def _compare(self) -> None:
        since = self._records.changes
        try:
            models = self._engine.models()
        except LoraError as error:
            # Logged once, until the engine is back.
            if not self._engine_is_away:
                logger.warning("adapters cannot be compared: %s", error.message)
            self._engine_is_away = True
            # Only a refused connection proves that the process ended. After a timeout it may be the same process, with
            # its cache.
            self._engine_was_down |= isinstance(error, EngineUnavailableError) and error.is_down
            self._observer.reconciled(outcome="engine_unavailable")
            return
        came_back, self._engine_is_away = self._engine_is_away, False
        restarted, self._engine_was_down = self._engine_was_down, False
        # A new process has an empty prefix cache, so the contents of its predecessor are forgotten before any load.
        self._procedure.engine_lists |= bool(models.adapters)
        if restarted:
            self._cache.forget(models.adapters)
        self._cache.retry()
        repaired = self._repair(models, since, came_back=came_back)
        self._records.mark_stale(self._cache.is_suspect)
        self._store.catch_up()
        self._housekeeping.tidy(self._records.all(), models if self._procedure.engine_lists else None)
        self._observer.reconciled(outcome="repaired" if repaired else "in_sync")

    def _repair(self, models: Models, since: int, *, came_back: bool) -> int:
        """Queue the records that need work; return how many there are."""
        self._rounds += 1
        # An engine that never lists its adapters would look as if it had lost all of them at each round. After an
        # outage, and now and then, its adapters are loaded again: the engine answers "already loaded" if it has them.
        is_list_trusted = self._procedure.engine_lists or came_back or self._rounds % _UNLISTED_ROUNDS == 0
        repaired = 0
        with self._records.lock:
            for record in self._records.all():
                if record.phase in WORKING:
                    continue
                # A list that was requested earlier than a load ended may lack what was loaded.
                is_known = is_list_trusted and record.changed <= since
                if is_known and _is_lost(record, models):
                    self._cache.unloaded(record.name)
                    self._records.lost(record)
                elif _is_due(record):
                    self._records.due(record)
                else:
                    continue
                repaired += 1
        return repaired


def _is_lost(record: Record, models: Models) -> bool:
    return record.loaded is not None and models.adapters.get(record.name) != str(record.loaded.engine_path)


def _is_due(record: Record) -> bool:
    # BLOCKED waits for a restart of the engine, which `_is_lost` notices.
    if record.phase in (Phase.SETTLED, Phase.BLOCKED):
        return False
    retry_at = record.failure.retry_at if record.failure else None
    return retry_at is None or retry_at <= time()
