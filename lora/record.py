r"""An adapter's record: what should be loaded, what the engine has, and in which phase the runtime is with it.

    aimed -> QUEUED -> CHECKING -> DOWNLOADING -> LOADING -> SETTLED          the goal is reached
                                  \-> UNLOADING -> the record is forgotten
    a worker's attempt fails      -> BACKING_OFF (until `retry_at`), WAITING (for the engine), BLOCKED, or QUEUED again

Which phase follows which, and why, is in `lora.transitions`. Only that module changes records.
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
    """What the runtime is doing about an adapter."""

    QUEUED = "queued"
    CHECKING = "checking"
    DOWNLOADING = "downloading"
    LOADING = "loading"
    UNLOADING = "unloading"
    SETTLED = "settled"
    BLOCKED = "blocked"
    WAITING = "waiting"
    BACKING_OFF = "backing_off"


# A worker has the record. Operations on one adapter are serial, so no other worker takes it meanwhile.
WORKING: Final = frozenset({Phase.CHECKING, Phase.DOWNLOADING, Phase.LOADING, Phase.UNLOADING})
RESTING: Final = frozenset(Phase) - WORKING

# What a record returns to when a goal that is not kept fails: an adapter, its absence, or nothing at all.
Intent: TypeAlias = "Wanted | Literal['gone'] | None"


@dataclass(eq=False, slots=True)
class Goal:
    """What one attempt should reach: an adapter loaded, or (without `wanted`) unloaded.

    Attributes:
        wanted: What is to be loaded.
        kept: Whether it is tried again after a failure, until it is reached or withdrawn.
        extras: What the call brought for the download; dropped when the goal is reached or withdrawn.
        begun: Whether a worker has taken it up.
        done: Set when it was reached, when an attempt failed, or when it was withdrawn.
        withdrawn: Set when it must no longer be reached: another goal took its place, or the runtime ends.
        error: Why it was not reached.
        found: What the engine has, with its files, once it was reached.
        possibly_stale: Whether that may answer from weights that had its name before.
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
        """Return the same goal for another attempt."""
        return replace(self, begun=False, done=Event(), withdrawn=Event(), error=None, found=None, possibly_stale=False)

    def is_under_way(self, wanted: Wanted | None) -> bool:
        """Tell whether it is still to be reached, and is what this caller wants, too.

        Once a refresh has begun, it may have listed the source: a new caller wants what changed since.
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
        error: What went wrong.
        attempts: Failed attempts since the adapter was last well.
        retry_at: Unix seconds; `None` when the next attempt does not depend on the time.
    """

    error: LoraError
    attempts: int
    retry_at: float | None = None


@dataclass(eq=False, slots=True)
class Record:
    """One adapter.

    Attributes:
        name: Its name.
        goal: What is to be reached, or was.
        intent: What is kept: it survives this process, and failures of goals that are not kept.
        phase: What the runtime is doing about it.
        loaded: What the engine has from us under this name, with the files that it has.
        facts: What those files say.
        loaded_since: Unix seconds.
        possibly_stale: Whether it may answer from weights that had its name before.
        job: The download that is under way.
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
    job: str | None = None
    failure: Failure | None = None

    @property
    def desired(self) -> Wanted | None:
        """The adapter that is kept, if one is."""
        return None if isinstance(self.intent, str) else self.intent

    @property
    def state(self) -> State:
        """What the API says of it."""
        if self.goal.wanted is None and self.phase is not Phase.BACKING_OFF:
            return State.UNLOADING
        stands = State.LOADED if self.loaded else _WITHOUT[self.phase]
        return _SHOWN.get(self.phase, stands)

    def status(self) -> Status:
        """Return how it stands, for those who ask, also without the lock."""
        failure = self.failure
        loaded = self.loaded.installed if self.loaded else None
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


# Phases that the API shows as they are, whatever the engine has meanwhile.
_SHOWN: Final = {
    Phase.DOWNLOADING: State.DOWNLOADING,
    Phase.LOADING: State.LOADING,
    Phase.UNLOADING: State.UNLOADING,
    Phase.WAITING: State.PENDING,
}
# The others show what the engine has. This is what they show while it has nothing.
_WITHOUT: Final = dict.fromkeys(Phase, State.PENDING) | {Phase.BACKING_OFF: State.FAILED, Phase.BLOCKED: State.FAILED}
