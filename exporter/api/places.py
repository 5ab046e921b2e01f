"""Places for slow requests: fewer than threads, so that quick ones always find one."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Semaphore
from typing import TYPE_CHECKING

import falcon

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Places"]


class Places:
    """A number of places; who finds none for `patience` seconds is sent away with 503."""

    def __init__(self, count: int, advice: str, *, patience: float = 0.0, retry_after: int = 5) -> None:
        """Offer `count` places; `advice` says what else the caller can do."""
        self._free = Semaphore(count)
        self._patience = patience
        self._advice = advice
        self._retry_after = retry_after

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a place.

        Raises:
            falcon.HTTPServiceUnavailable: All are taken.
        """
        if not self._free.acquire(timeout=self._patience):
            raise falcon.HTTPServiceUnavailable(description=self._advice, retry_after=self._retry_after)
        try:
            yield
        finally:
            self._free.release()
