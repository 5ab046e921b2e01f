"""Asks a runtime for /health without a pause, and keeps the longest wait for an answer."""

from __future__ import annotations

from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Final

import requests

from simulators.waiting import PATIENCE

if TYPE_CHECKING:
    from typing import Self

    from tests.harness.runtime import Runtime

__all__ = ["HealthWatch"]

_PAUSE: Final = 0.02


class HealthWatch:
    """Asks while its ``with`` block runs.

    Attributes:
        longest: Seconds of the longest wait.
        failures: Answers other than 200.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._url = f"{runtime.url}/health"
        self._stopping = Event()
        self._thread = Thread(target=self._run)
        self.longest = 0.0
        self.failures = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while not self._stopping.wait(_PAUSE):
                started = monotonic()
                self.failures += session.get(self._url, timeout=PATIENCE).status_code != 200
                self.longest = max(self.longest, monotonic() - started)
