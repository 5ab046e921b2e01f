"""One adapter's place: what is wanted of it, what was tried, and how it stands.

Held by the manager under its lock; one thread at a time works for a slot.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from threading import Event
from typing import TYPE_CHECKING

from lora.adapter import State, Status

if TYPE_CHECKING:
    from lora.adapter import Facts, Wanted
    from lora.errors import LoraError
    from lora.files.installation import Extras

__all__ = ["Goal", "Slot"]


@dataclass(eq=False, slots=True)
class Goal:
    """Something to reach in one try: an adapter loaded, or (without `wanted`) gone.

    Attributes:
        wanted: What is to be loaded.
        kept: Whether it is tried again after a failure, until it is reached or withdrawn.
        extras: What the call brought for the download; dropped when it is reached or withdrawn.
        begun: Whether a thread has taken it up.
        done: Set when it was reached, when a try failed, or when it was withdrawn.
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
        """Return the same for another try."""
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


@dataclass(eq=False, slots=True)
class Slot:
    """An adapter's place.

    Attributes:
        name: The adapter's name.
        goal: What is to be reached; reached already when `settled`.
        desired: What counts as wanted: survives this process, and failures of another goal.
        settled: Whether there is nothing to do.
        busy: Whether a thread works for it.
        leaving: Whether it is wanted no more, and the engine may still have it.
        loaded: What the engine has from us under this name, with the files that it has.
        possibly_stale: Whether it may answer from weights that had its name before.
        blocked: Whether the engine refused the goal and got its former adapter back:
            not tried again before the engine restarts.
        job: The download that is under way.
        state: How it stands.
    """

    name: str
    goal: Goal
    desired: Wanted | None = None
    settled: bool = False
    busy: bool = False
    leaving: bool = False
    loaded: Wanted | None = None
    blocked: bool = False
    job: str | None = None
    state: State = State.PENDING
    facts: Facts | None = None
    possibly_stale: bool = False
    loaded_since: float | None = None
    attempts: int = 0
    retry_at: float | None = None
    error: LoraError | None = None

    def status(self) -> Status:
        """Return how it stands, for those who ask, also without the manager's lock."""
        error = self.error
        loaded = self.loaded.installed if self.loaded else None
        shown = (self.loaded if self.blocked else self.goal.wanted) or self.desired or self.loaded
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
            attempts=self.attempts,
            next_retry=self.retry_at,
            error_code=error.code if error else None,
            error=error.message if error else None,
            content=loaded.content if loaded else None,
            possibly_stale=self.possibly_stale,
        )
