"""The manager: the interface to the desired set, for HTTP calls, the Model YAML and the API's lists.

calls, Model ----> manager ----> records <---- workers: procedure ----> engine, downloads
                                 (transitions)
                                    ^---- watcher: compares with the engine; store: writes the state file
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Final

from lora import codes
from lora.adapter import Origin, State, Status, check_name
from lora.engine.listed import Listed
from lora.engine.prefix_cache import PATIENCE_SECONDS
from lora.errors import InvalidAdapterError, UnknownAdapterError
from lora.files.references import References
from lora.record import Goal
from lora.room import Room
from lora.transitions import Records
from lora.wiring import INTERVAL_SECONDS, wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from lora.adapter import Wanted
    from lora.engine.client import EngineClient
    from lora.files.installation import Downloads, Extras
    from lora.record import Record
    from lora.state_file import Medium
    from lora.wiring import Observer
    from storage.request.config import Config

__all__ = ["Manager"]

logger: Final = logging.getLogger(__name__)


class Manager:
    """Holds the desired set and the threads that reconcile the engine with it; safe for threads."""

    def __init__(
        self,
        engine: EngineClient,
        downloads: Downloads,
        medium: Medium,
        observer: Observer,
        *,
        config: Config,
        pod: str,
        interval: float = INTERVAL_SECONDS,
        reset_patience: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Build the parts; no thread runs before `start`.

        Args:
            engine: The engine that loads adapters.
            downloads: Downloads adapters' files.
            medium: Stores the desired set.
            observer: Receives events for metrics.
            config: The pod's own credentials and endpoints.
            pod: The pod's name; it identifies this runtime's references on shared volumes.
            interval: Seconds between two comparisons with the engine.
            clock: A monotonic clock in seconds.
            reset_patience: Seconds during which a load retries the reset of the engine's prefix cache.
        """
        self._engine = engine
        self._downloads = downloads
        self._clock = clock
        self._room = Room(config)
        self._listed = Listed(engine)
        self._records = Records(downloads.cancel)
        self._store, self._workers, self._watcher = wire(
            self._records, engine, downloads, medium, observer,
            references=References(pod, clock=clock), config=config, interval=interval, reset_patience=reset_patience, clock=clock,
        )  # fmt: skip

    def start(self) -> None:
        """Restore the desired set and start the threads."""
        self._store.restore()
        self._workers.start()
        self._watcher.start()

    def stop(self) -> None:
        """Cancel downloads and start no more work. Adapters stay loaded in the engine."""
        jobs = self._records.stop()
        self._watcher.stop()
        for job in jobs:
            self._downloads.cancel(job)

    def join(self, timeout: float) -> None:
        """Wait for the threads to end, for `timeout` seconds at most: an engine may never answer."""
        end = self._clock() + timeout
        self._workers.join(end)
        self._watcher.join(max(end - self._clock(), 0.0))

    def load(self, wanted: Wanted, *, kept: bool, extras: Extras | None = None) -> Goal:
        """Ask for an adapter; the goal's `done` is set when it is loaded, or when an attempt failed.

        Args:
            wanted: The adapter. A caller who asks for the adapter that is being loaded gets the same goal.
            kept: Whether it joins the desired set immediately. Otherwise it joins once it is loaded, so that a failed
                synchronous call leaves nothing behind (docs/adr/0010).
            extras: The call's credentials and settings for the download.

        Raises:
            InvalidAdapterError: Its name or path is invalid.
            LoraError: The desired set cannot be written, or has no room for another adapter.
        """
        check_name(wanted.name)
        if not wanted.path.is_absolute():
            raise InvalidAdapterError(codes.INVALID_PATH, f"the directory must be absolute, not {wanted.path}")
        with self._records.lock:
            self._room.check(self._records.all(), wanted, extras)
        if not kept:
            return self._aim(wanted.name, wanted, extras).goal
        # The write comes first and without the records' lock: readers must not wait for the disk.
        with self._store.promised(wanted.name, self._records.with_known(wanted)), self._records.lock:
            record = self._aim(wanted.name, wanted, extras)
            self._records.intend(record, self._records.with_known(wanted))
            return record.goal

    def unload(self, name: str) -> Goal:
        """Withdraw an adapter; the goal's `done` is set when the engine no longer has it, or when an attempt failed.

        Raises:
            UnknownAdapterError: Neither the runtime nor the engine knows it.
            LoraError: The desired set cannot be written, or the engine does not answer.
        """
        check_name(name)
        if self._records.get(name) is None and name not in self._engine.models().adapters:
            raise UnknownAdapterError(name)
        # An unload is always kept: after a restart of either process, the adapter must still go.
        with self._store.promised(name, None), self._records.lock:
            record = self._aim(name, None)
            self._records.intend(record, "gone")
            return record.goal

    def _aim(self, name: str, wanted: Wanted | None, extras: Extras | None = None) -> Record:
        """Return an adapter's record, after giving it a goal unless its goal is already what the caller wants."""
        with self._records.lock:
            record = self._records.get(name)
            if record is None or not record.goal.is_under_way(wanted):
                record = self._records.aim(name, Goal(wanted, kept=wanted is None, extras=extras))
            return record

    def want_exactly(self, wanted: Iterable[Wanted]) -> None:
        """Make the Model's part of the desired set equal to `wanted`; adapters that calls asked for stay as they are.

        Raises:
            LoraError: The desired set cannot be written, or has no room.
        """
        new = {one.name: one for one in wanted}
        with self._records.lock:
            desired = [record.desired for record in self._records.all() if record.desired]
        ours = {one.name: one for one in desired if one.origin is Origin.MODEL}
        others = {one.name for one in desired} - set(ours)
        for name in ours.keys() - new.keys():
            self.unload(name)
        for name, one in new.items():
            if name in others:
                logger.warning("adapter %s of the Model is left as a call asked for it", name)
            elif not one.is_same(ours.get(name)):
                self.load(one, kept=True)

    def managed(self) -> list[Status]:
        """Return the status of the managed adapters, without a request to the engine."""
        with self._records.lock:
            return [record.status() for record in self._records.all()]

    def statuses(self) -> list[Status]:
        """Return the status of all adapters by name, including those that other clients loaded."""
        statuses = {status.name: status for status in self.managed()}
        for name, path in self._listed.read().items():
            statuses.setdefault(name, Status(name, State.LOADED, managed=False, path=path))
        return [statuses[name] for name in sorted(statuses)]

    def status(self, name: str) -> Status:
        """Return the status of an adapter, managed or not.

        Raises:
            UnknownAdapterError: Neither the runtime nor the engine has an adapter of this name.
        """
        with self._records.lock:
            record = self._records.get(name)
            if record:
                return record.status()
        found = next((status for status in self.statuses() if status.name == name), None)
        if found is None:
            raise UnknownAdapterError(name)
        return found

    def holds(self, path: Path) -> bool:
        """Tell whether the files of a loaded adapter are in a directory, or below it."""
        with self._records.lock:
            return any(one.loaded and one.loaded.engine_path.is_relative_to(path) for one in self._records.all())
