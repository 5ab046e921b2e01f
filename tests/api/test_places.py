"""Places for slow requests: the budget adds up, and a flood is refused quickly."""

from __future__ import annotations

from contextlib import ExitStack
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Final

import falcon
import pytest

from exporter.api.app import LANES, ROUTES
from exporter.api.lanes import Lanes
from exporter.api.places import SHARES, Budget, Lane, Places
from exporter.api.server import THREADS
from simulators.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.unit

# The kinds of place that requests of a lane take. Loads and downloads in the background take those of CALLS.
TAKEN: Final = {
    Lane.QUICK: (),
    Lane.SCRAPES: (Lane.SCRAPES,),
    Lane.LOOKS: (Lane.LOOKS,),
    Lane.CALLS: (Lane.CALLS,),
    Lane.WAITS: (Lane.WAITS, Lane.CALLS),
}
FLOOD: Final = 1_000


def test_the_budget_adds_up() -> None:
    """In each lane a thread is left when all places are taken, and so it is in all of them together."""
    assert set(TAKEN) == set(SHARES) == set(Lane)
    for lane, kinds in TAKEN.items():
        assert sum(SHARES[kind].places for kind in kinds) < SHARES[lane].threads
    assert sum(share.places for share in SHARES.values()) < THREADS == sum(Budget().threads.values())


def test_only_what_asks_nothing_is_quick() -> None:
    """/health has threads of its own, next to the one other route that waits for nothing."""
    assert {route for route, lane in LANES.items() if lane is Lane.QUICK} == {"/health", "/version"}
    assert set(LANES) <= set(ROUTES)


def test_places_are_given_back() -> None:
    """Also by a request that fails."""
    places = Places(1, "Too many.")
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), places.take():
            _ = 1 / 0
    with places.take(), pytest.raises(falcon.HTTPServiceUnavailable, match="503"), places.take():
        pass


def test_a_flood_is_refused_in_the_time_of_one() -> None:
    """Behind requests that hang, the first one too many waits for a moment, and the others do not."""
    places = Places(2, "Too many.", patience=0.25)
    with ExitStack() as taken:
        for _ in range(2):
            taken.enter_context(places.take())
        started = monotonic()
        for _ in range(FLOOD):
            with pytest.raises(falcon.HTTPServiceUnavailable), places.take():
                pass
        assert monotonic() - started < 5


def test_one_too_many_waits_for_those_that_move() -> None:
    """While places are taken and given back, the next request gets one of them."""
    places = Places(1, "Too many.", patience=30)
    leaving = Event()

    def stay() -> None:
        with places.take():
            leaving.wait()

    thread = Thread(target=stay)
    thread.start()
    wait_until(lambda: places._free._value == 0, "the place is taken")
    leaving.set()
    with places.take():
        thread.join()


class Task:
    """A request that its test lets go."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.begun, self.gate, self.cancelled = Event(), Event(), Event()

    def service(self) -> None:
        self.begun.set()
        self.gate.wait()

    def cancel(self) -> None:
        self.cancelled.set()


def lane_of(task: object) -> Lane:
    assert isinstance(task, Task)
    return task.lane


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    made = Lanes({Lane.QUICK: 1, Lane.SCRAPES: 3}, lane_of)
    yield made
    made.shutdown(timeout=5)


def test_a_lane_has_its_own_threads(lanes: Lanes) -> None:
    """More requests than one lane has threads leave those of the other one free."""
    tasks = [Task(Lane.SCRAPES) for _ in range(5)]
    for task in tasks:
        lanes.add_task(task)
    wait_until(lambda: sum(task.begun.is_set() for task in tasks) == 3, "three are begun")
    quick = Task(Lane.QUICK)
    lanes.add_task(quick)

    assert quick.begun.wait(30)
    assert [task.begun.is_set() for task in tasks] == [True] * 3 + [False] * 2
    for task in (*tasks, quick):
        task.gate.set()
    wait_until(lambda: all(task.begun.is_set() for task in tasks), "all are begun")


def test_threads_outlive_a_request_that_fails(lanes: Lanes, caplog: pytest.LogCaptureFixture) -> None:
    """A defect costs one request, and a line in the log."""
    broken, fine = Task(Lane.QUICK), Task(Lane.QUICK)
    broken.gate = None  # type: ignore[assignment]
    fine.gate.set()
    lanes.add_task(broken)
    lanes.add_task(fine)

    assert fine.begun.wait(30)
    assert "a request failed" in caplog.text


def test_the_end_does_not_wait_for_requests_that_hang(lanes: Lanes) -> None:
    """Those that no thread has begun are given up."""
    tasks = [Task(Lane.QUICK) for _ in range(2)]
    for task in tasks:
        lanes.add_task(task)
    assert tasks[0].begun.wait(30)

    assert lanes.shutdown(timeout=0.1)
    assert (tasks[0].cancelled.is_set(), tasks[1].cancelled.is_set()) == (False, True)
    tasks[0].gate.set()
