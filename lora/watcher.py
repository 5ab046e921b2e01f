"""The watcher: a thread that compares the engine with the desired set, again and again."""

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
# An engine that does not list its adapters is asked to load them again this often.
_UNLISTED_ROUNDS: Final = 12


class WatcherObserver(Protocol):
    """Told of each comparison; must not block or raise."""

    def reconciled(self, *, outcome: str) -> None:
        """The engine was compared with the desired set."""


class Watcher:
    """Owns the thread. While nothing is wanted it sleeps, and the engine is not asked."""

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
            engine: What is compared.
            records: What is wanted; those that need work are put into the queue.
            cache: The engine's prefix cache: emptied by a restart, and reset again where a reset failed.
            store: Where later changes are written down.
            procedure: Knows whether the engine lists its adapters.
            housekeeping: Removes directories that are no longer needed.
            observer: Told of each comparison.
            interval: Seconds.
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
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopping.set()
        with self._records.lock:
            self._records.lock.notify_all()

    def join(self, timeout: float) -> None:
        """Wait for its end."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while self._is_needed() and not self._stopping.wait(self._interval):
            try:
                self._compare()
            except Exception:
                logger.exception("comparing the adapters failed: a defect of the runtime")

    def _is_needed(self) -> bool:
        """Wait until there is anything to compare; return whether there is, as the runtime may end instead."""
        with self._records.lock:
            self._records.lock.wait_for(
                lambda: self._stopping.is_set() or self._records.all() or self._cache.remembered()
            )
        return not self._stopping.is_set()

    def _compare(self) -> None:
        try:
            models = self._engine.models()
        except LoraError as error:
            if not self._engine_is_away:
                logger.warning("adapters cannot be compared: %s", error.message)
            self._engine_is_away = True
            self._engine_was_down |= isinstance(error, EngineUnavailableError) and error.is_down
            self._observer.reconciled(outcome="engine_unavailable")
            return
        came_back, self._engine_is_away = self._engine_is_away, False
        restarted, self._engine_was_down = self._engine_was_down, False
        if restarted:
            self._cache.forget(models.adapters)
        self._cache.retry()
        repaired = self._repair(models, came_back=came_back)
        self._records.mark_stale({record.name for record in self._records.all() if self._cache.is_suspect(record.name)})
        self._store.catch_up()
        self._housekeeping.tidy(self._records.all(), models if self._procedure.engine_lists else None)
        self._observer.reconciled(outcome="repaired" if repaired else "in_sync")

    def _repair(self, models: Models, *, came_back: bool) -> int:
        """Put what is to be done into the queue; return for how many adapters."""
        self._rounds += 1
        is_list_trusted = self._procedure.engine_lists or came_back or self._rounds % _UNLISTED_ROUNDS == 0
        repaired = 0
        with self._records.lock:
            for record in self._records.all():
                if record.phase in WORKING:
                    continue
                if is_list_trusted and _is_lost(record, models):
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
    if record.phase in (Phase.SETTLED, Phase.BLOCKED):
        return False
    retry_at = record.failure.retry_at if record.failure else None
    return retry_at is None or retry_at <= time()
