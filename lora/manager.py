"""The manager: the desired set, and the threads that make the engine match it.

An adapter's operations are serial, those of different adapters parallel. Each
has a slot with a goal; a new goal replaces the one before, and a worker carries
it out. Goals that are kept are tried again until they are reached: at once when
the engine comes back, else after a pause that grows, each adapter's its own.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace
from threading import Condition, Semaphore, Thread
from time import monotonic, time
from typing import TYPE_CHECKING, Final, Protocol

from lora.adapter import Origin, State, Status, check_name
from lora.engine.prefix_cache import PATIENCE_SECONDS, CacheObserver, PrefixCache
from lora.errors import EngineUnavailableError, InvalidAdapterError, LoraError, UnknownAdapterError, WithdrawnError
from lora.files.contents import Contents
from lora.files.installation import Installation
from lora.files.references import References
from lora.housekeeping import Housekeeping
from lora.procedure import RolledBackError, Steps
from lora.record import Goal, Slot
from lora.room import Room
from lora.store import Keeping, kept_of
from lora.watcher import Reconciler, ReconcilerObserver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from lora.adapter import Wanted
    from lora.engine.client import EngineClient, Models
    from lora.files.installation import Downloads, Extras
    from lora.state_file import Desired, Kept
    from storage.request.config import Config

__all__ = ["OPERATIONS", "OUTCOMES", "Manager", "Observer"]

_log: Final = logging.getLogger(__name__)

WORKERS: Final = 8
INTERVAL_SECONDS: Final = 5.0
# Callers that ask the engine for its list at once, and how long another waits for a place.
_ASKERS: Final = 2
_ASK_SECONDS: Final = 0.5
_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 300.0
# An engine that does not list its adapters is asked to load them again this often.
_UNLISTED_ROUNDS: Final = 12

OPERATIONS: Final = ("load", "unload")
OUTCOMES: Final = ("done", "failed", "engine_unavailable")


class Observer(ReconcilerObserver, CacheObserver, Protocol):
    """Told of what happens, for metrics; must not block or raise."""

    def operated(self, *, operation: str, outcome: str, seconds: float) -> None:
        """A load or an unload ended."""


class Manager:
    """Holds the adapters that should be loaded; safe for threads."""

    def __init__(  # noqa: PLR0913 - its collaborators
        self,
        engine: EngineClient,
        downloads: Downloads,
        desired: Desired,
        observer: Observer,
        *,
        config: Config,
        pod: str,
        cancel: Callable[[str], object],
        interval: float = INTERVAL_SECONDS,
        reset_patience: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Prepare; nothing is loaded before `start`.

        Args:
            engine: Where adapters are loaded.
            downloads: What brings their files.
            desired: What keeps the desired set.
            observer: Told of what happens.
            config: The pod's own credentials and endpoints.
            pod: The pod's name, under which it refers to directories on shared volumes.
            cancel: Ends a download by its id.
            interval: Seconds between two looks at what the engine has.
            reset_patience: Seconds for which a reset of the engine's prefix cache is tried.
            clock: A monotonic clock in seconds.
        """
        self._engine = engine
        self._cache = PrefixCache(engine, observer, patience=reset_patience, clock=clock)
        self._keeping = Keeping(desired, self._kept)
        self._room = Room(config)
        self._observer = observer
        self._cancel = cancel
        self._clock = clock
        references = References(pod, clock=clock)
        installation = Installation(downloads, config, Contents(), references)
        self._steps = Steps(engine, installation, self._cache, note=self._note)
        self._housekeeping = Housekeeping(references)
        self._askers = Semaphore(_ASKERS)
        self._changed = Condition()
        self._slots: dict[str, Slot] = {}
        self._queue: deque[Slot] = deque()
        self._stopped = False
        self._rounds = 0
        self._threads = [Thread(target=self._work, name=f"lora-{number}", daemon=True) for number in range(WORKERS)]
        self._reconciler = Reconciler(engine.models, self._repair, observer, interval=interval)

    def start(self) -> None:
        """Take up the set as it was kept, and begin to work."""
        kept = self._keeping.read()
        self._cache.restore(kept.served)
        with self._changed:
            for wanted in kept.wanted:
                # From disk first: the source may be away. A refresh that is still wanted follows.
                goal = Goal(replace(wanted, refresh=False), kept=True)
                self._slots[wanted.name] = Slot(wanted.name, goal, desired=wanted)
            for name in kept.removed:
                self._slots.setdefault(name, Slot(name, Goal(None, kept=True), leaving=True, state=State.UNLOADING))
            for slot in self._slots.values():
                self._enqueue(slot)
        for thread in self._threads:
            thread.start()
        self._reconciler.start()

    def stop(self) -> None:
        """Begin nothing more. The engine keeps what it has."""
        with self._changed:
            self._stopped = True
            jobs = [slot.job for slot in self._slots.values() if slot.job]
            for slot in self._slots.values():
                slot.goal.withdrawn.set()
            self._changed.notify_all()
        self._reconciler.stop()
        for job in jobs:
            self._cancel(job)

    def join(self, timeout: float) -> None:
        """Wait for the threads, but not for an engine that does not answer."""
        end = self._clock() + timeout
        for thread in self._threads:
            thread.join(max(end - self._clock(), 0.0))
        self._reconciler.join(max(end - self._clock(), 0.0))

    def load(self, wanted: Wanted, *, kept: bool, extras: Extras | None = None) -> Goal:
        """Want an adapter; the goal's `done` is set when it is loaded, or a try failed.

        Args:
            wanted: What to load. The same as what is being loaded is no new goal.
            kept: Whether it is wanted from now on whatever happens; otherwise
                only once it is loaded.
            extras: Credentials and the like for its download.

        Raises:
            InvalidAdapterError: Its name or path cannot be.
            LoraError: The desired set cannot be kept, or has no room for another adapter.
        """
        check_name(wanted.name)
        if not wanted.path.is_absolute():
            raise InvalidAdapterError("invalid_path", f"the directory must be absolute, not {wanted.path}")
        with self._changed:
            self._room.check(self._slots.values(), wanted, extras)
        if not kept:
            return self._want(wanted, extras).goal
        with self._keeping.promised(wanted.name, self._desired(wanted)), self._changed:
            slot = self._want(wanted, extras)
            slot.desired, slot.goal.kept = self._desired(wanted), True
            return slot.goal

    def _want(self, wanted: Wanted, extras: Extras | None) -> Slot:
        with self._changed:
            slot = self._slots.get(wanted.name)
            if slot is None or not slot.goal.is_under_way(wanted):
                slot = self._aim(wanted.name, Goal(wanted, kept=False, extras=extras))
            return slot

    def _desired(self, wanted: Wanted) -> Wanted:
        """Return an adapter with what is known of it, if it was desired before."""
        slot = self._slots.get(wanted.name)
        former = slot.desired if slot else None
        if former is None or not wanted.is_same(former):
            return wanted
        return replace(wanted, installed=former.installed, refresh=wanted.refresh or former.refresh)

    def unload(self, name: str) -> Goal:
        """Want an adapter no more; the goal's `done` is set when the engine does not have it.

        Raises:
            UnknownAdapterError: Neither we nor the engine know it.
            LoraError: The desired set cannot be kept.
        """
        check_name(name)
        if name not in self._slots and name not in self._engine.models().adapters:
            raise UnknownAdapterError(name)
        with self._keeping.promised(name, None), self._changed:
            slot = self._slots.get(name)
            if slot is None or not slot.goal.is_under_way(None):
                slot = self._aim(name, Goal(None, kept=True))
            slot.desired, slot.leaving, slot.state = None, True, State.UNLOADING
            return slot.goal

    def want_exactly(self, wanted: Iterable[Wanted]) -> None:
        """Make the adapters of the Model YAML these; those asked for by calls are left alone.

        Raises:
            LoraError: The desired set cannot be kept.
        """
        new = {one.name: one for one in wanted}
        with self._changed:
            ours = {
                slot.name: slot.desired
                for slot in self._slots.values()
                if slot.desired and slot.desired.origin is Origin.MODEL
            }
            others = {slot.name for slot in self._slots.values() if slot.desired} - set(ours)
        for name in ours.keys() - new.keys():
            self.unload(name)
        for name, one in new.items():
            if name in others:
                _log.warning("adapter %s of the Model is left as a call asked for it", name)
            elif not one.is_same(ours.get(name)):
                self.load(one, kept=True)

    def statuses(self) -> list[Status]:
        """Return how every adapter stands, those included that the engine has from others."""
        with self._changed:
            statuses = {slot.name: slot.status() for slot in self._slots.values()}
        for name, path in self._listed().items():
            statuses.setdefault(name, Status(name, State.LOADED, managed=False, path=path))
        return [statuses[name] for name in sorted(statuses)]

    def _listed(self) -> dict[str, str]:
        """Return what the engine has; nothing while it is away, or others wait for its answer already."""
        if not self._askers.acquire(timeout=_ASK_SECONDS):
            return {}
        try:
            return self._engine.models().adapters
        except LoraError:
            return {}
        finally:
            self._askers.release()

    def status(self, name: str) -> Status:
        """Return how an adapter stands.

        Raises:
            UnknownAdapterError: There is none of this name.
        """
        with self._changed:
            slot = self._slots.get(name)
            if slot:
                return slot.status()
        found = next((status for status in self.statuses() if status.name == name), None)
        if found is None:
            raise UnknownAdapterError(name)
        return found

    def managed(self) -> list[Status]:
        """Return how the adapters stand that we were asked for, without a request to the engine."""
        with self._changed:
            return [slot.status() for slot in self._slots.values()]

    def _kept(self) -> Kept:
        with self._changed:
            return kept_of(self._slots.values(), self._cache.remembered())

    def _aim(self, name: str, goal: Goal) -> Slot:
        """Give a slot a new goal; called with the lock held."""
        slot = self._slots.get(name)
        if slot is None:
            slot = self._slots[name] = Slot(name, goal)
        else:
            self._withdraw(slot)
            slot.goal = goal
        slot.settled, slot.blocked, slot.retry_at, slot.attempts, slot.error = False, False, None, 0, None
        self._enqueue(slot)
        return slot

    def _withdraw(self, slot: Slot) -> None:
        """Tell those who wait for a slot's goal that another took its place."""
        slot.goal.withdrawn.set()
        if not slot.goal.done.is_set():
            slot.goal.error = WithdrawnError()
            slot.goal.done.set()
        slot.goal.extras = None
        if slot.job and not any(other.job == slot.job for other in self._slots.values() if other is not slot):
            Thread(target=self._cancel, args=(slot.job,), daemon=True).start()

    def holds(self, path: Path) -> bool:
        """Tell whether a loaded adapter's files are in a directory, or below it."""
        with self._changed:
            return any(slot.loaded and slot.loaded.engine_path.is_relative_to(path) for slot in self._slots.values())

    def _enqueue(self, slot: Slot) -> None:
        self._reconciler.need(needed=True)
        if not slot.busy and slot not in self._queue:
            self._queue.append(slot)
            self._changed.notify_all()

    def _note(self, slot: Slot, state: State) -> None:
        with self._changed:
            slot.state = state

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopped)
                if self._stopped:
                    return
                slot = self._queue.popleft()
                if slot.busy or slot.settled:
                    continue
                slot.busy, goal = True, slot.goal
                goal.begun = True
            try:
                self._pursue(slot, goal)
            except Exception:  # noqa: BLE001 - the outermost frame of a thread
                _log.exception("adapter %s: a defect of the runtime", slot.name)
                self._failed(slot, goal, LoraError("internal", "a defect of the runtime, see its log"))
            with self._changed:
                slot.busy = False
                if slot.goal is not goal:
                    self._enqueue(slot)

    def _pursue(self, slot: Slot, goal: Goal) -> None:
        started = self._clock()
        operation = "load" if goal.wanted else "unload"

        def job(job_id: str | None) -> None:
            with self._changed:
                slot.job = job_id

        outcome = "done"
        try:
            if goal.wanted:
                found = self._steps.load(slot, goal, goal.wanted, job)
                self._loaded(slot, goal, found)
            else:
                self._steps.unload(slot)
                self._unloaded(slot, goal)
        except EngineUnavailableError as error:
            outcome = "engine_unavailable"
            self._failed(slot, goal, error)
        except LoraError as error:
            outcome = "failed"
            self._failed(slot, goal, error)
        self._observer.operated(operation=operation, outcome=outcome, seconds=self._clock() - started)

    def _loaded(self, slot: Slot, goal: Goal, found: Wanted) -> None:
        with self._changed:
            slot.state, slot.error, slot.attempts, slot.retry_at = State.LOADED, None, 0, None
            goal.found, goal.possibly_stale = found, slot.possibly_stale
            if slot.goal is goal:
                slot.settled, slot.leaving = True, False
                slot.desired = replace(found, refresh=_is_refresh_due(slot.desired, goal, found))
                goal.wanted, goal.extras = found, None
        self._keeping.write()
        with self._changed:
            goal.done.set()
            if slot.goal is goal and slot.desired and slot.desired.refresh:
                self._aim(slot.name, Goal(slot.desired, kept=True))
        _log.info("adapter %s is loaded from %s", slot.name, found.engine_path)

    def _unloaded(self, slot: Slot, goal: Goal) -> None:
        with self._changed:
            if slot.goal is goal:
                slot.settled = True
                self._forget(slot)
        self._keeping.write()
        goal.done.set()
        _log.info("adapter %s is unloaded", slot.name)

    def _failed(self, slot: Slot, goal: Goal, error: LoraError) -> None:
        with self._changed:
            if slot.goal is not goal:
                return
            _log.warning("adapter %s: %s", slot.name, error.message)
            goal.error = error
            slot.error, slot.attempts = error, slot.attempts + 1
            slot.state = State.LOADED if slot.loaded else State.FAILED
            if not goal.kept:
                self._give_up(slot)
            elif isinstance(error, RolledBackError):
                slot.blocked = slot.settled = True
            elif isinstance(error, EngineUnavailableError):
                slot.state = State.UNLOADING if goal.wanted is None else State.PENDING
            else:
                slot.retry_at = time() + min(_FIRST_PAUSE * 2 ** (slot.attempts - 1), _LONGEST_PAUSE)
            goal.done.set()  # who asked need not wait: what is kept is carried out when it can be

    def _give_up(self, slot: Slot) -> None:
        """Go back to what was wanted before; called with the lock held."""
        if slot.desired is None and not slot.leaving:
            self._forget(slot)
            return
        slot.goal = Goal(slot.desired, kept=True)
        slot.settled = slot.desired is not None and slot.loaded is not None and not slot.desired.refresh
        slot.error, slot.attempts = None, 0
        if slot.settled:
            slot.goal.done.set()

    def _forget(self, slot: Slot) -> None:
        del self._slots[slot.name]
        self._reconciler.need(needed=bool(self._slots or self._cache.remembered()))

    def _repair(self, models: Models, *, came_back: bool, restarted: bool) -> int:
        """Start what is to be done; return for how many adapters."""
        self._rounds += 1
        if restarted:
            self._cache.forget(models.adapters)
        self._cache.retry()
        with self._changed:
            off = [slot for slot in self._slots.values() if self._is_off(slot, models, came_back=came_back)]
            for slot in off:
                slot.settled = False
                if slot.goal.done.is_set():
                    slot.goal = slot.goal.again()
                self._enqueue(slot)
            for slot in self._slots.values():
                slot.possibly_stale = self._cache.is_suspect(slot.name)
            slots = list(self._slots.values())
        self._keeping.catch_up()
        self._housekeeping.tidy(slots, models if self._steps.engine_lists else None)
        return len(off)

    def _is_off(self, slot: Slot, models: Models, *, came_back: bool) -> bool:
        """Tell whether a slot has something to do; called with the lock held."""
        if slot.busy:
            return False
        if (
            slot.loaded
            and models.adapters.get(slot.name) != str(slot.loaded.engine_path)
            and self._trusts_list(came_back=came_back)
        ):
            self._cache.unloaded(slot.name)
            slot.loaded, slot.blocked, slot.state = None, False, State.PENDING
            return True
        if slot.settled:
            return False
        return slot.retry_at is None or slot.retry_at <= time()

    def _trusts_list(self, *, came_back: bool) -> bool:
        return self._steps.engine_lists or came_back or self._rounds % _UNLISTED_ROUNDS == 0


def _is_refresh_due(desired: Wanted | None, goal: Goal, found: Wanted) -> bool:
    """Tell whether a refresh is still wanted after a goal was reached."""
    did_refresh = goal.wanted is not None and goal.wanted.refresh
    return desired is not None and desired.refresh and not did_refresh and found.is_same(desired)
