"""One adapter's place: what is wanted of it, what was tried, and how it stands.

Held by the manager under its lock; one thread at a time works for a slot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING

from lora.adapter import State, Status

if TYPE_CHECKING:
    from lora.adapter import Facts, Wanted
    from lora.errors import LoraError

__all__ = ["Goal", "Slot"]


@dataclass(eq=False, slots=True)
class Goal:
    """Something to reach: an adapter loaded, or (without `wanted`) gone.

    Attributes:
        wanted: What is to be loaded.
        kept: Whether it is tried again after a failure, until it is reached or withdrawn.
        done: Set when it was reached, failed for good, or was withdrawn.
        error: Why it was not reached.
    """

    wanted: Wanted | None
    kept: bool
    done: Event = field(default_factory=Event)
    error: LoraError | None = None


@dataclass(eq=False, slots=True)
class Slot:
    """An adapter's place.

    Attributes:
        name: The adapter's name.
        goal: What is to be reached; reached already when `settled`.
        desired: What counts as wanted: survives this process, and failures of another goal.
        settled: Whether there is nothing to do.
        busy: Whether a thread works for it.
        loaded: What the engine has from us under this name.
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
    loaded: Wanted | None = None
    blocked: bool = False
    job: str | None = None
    state: State = State.PENDING
    facts: Facts | None = None
    revision: str | None = None
    loaded_since: float | None = None
    attempts: int = 0
    retry_at: float | None = None
    error: LoraError | None = None

    def status(self) -> Status:
        """Return how it stands, for those who ask."""
        shown = self.goal.wanted or self.desired or self.loaded
        return Status(
            name=self.name,
            state=self.state,
            managed=True,
            path=str(shown.path) if shown else "",
            source=shown.source if shown else None,
            origin=shown.origin if shown else None,
            revision=self.revision,
            facts=self.facts,
            loaded_since=self.loaded_since,
            attempts=self.attempts,
            next_retry=self.retry_at,
            error_code=self.error.code if self.error else None,
            error=self.error.message if self.error else None,
        )
