r"""An adapter's record: what should be loaded, what the engine has, and what the runtime is doing about it.

    new goal -> QUEUED -> CHECKING -> DOWNLOADING -> LOADING -> SETTLED       the goal is reached
                                  \-> UNLOADING -> the record is deleted
    a worker's attempt fails      -> BACKING_OFF (until `retry_at`), WAITING (for the engine), BLOCKED, or QUEUED again

`lora.transitions` has the table of transitions, with the reason for each. Only that module changes records.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from threading import Event
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from lora.adapter import State, Status

if TYPE_CHECKING:
    from lora.adapter import Facts, Wanted
    from lora.errors import LoraError
    from lora.files.installation import Extras

__all__ = ["RESTING", "WORKING", "Failure", "Goal", "Intent", "Phase", "Record"]


class Phase(StrEnum):
    """What the runtime is doing about an adapter. The API shows a coarser `State`."""

    QUEUED = "queued"
    CHECKING = "checking"
    DOWNLOADING = "downloading"
    LOADING = "loading"
    UNLOADING = "unloading"
    SETTLED = "settled"
    BLOCKED = "blocked"
    WAITING = "waiting"
    BACKING_OFF = "backing_off"


# A worker holds the record. Operations on one adapter are serial (ADR 10), so no other worker takes it.
WORKING: Final = frozenset({Phase.CHECKING, Phase.DOWNLOADING, Phase.LOADING, Phase.UNLOADING})
RESTING: Final = frozenset(Phase) - WORKING

# The desired state, which a record falls back to when a goal that is not kept fails: an adapter, "gone" (the engine
# must not have it), or `None` (nothing is desired, and the record is deleted).
Intent: TypeAlias = "Wanted | Literal['gone'] | None"


@dataclass(eq=False, slots=True)
class Goal:
    """The goal of one attempt: an adapter is loaded or, without `wanted`, unloaded.

    Two goals are never equal (`eq=False`): a worker checks by identity whether its goal is still the record's goal.

    Attributes:
        wanted: The adapter to load.
        kept: Whether the runtime retries it after a failure, until it is reached or withdrawn.
        extras: The call's settings for the download. They hold credentials, so they are dropped when the goal is
            reached or withdrawn.
        begun: Whether a worker has started on it.
        done: Set when the goal was reached, an attempt failed, or the goal was withdrawn. Callers wait for it.
        withdrawn: Set when the worker must stop: another goal replaced this one, or the runtime is shutting down.
        error: Why the goal was not reached.
        found: What the engine has loaded, with its files; set when the goal was reached.
        possibly_stale: Whether that adapter may answer from former weights (docs/adr/0015).
    """

    wanted: Wanted | None
    kept: bool
    extras: Extras | None = None
    begun: bool = False
    done: Event = field(default_factory=Event)
    withdrawn: Event = field(default_factory=Event)
    error: LoraError | None = None
    found: Wanted | None = None
    possibly_stale: bool = False

    def again(self) -> Goal:
        """Return a copy for another attempt, with new events: callers of the failed attempt were already told."""
        return replace(self, begun=False, done=Event(), withdrawn=Event(), error=None, found=None, possibly_stale=False)

    def is_under_way(self, wanted: Wanted | None) -> bool:
        """Tell whether a new caller, who wants `wanted`, can wait for this goal.

        A refresh that has begun may have listed the source already. A new caller wants the changes since then, so it
        needs a new goal.
        """
        if self.done.is_set():
            return False
        if wanted is None or self.wanted is None:
            return wanted is self.wanted
        if wanted.refresh and (self.begun or not self.wanted.refresh):
            return False
        return wanted.is_same(self.wanted) and wanted.origin is self.wanted.origin


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the last attempt failed.

    Attributes:
        error: The error.
        attempts: Consecutive failed attempts.
        retry_at: Unix seconds; `None` if the next attempt does not wait for a time.
    """

    error: LoraError
    attempts: int
    retry_at: float | None = None


@dataclass(eq=False, slots=True)
class Record:
    """The state of one adapter. It is changed only with `Records.lock` held.

    Attributes:
        name: Its name.
        goal: The current goal, or the last one.
        intent: What is desired. It is in the state file, and it survives the failure of a goal that is not kept.
        phase: What the runtime is doing about it.
        loaded: What this runtime loaded under this name and the engine still has.
        facts: Facts from those files.
        loaded_since: Unix seconds.
        possibly_stale: Whether it may answer from former weights (docs/adr/0015).
        changed: The number of the change (`Records.changes`) that last set what the engine has.
        job: The id of the download in progress.
        failure: Why the last attempt failed.
    """

    name: str
    goal: Goal
    intent: Intent = None
    phase: Phase = Phase.QUEUED
    loaded: Wanted | None = None
    facts: Facts | None = None
    loaded_since: float | None = None
    possibly_stale: bool = False
    changed: int = 0
    job: str | None = None
    failure: Failure | None = None

    @property
    def desired(self) -> Wanted | None:
        """The desired adapter; `None` if none is desired, or if it must go."""
        intent = self.intent  # read once: another thread may change it
        return None if isinstance(intent, str) else intent

    @property
    def state(self) -> State:
        """The state that the API shows."""
        if self.goal.wanted is None and self.phase is not Phase.BACKING_OFF:
            return State.UNLOADING
        stands = State.LOADED if self.loaded else _WITHOUT[self.phase]
        return _SHOWN.get(self.phase, stands)

    def status(self) -> Status:
        """Return a snapshot for the API; called with the records' lock held."""
        failure = self.failure
        loaded = self.loaded.installed if self.loaded else None
        # After a rollback the goal still names the refused adapter. The API then shows what is loaded.
        shown = (self.loaded if self.phase is Phase.BLOCKED else self.goal.wanted) or self.desired or self.loaded
        return Status(
            name=self.name,
            state=self.state,
            managed=True,
            path=str(loaded.path if loaded else shown.engine_path if shown else ""),
            source=shown.source if shown else None,
            origin=shown.origin if shown else None,
            revision=loaded.revision if loaded else None,
            facts=self.facts,
            loaded_since=self.loaded_since,
            attempts=failure.attempts if failure else 0,
            next_retry=failure.retry_at if failure else None,
            error_code=failure.error.code if failure else None,
            error=failure.error.message if failure else None,
            content=loaded.content if loaded else None,
            possibly_stale=self.possibly_stale,
        )


# These phases are shown as they are, whatever the engine has loaded.
_SHOWN: Final = {
    Phase.DOWNLOADING: State.DOWNLOADING,
    Phase.LOADING: State.LOADING,
    Phase.UNLOADING: State.UNLOADING,
    Phase.WAITING: State.PENDING,
}
# In any other phase the API shows `loaded` if the engine has the adapter. Without it, the API shows this state.
_WITHOUT: Final = dict.fromkeys(Phase, State.PENDING) | {Phase.BACKING_OFF: State.FAILED, Phase.BLOCKED: State.FAILED}
