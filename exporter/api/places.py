"""The budget of places for slow requests (docs/adr/0014).

A request is slow if it can wait for the engine, a disk or a download. Each kind of
request has threads of its own, a lane (`exporter.api.lanes`):

    lane      routes                        places   threads
    QUICK     /health, /version                  -         2
    SCRAPES   /metrics                          20        21
    LOOKS     /, /ready                          4         5
    CALLS     lists, cancelling, the rest       12        13
    WAITS     loads, unloads, downloads          8        21

Every lane has fewer places than threads, so a thread is left that refuses further
requests. A load or download with `async_download` takes a place of CALLS, although
it runs in a thread of WAITS. WAITS therefore has threads for both.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from threading import Semaphore
from time import monotonic
from typing import TYPE_CHECKING, Final

import falcon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["SHARES", "Budget", "Lane", "Places", "Share"]

_RETRY_SECONDS: Final = 5
# Seconds without a place being taken or given back. A burst at a quick engine moves faster and is served.
_PATIENCE: Final = 0.25
# Longer for calls: a list of adapters may wait half a second for another call to the engine (`lora.engine.listed`).
_CALLS_PATIENCE: Final = 1.0


class Lane(Enum):
    """A kind of request, which has threads and a queue of its own."""

    QUICK = auto()
    SCRAPES = auto()
    LOOKS = auto()
    CALLS = auto()
    WAITS = auto()


@dataclass(frozen=True, slots=True)
class Share:
    """A lane's share of the budget.

    Attributes:
        threads: The highest number of threads.
        places: The highest number of slow requests at a time; 0 if no request of the lane is slow.
        advice: The detail of the 503 for a request without a place.
        patience: Seconds without movement in the places after which a request is refused.
    """

    threads: int
    places: int = 0
    advice: str = ""
    patience: float = 0.0


SHARES: Final[Mapping[Lane, Share]] = {
    Lane.QUICK: Share(threads=2),
    Lane.SCRAPES: Share(21, 20, "Too many scrapes wait for the engine.", _PATIENCE),
    Lane.LOOKS: Share(5, 4, "Too many callers wait for the engine.", _PATIENCE),
    Lane.CALLS: Share(13, 12, "Too many calls wait for the engine or for a disk.", _CALLS_PATIENCE),
    Lane.WAITS: Share(21, 8, "Too many callers wait for downloads and loads: use async_download, or try again."),
}


class Places:
    """A number of places, each held by a request while it may wait; safe for threads."""

    def __init__(
        self, count: int, advice: str, *, patience: float = 0.0, clock: Callable[[], float] = monotonic
    ) -> None:
        """Offer `count` places.

        Args:
            count: The number of places.
            advice: The detail of the 503 for a request without a place.
            patience: A request waits until no place was taken or given back for this many seconds.
            clock: A monotonic clock in seconds.
        """
        self._free = Semaphore(count)
        self._advice = advice
        self._patience = patience
        self._clock = clock
        self._moved = clock()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a place within the context.

        Raises:
            falcon.HTTPServiceUnavailable: All places are taken; the answer has Retry-After.
        """
        if not self._acquire():
            raise falcon.HTTPServiceUnavailable(description=self._advice, retry_after=_RETRY_SECONDS)
        self._moved = self._clock()
        try:
            yield
        finally:
            self._moved = self._clock()
            self._free.release()

    def _acquire(self) -> bool:
        # The patience counts from the last movement, not from the arrival of the request. Behind
        # an engine that hangs, a thousand requests are therefore refused in the time of one.
        while not self._free.acquire(blocking=False):
            left = self._moved + self._patience - self._clock()
            if left <= 0:
                return False
            if self._free.acquire(timeout=left):
                return True
        return True


class Budget:
    """The places of all lanes with slow requests: `budget[lane]`. The composition root makes one for the process.

    Attributes:
        threads: The highest number of threads of each lane.
    """

    def __init__(self, shares: Mapping[Lane, Share] = SHARES) -> None:
        self.threads: Final = {lane: share.threads for lane, share in shares.items()}
        self._places = {
            lane: Places(share.places, share.advice, patience=share.patience)
            for lane, share in shares.items() if share.places
        }  # fmt: skip

    def __getitem__(self, lane: Lane) -> Places:
        return self._places[lane]
