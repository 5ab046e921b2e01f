"""The transitions of an adapter's record, with the reason for each. Only this module changes records.

One lock guards all records: `Records.lock`. A method whose docstring says so must be called with the lock held,
and asserts it. The lock is never held during a request to the engine, a download or a write to disk.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from enum import StrEnum
from threading import Condition, Thread
from time import time
from typing import TYPE_CHECKING, Final

from lora.errors import EngineUnavailableError, LoraError, RolledBackError, WithdrawnError
from lora.record import RESTING, WORKING, Failure, Goal, Phase, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lora.adapter import Facts, Wanted
    from lora.record import Intent

__all__ = ["TRANSITIONS", "Event", "Records"]

# Seconds of backoff after a failed attempt; it doubles with each further one.
_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 300.0


class Event(StrEnum):
    """What happens to a record; the table below says when, and what follows."""

    AIMED = "aimed"
    TAKEN = "taken"
    FETCHING = "fetching"
    LOADING = "loading"
    UNLOADING = "unloading"
    REACHED = "reached"
    SUPERSEDED = "superseded"
    ABANDONED = "abandoned"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    FAILED = "failed"
    LOST = "lost"
    DUE = "due"


def _to(phase: Phase, sources: Iterable[Phase]) -> dict[Phase, Phase]:
    return dict.fromkeys(sources, phase)


TRANSITIONS: Final[Mapping[Event, Mapping[Phase, Phase]]] = {
    # A call or the Model sets another goal. A worker that holds the record keeps it until it notices that its goal
    # was withdrawn: operations on one adapter are serial (ADR 10).
    Event.AIMED: _to(Phase.QUEUED, RESTING) | {phase: phase for phase in WORKING},
    # A worker takes the record from the queue, and checks first whether usable files are already on disk.
    Event.TAKEN: {Phase.QUEUED: Phase.CHECKING},
    # No usable files are on disk, or another runtime removed the directory right after the download.
    Event.FETCHING: _to(Phase.DOWNLOADING, (Phase.CHECKING, Phase.DOWNLOADING)),
    # The files passed preflight. From here on the worker talks to the engine.
    Event.LOADING: _to(Phase.LOADING, (Phase.CHECKING, Phase.DOWNLOADING)),
    # Unloading needs no files.
    Event.UNLOADING: {Phase.CHECKING: Phase.UNLOADING},
    # The engine has the adapter. (A record whose adapter was unloaded is deleted, so it has no next phase.)
    Event.REACHED: {Phase.LOADING: Phase.SETTLED},
    # Another goal came while the worker held the record. Whatever the attempt's outcome, the new goal is next.
    Event.SUPERSEDED: _to(Phase.QUEUED, WORKING),
    # The failed goal was not kept, and the adapter that was desired before is still loaded.
    Event.ABANDONED: _to(Phase.SETTLED, WORKING),
    # The engine refused the adapter, and the former one is loaded again. The same engine process would refuse it
    # again, so the runtime retries only after a restart of the engine.
    Event.REFUSED: {Phase.LOADING: Phase.BLOCKED},
    # The engine does not answer, and the goal is kept. That is not the adapter's fault: no backoff, the watcher
    # retries when the engine is back. (A goal that is not kept is abandoned: see `Records.fail`.)
    Event.UNREACHABLE: _to(Phase.WAITING, WORKING),
    # Any other failure: retry with exponential backoff. Each adapter has its own, so a bad one delays no other.
    Event.FAILED: _to(Phase.BACKING_OFF, WORKING),
    # The engine's list lacks the adapter or has another path: the engine restarted, or another client changed it.
    Event.LOST: _to(Phase.QUEUED, RESTING),
    # The engine answers again, or the backoff is over.
    Event.DUE: _to(Phase.QUEUED, (Phase.QUEUED, Phase.WAITING, Phase.BACKING_OFF)),
}


class Records:
    """All records, and the queue of those that need a worker.

    Attributes:
        were_any: Whether this process has ever had a record.
        changes: How often it was noted what the engine has.
        lock: Held while records are changed, or while several are read consistently. Reentrant.
    """

    def __init__(self, cancel: Callable[[str], object]) -> None:
        """Start without records; `cancel` cancels a download by its id."""
        self.lock = Condition()
        self._cancel = cancel
        self._records: dict[str, Record] = {}
        self._queue: deque[Record] = deque()
        self._stopped = False
        self.were_any = False
        self.changes = 0

    def get(self, name: str) -> Record | None:
        """Return the record of an adapter, also without the lock."""
        return self._records.get(name)

    def all(self) -> list[Record]:
        with self.lock:
            return list(self._records.values())

    def stop(self) -> list[str]:
        """Withdraw every goal and hand out no more work; return the ids of downloads in progress."""
        with self.lock:
            self._stopped = True
            for record in self._records.values():
                record.goal.withdrawn.set()
            self.lock.notify_all()
            return [record.job for record in self._records.values() if record.job]

    def restore(self, wanted: Iterable[Wanted], removed: Iterable[str]) -> None:
        """Restore the desired set of an earlier process, and queue a goal for each adapter."""
        with self.lock:
            for one in wanted:
                # ADR 15: the content on disk is loaded first, since the source may be down. `intent` still asks for
                # the refresh; `settle` then starts it as the next goal.
                goal = Goal(replace(one, refresh=False), kept=True)
                self._records[one.name] = Record(one.name, goal, intent=one)
            for name in removed:
                self._records.setdefault(name, Record(name, Goal(None, kept=True), intent="gone"))
            self._queue.extend(self._records.values())
            self.were_any = bool(self._records)
            self.lock.notify_all()

    def aim(self, name: str, goal: Goal) -> Record:
        """Replace the goal of an adapter, and withdraw the former one; called with the lock held."""
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = Record(name, goal)
            self.were_any = True
        else:
            self._withdraw(record)
            record.goal = goal
        # A new goal is not delayed by the backoff of the former one.
        record.failure = None
        self._move(record, Event.AIMED)
        return record

    def with_known(self, wanted: Wanted) -> Wanted:
        """Return `wanted` with the installed files of the desired adapter, if both are the same adapter."""
        record = self._records.get(wanted.name)
        former = record.desired if record else None
        if former is None or not wanted.is_same(former):
            return wanted
        # A refresh that has not succeeded yet is not lost when the same adapter is asked for again without one.
        return replace(wanted, installed=former.installed, refresh=wanted.refresh or former.refresh)

    def intend(self, record: Record, intent: Intent) -> None:
        """Set what is desired, and retry the current goal until it is reached; called with the lock held."""
        self._check_locked()
        record.intent, record.goal.kept = intent, True

    def _withdraw(self, record: Record) -> None:
        """Withdraw a record's goal: wake its callers, and cancel its download."""
        goal = record.goal
        goal.withdrawn.set()
        if not goal.done.is_set():
            goal.error = WithdrawnError()
            goal.done.set()
        goal.extras = None
        # Two names with one source and directory share one download; the other record still needs it.
        # In a thread: the lock is held here, and `cancel` takes the supervisor's lock.
        if record.job and not any(other.job == record.job for other in self._records.values() if other is not record):
            Thread(target=self._cancel, args=(record.job,), daemon=True).start()

    def take(self) -> tuple[Record, Goal] | None:
        """Wait for the next record that needs a worker, and return it with its goal; `None` after `stop`."""
        with self.lock:
            self.lock.wait_for(lambda: self._queue or self._stopped)
            if self._stopped:
                return None
            record = self._queue.popleft()
            self._move(record, Event.TAKEN)
            record.goal.begun = True
            return record, record.goal

    def note(self, record: Record, event: Event, *, job: str | None = None) -> None:
        """Note the progress of an attempt: FETCHING (with the download's id as `job`), LOADING or UNLOADING."""
        with self.lock:
            self._move(record, event)
            record.job = job

    def engine_has(
        self, record: Record, found: Wanted | None, facts: Facts | None = None, *, stale: bool = False
    ) -> None:
        """Note what the engine has now under the record's name; `None` for nothing."""
        with self.lock:
            self.changes += 1
            record.changed = self.changes
            if found is not None:
                is_new = record.loaded is None or record.loaded.installed != found.installed
                record.loaded_since = time() if is_new or record.loaded_since is None else record.loaded_since
                record.facts, record.possibly_stale = facts, stale
            record.loaded = found

    def loaded(self, record: Record, goal: Goal, found: Wanted) -> None:
        """Note that a load succeeded. The worker writes the state file next, and then calls `finish`.

        The record shows it at once: a state directory that hangs must not hide an adapter that the engine has.
        """
        with self.lock:
            record.failure = None
            goal.found, goal.possibly_stale = found, record.possibly_stale
            # A goal that was replaced meanwhile must not overwrite the intent of the new one.
            if record.goal is goal:
                record.intent = replace(found, refresh=_is_refresh_due(record.desired, goal, found))
                goal.wanted, goal.extras = found, None
            self._move(record, Event.REACHED if record.goal is goal else Event.SUPERSEDED)

    def unloaded(self, record: Record, goal: Goal) -> None:
        """Note that an unload succeeded. The worker writes the state file next, and then calls `finish`."""
        with self.lock:
            if record.goal is goal:
                del self._records[record.name]
            else:
                self._move(record, Event.SUPERSEDED)

    def finish(self, record: Record, goal: Goal) -> None:
        """Wake the callers of a goal that was reached, and start a refresh that was asked for meanwhile."""
        with self.lock:
            goal.done.set()
            if self._records.get(record.name) is record and record.goal is goal:
                desired = record.desired
                if desired and desired.refresh:
                    self.aim(record.name, Goal(desired, kept=True))

    def fail(self, record: Record, goal: Goal, error: LoraError) -> bool:
        """End a failed attempt, and wake its callers; return False if another goal had replaced this one.

        The first that applies decides what follows: another goal has come (SUPERSEDED); the goal is not kept, so the
        record returns to its intent (`_abandon`); the engine has the former adapter again (REFUSED); the engine does
        not answer (UNREACHABLE); anything else (FAILED).
        """
        with self.lock:
            if record.phase not in WORKING:  # a defect after the goal was reached: the engine has what was wanted
                goal.done.set()
                return False
            if record.goal is not goal:
                self._move(record, Event.SUPERSEDED)
                return False
            goal.error = error
            attempts = record.failure.attempts + 1 if record.failure else 1
            record.failure = Failure(error, attempts)
            if not goal.kept:
                self._abandon(record)
            elif isinstance(error, RolledBackError):
                self._move(record, Event.REFUSED)
            elif isinstance(error, EngineUnavailableError):
                self._move(record, Event.UNREACHABLE)
            else:
                pause = min(_FIRST_PAUSE * 2 ** (attempts - 1), _LONGEST_PAUSE)
                record.failure = Failure(error, attempts, time() + pause)
                self._move(record, Event.FAILED)
            goal.done.set()  # callers learn of the failure now; a kept goal is retried in the background
            return True

    def _abandon(self, record: Record) -> None:
        """Fall back to the intent after a goal that is not kept failed; called with the lock held."""
        if record.intent is None:
            del self._records[record.name]
            return
        desired = record.desired
        # The caller was told of the failure. The record returns to the desired adapter, or to its removal.
        record.goal, record.failure = Goal(desired, kept=True), None
        if desired is None or record.loaded is None or desired.refresh:
            self._move(record, Event.SUPERSEDED)
        else:
            record.goal.done.set()
            self._move(record, Event.ABANDONED)

    def lost(self, record: Record) -> None:
        """Queue an adapter that the engine lost, to load it again; called with the lock held."""
        record.loaded = None
        self._again(record, Event.LOST)

    def due(self, record: Record) -> None:
        """Queue the record for another attempt; called with the lock held."""
        self._again(record, Event.DUE)

    def _again(self, record: Record, event: Event) -> None:
        # Callers of the finished attempt hold the old goal. A new attempt needs events that are not set.
        if record.goal.done.is_set():
            record.goal = record.goal.again()
        self._move(record, event)

    def mark_stale(self, is_suspect: Callable[[str], bool]) -> None:
        """Mark the adapters that `is_suspect` names, and only them, as possibly stale."""
        with self.lock:  # asked for under it: a load that ends meanwhile must not be overwritten with an older answer
            for record in self._records.values():
                record.possibly_stale = is_suspect(record.name)

    def _move(self, record: Record, event: Event) -> None:
        """Change a record's phase according to the table; called with the lock held.

        Raises:
            KeyError: The table has no such transition: a defect.
        """
        self._check_locked()
        record.phase = TRANSITIONS[event][record.phase]
        if record.phase in RESTING:
            record.job = None
        if record.phase is Phase.QUEUED and record not in self._queue:
            self._queue.append(record)
            self.lock.notify_all()

    def _check_locked(self) -> None:
        assert self.lock._is_owned(), "a record is changed without the lock"  # type: ignore[attr-defined] # noqa: S101, SLF001 - a defect, never a user's


def _is_refresh_due(desired: Wanted | None, goal: Goal, found: Wanted) -> bool:
    """Tell whether the desired adapter still needs a refresh after a goal was reached."""
    did_refresh = goal.wanted is not None and goal.wanted.refresh
    return desired is not None and desired.refresh and not did_refresh and found.is_same(desired)
