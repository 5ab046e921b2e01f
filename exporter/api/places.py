"""One budget of places for slow requests: fewer than the threads, so that quick requests always find a thread.

A request is slow when it can wait for the engine, a disk or a worker. Each kind
of request has threads of its own, a lane (`exporter.api.lanes`):

    lane      routes                        places   threads
    QUICK     /health, /version                  -         2
    SCRAPES   /metrics                          20        21
    LOOKS     /, /ready                          4         5
    CALLS     lists, cancelling, the rest       12        13
    WAITS     loads, unloads, downloads          8        21

In every lane the places are fewer than the threads: a thread is left that
refuses one request too many. A load or a download in the background takes one
of the places of CALLS, although it runs in WAITS; hence the additional threads.
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
# A burst of requests to a quick engine is served within this time.
_PATIENCE: Final = 0.25
# A list of adapters waits for half a second while others ask the engine (`lora.engine.listed`).
_CALLS_PATIENCE: Final = 1.0


class Lane(Enum):
    """Requests that share threads."""

    QUICK = auto()
    SCRAPES = auto()
    LOOKS = auto()
    CALLS = auto()
    WAITS = auto()


@dataclass(frozen=True, slots=True)
class Share:
    """What a lane gets of the budget.

    Attributes:
        threads: How many serve the lane.
        places: How many requests may be slow at a time; 0 where none is slow.
        advice: What a caller reads who finds no place.
        patience: Seconds for which all places must have been taken before a request is refused.
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
    """A number of places, taken by requests for as long as they can wait; safe for threads."""

    def __init__(
        self, count: int, advice: str, *, patience: float = 0.0, clock: Callable[[], float] = monotonic
    ) -> None:
        """Offer `count` places.

        Args:
            count: How many.
            advice: What a caller reads who finds none.
            patience: A request waits for a place until none was taken or given back for this many seconds.
            clock: A monotonic clock in seconds.
        """
        self._free = Semaphore(count)
        self._advice = advice
        self._patience = patience
        self._clock = clock
        self._moved = clock()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a place.

        Raises:
            falcon.HTTPServiceUnavailable: All are taken.
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
        # Patience is counted from the last movement, not from the request: behind an engine
        # that hangs, a thousand requests are refused in the time of one.
        while not self._free.acquire(blocking=False):
            left = self._moved + self._patience - self._clock()
            if left <= 0:
                return False
            if self._free.acquire(timeout=left):
                return True
        return True


class Budget:
    """The places of all lanes; the composition root makes one."""

    def __init__(self, shares: Mapping[Lane, Share] = SHARES) -> None:
        """Offer the places of `shares`."""
        self.threads: Final = {lane: share.threads for lane, share in shares.items()}
        self._places = {
            lane: Places(share.places, share.advice, patience=share.patience)
            for lane, share in shares.items() if share.places
        }  # fmt: skip

    def __getitem__(self, lane: Lane) -> Places:
        return self._places[lane]
