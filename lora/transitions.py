"""Which phase of an adapter follows which, and why: every change of a record is here.

All records lie under one lock, `Records.lock`. A method whose docstring says so is called with the lock held,
and asserts that it is.
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
    from collections.abc import Callable, Collection, Iterable, Mapping

    from lora.adapter import Facts, Wanted
    from lora.record import Intent

__all__ = ["TRANSITIONS", "Event", "Records"]

_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 300.0


class Event(StrEnum):
    """What happens to a record."""

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
    # A call or the Model wants something else. A worker that has the record keeps it until it notices that its goal
    # was withdrawn: operations on one adapter are serial.
    Event.AIMED: _to(Phase.QUEUED, RESTING) | {phase: phase for phase in WORKING},
    # A worker takes the record from the queue. Files that are there already make a download needless, so it checks.
    Event.TAKEN: {Phase.QUEUED: Phase.CHECKING},
    # Nothing usable is on disk, or another runtime removed what a download had just found.
    Event.FETCHING: _to(Phase.DOWNLOADING, (Phase.CHECKING, Phase.DOWNLOADING)),
    # The files are whole: from here on the engine is asked.
    Event.LOADING: _to(Phase.LOADING, (Phase.CHECKING, Phase.DOWNLOADING)),
    # Unloading needs no files.
    Event.UNLOADING: {Phase.CHECKING: Phase.UNLOADING},
    # The engine has the adapter. (An adapter that the engine no longer has is forgotten: it has no next phase.)
    Event.REACHED: {Phase.LOADING: Phase.SETTLED},
    # Another goal came while the worker had the record: whatever the attempt brought, it is the next one's turn.
    Event.SUPERSEDED: _to(Phase.QUEUED, WORKING),
    # An attempt failed that is not kept, and what was wanted before is loaded already.
    Event.ABANDONED: _to(Phase.SETTLED, WORKING),
    # The engine refused the adapter and got the former one back. It would refuse it again until it is restarted.
    Event.REFUSED: {Phase.LOADING: Phase.BLOCKED},
    # The engine does not answer. That is no fault of the adapter: it is tried as soon as the engine is back.
    Event.UNREACHABLE: _to(Phase.WAITING, WORKING),
    # Anything else: tried again after a pause that grows, each adapter's own, so a bad one never delays another.
    Event.FAILED: _to(Phase.BACKING_OFF, WORKING),
    # The engine's list lacks it, or has another: the engine restarted, or another client changed it.
    Event.LOST: _to(Phase.QUEUED, RESTING),
    # The engine answers again, or the pause is over.
    Event.DUE: _to(Phase.QUEUED, (Phase.QUEUED, Phase.WAITING, Phase.BACKING_OFF)),
}


class Records:
    """All records, and the queue of those that a worker should take up.

    Attributes:
        lock: Held while records are read together or changed.
    """

    def __init__(self, cancel: Callable[[str], object]) -> None:
        """Begin without records; `cancel` ends a download by its id."""
        self.lock = Condition()
        self._cancel = cancel
        self._records: dict[str, Record] = {}
        self._queue: deque[Record] = deque()
        self._stopped = False

    def get(self, name: str) -> Record | None:
        """Return the record of an adapter."""
        return self._records.get(name)

    def all(self) -> list[Record]:
        """Return all records."""
        with self.lock:
            return list(self._records.values())

    def stop(self) -> list[str]:
        """Withdraw every goal and hand out no more work; return the downloads that are under way."""
        with self.lock:
            self._stopped = True
            for record in self._records.values():
                record.goal.withdrawn.set()
            self.lock.notify_all()
            return [record.job for record in self._records.values() if record.job]

    def restore(self, wanted: Iterable[Wanted], removed: Iterable[str]) -> None:
        """Take up what an earlier process kept."""
        with self.lock:
            for one in wanted:
                # From disk first: the source may be away. A refresh that is still wanted follows.
                goal = Goal(replace(one, refresh=False), kept=True)
                self._records[one.name] = Record(one.name, goal, intent=one)
            for name in removed:
                self._records.setdefault(name, Record(name, Goal(None, kept=True), intent="gone"))
            self._queue.extend(self._records.values())
            self.lock.notify_all()

    def aim(self, name: str, goal: Goal) -> Record:
        """Give an adapter another goal; called with the lock held."""
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = Record(name, goal)
        else:
            self._withdraw(record)
            record.goal = goal
        record.failure = None
        self._move(record, Event.AIMED)
        return record

    def with_known(self, wanted: Wanted) -> Wanted:
        """Return an adapter with what is known of it, if it is desired already."""
        record = self._records.get(wanted.name)
        former = record.desired if record else None
        if former is None or not wanted.is_same(former):
            return wanted
        return replace(wanted, installed=former.installed, refresh=wanted.refresh or former.refresh)

    def intend(self, record: Record, intent: Intent) -> None:
        """Keep an adapter, or that it must go; called with the lock held."""
        self._check_locked()
        record.intent, record.goal.kept = intent, True

    def _withdraw(self, record: Record) -> None:
        """Tell those who wait for a record's goal that another took its place."""
        goal = record.goal
        goal.withdrawn.set()
        if not goal.done.is_set():
            goal.error = WithdrawnError()
            goal.done.set()
        goal.extras = None
        if record.job and not any(other.job == record.job for other in self._records.values() if other is not record):
            Thread(target=self._cancel, args=(record.job,), daemon=True).start()

    def take(self) -> tuple[Record, Goal] | None:
        """Return the next record for a worker, with its goal; `None` when there is no more work to hand out."""
        with self.lock:
            self.lock.wait_for(lambda: self._queue or self._stopped)
            if self._stopped:
                return None
            record = self._queue.popleft()
            self._move(record, Event.TAKEN)
            record.goal.begun = True
            return record, record.goal

    def note(self, record: Record, event: Event, *, job: str | None = None) -> None:
        """Take note of how far an attempt is: FETCHING (the download is `job`), LOADING or UNLOADING."""
        with self.lock:
            self._move(record, event)
            record.job = job

    def held(self, record: Record, found: Wanted | None, facts: Facts | None = None, *, stale: bool = False) -> None:
        """Take note of what the engine has now."""
        with self.lock:
            if found is not None:
                is_new = record.loaded is None or record.loaded.installed != found.installed
                record.loaded_since = time() if is_new or record.loaded_since is None else record.loaded_since
                record.facts, record.possibly_stale = facts, stale
            record.loaded = found

    def loaded(self, record: Record, goal: Goal, found: Wanted) -> None:
        """Take note that a goal was reached, before that is written down and its callers are told."""
        with self.lock:
            record.failure = None
            goal.found, goal.possibly_stale = found, record.possibly_stale
            if record.goal is goal:
                record.intent = replace(found, refresh=_is_refresh_due(record.desired, goal, found))
                goal.wanted, goal.extras = found, None

    def unloaded(self, record: Record, goal: Goal) -> None:
        """Take note that the engine does not have an adapter any more, before that is written down."""
        with self.lock:
            if record.goal is goal:
                record.intent = None

    def settle(self, record: Record, goal: Goal) -> None:
        """End an attempt that reached its goal, and tell its callers."""
        with self.lock:
            goal.done.set()
            if record.goal is not goal:
                self._move(record, Event.SUPERSEDED)
            elif goal.wanted is None:
                del self._records[record.name]
            else:
                self._move(record, Event.REACHED)
                if record.desired and record.desired.refresh:
                    self.aim(record.name, Goal(record.desired, kept=True))

    def fail(self, record: Record, goal: Goal, error: LoraError) -> bool:
        """End an attempt that failed, and tell its callers; return whether its goal still counted."""
        with self.lock:
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
            goal.done.set()  # who asked need not wait: what is kept is carried out when it can be
            return True

    def _abandon(self, record: Record) -> None:
        """Go back to what was wanted in front of a goal that is not kept."""
        if record.intent is None:
            del self._records[record.name]
            return
        desired = record.desired
        record.goal, record.failure = Goal(desired, kept=True), None
        if desired is None or record.loaded is None or desired.refresh:
            self._move(record, Event.SUPERSEDED)
        else:
            record.goal.done.set()
            self._move(record, Event.ABANDONED)

    def lost(self, record: Record) -> None:
        """Load an adapter again that the engine does not have any more; called with the lock held."""
        record.loaded = None
        self._again(record, Event.LOST)

    def due(self, record: Record) -> None:
        """Try again; called with the lock held."""
        self._again(record, Event.DUE)

    def _again(self, record: Record, event: Event) -> None:
        if record.goal.done.is_set():
            record.goal = record.goal.again()
        self._move(record, event)

    def mark_stale(self, names: Collection[str]) -> None:
        """Take note of which adapters may answer from other weights."""
        with self.lock:
            for record in self._records.values():
                record.possibly_stale = record.name in names

    def _move(self, record: Record, event: Event) -> None:
        """Change a record's phase as the table says; called with the lock held."""
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
    """Tell whether a refresh is still wanted after a goal was reached."""
    did_refresh = goal.wanted is not None and goal.wanted.refresh
    return desired is not None and desired.refresh and not did_refresh and found.is_same(desired)
