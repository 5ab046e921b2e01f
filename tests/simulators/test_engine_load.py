"""The synthetic load: it keeps the engine busy, overruns it in bursts, and never for long."""

from __future__ import annotations

from itertools import groupby
from statistics import mean
from typing import TYPE_CHECKING, Final

import pytest

from simulators.engine.scheduler import Scheduler
from simulators.engine.traffic import Traffic

if TYPE_CHECKING:
    from simulators.engine.scheduler import Step
    from simulators.engine.traffic import Request

pytestmark = pytest.mark.slow

HOUR: Final = 3600.0
MINUTE: Final = 60.0


class Watcher:
    """Notes each change between a queue and none, and each time to first token with its moment."""

    def __init__(self) -> None:
        self.changes = [(0.0, 0)]
        self.longest = 0
        self.first_tokens: list[tuple[float, float]] = []

    def on_scheduled(self, request: Request) -> None:
        pass

    def on_first_token(self, request: Request) -> None:
        self.first_tokens.append((request.first_token, request.first_token - request.arrived))

    def on_token(self, request: Request, seconds: float) -> None:
        pass

    def on_preempted(self, request: Request) -> None:
        pass

    def on_finished(self, request: Request) -> None:
        pass

    def on_step(self, step: Step, scheduler: Scheduler) -> None:
        waiting = len(scheduler.waiting)
        self.longest = max(self.longest, waiting)
        if bool(waiting) != bool(self.changes[-1][1]):
            self.changes.append((step.now, waiting))

    def queues(self) -> list[float]:
        """Return how long each queue was there, in seconds."""
        ends = [*(moment for moment, _ in self.changes[1:]), HOUR]
        return [end - began for (began, waiting), end in zip(self.changes, ends, strict=True) if waiting]

    def minutes(self) -> list[float]:
        """Return the mean time to first token of each minute."""
        by_minute = groupby(self.first_tokens, key=lambda each: each[0] // MINUTE)
        return [mean(seconds for _, seconds in group) for _, group in by_minute]


@pytest.mark.parametrize("load", [2.0, 8.0])
def test_bursts_recover_for_an_hour(load: float) -> None:
    """The queue comes and goes again and again, and the mean time to first token stays bounded."""
    watcher = Watcher()
    scheduler = Scheduler(Traffic(load, seed=0), watcher, load=load, seed=0)

    scheduler.advance(HOUR)

    assert len(watcher.queues()) > 60
    assert max(watcher.queues()) < MINUTE
    assert 10 < watcher.longest < 12 * load + 20
    assert len(watcher.minutes()) == 60
    assert max(watcher.minutes()) < 3.0
    assert mean(watcher.minutes()) < 1.0
    assert len(watcher.first_tokens) == pytest.approx(load * HOUR, rel=0.1)
