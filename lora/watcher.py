"""The reconciler: a thread that compares the engine with the desired set, again and again."""

from __future__ import annotations

import logging
from threading import Event, Thread
from typing import TYPE_CHECKING, Final, Protocol

from lora.errors import EngineUnavailableError, LoraError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lora.engine.client import Models

__all__ = ["RECONCILES", "Reconciler", "ReconcilerObserver"]

_log: Final = logging.getLogger(__name__)

RECONCILES: Final = ("in_sync", "repaired", "engine_unavailable")


class ReconcilerObserver(Protocol):
    """Told of each comparison; must not block or raise."""

    def reconciled(self, *, outcome: str) -> None:
        """The engine was compared with the desired set."""


class Reconciler:
    """Owns the thread. While nothing is wanted it sleeps, and nobody is asked."""

    def __init__(
        self,
        models: Callable[[], Models],
        repair: Callable[..., int],
        observer: ReconcilerObserver,
        *,
        interval: float,
    ) -> None:
        """Compare every `interval` seconds.

        Args:
            models: Returns what the engine has, or raises LoraError.
            repair: Starts what is to be done and returns for how many
                adapters; takes the models, whether the engine was away the
                last time, and whether its process was gone.
            observer: Told of each comparison.
            interval: Seconds.
        """
        self._models = models
        self._repair = repair
        self._observer = observer
        self._interval = interval
        self._needed = Event()
        self._stopping = Event()
        self._engine_is_away = False
        self._engine_was_down = False
        self._thread = Thread(target=self._run, name="lora-reconciler", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def need(self, *, needed: bool) -> None:
        """Say whether there is anything to compare."""
        if needed or self._stopping.is_set():
            self._needed.set()
        else:
            self._needed.clear()

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopping.set()
        self._needed.set()

    def join(self, timeout: float) -> None:
        """Wait for its end."""
        self._thread.join(timeout)

    def _run(self) -> None:
        while self._needed.wait() and not self._stopping.wait(self._interval):
            try:
                self._compare()
            except Exception:  # noqa: BLE001 - the outermost frame of a thread, which must go on
                _log.exception("comparing the adapters failed: a defect of the runtime")

    def _compare(self) -> None:
        try:
            models = self._models()
        except LoraError as error:
            if not self._engine_is_away:
                _log.warning("adapters cannot be compared: %s", error.message)
            self._engine_is_away = True
            self._engine_was_down |= isinstance(error, EngineUnavailableError) and error.is_down
            self._observer.reconciled(outcome="engine_unavailable")
            return
        came_back, self._engine_is_away = self._engine_is_away, False
        restarted, self._engine_was_down = self._engine_was_down, False
        repaired = self._repair(models, came_back=came_back, restarted=restarted)
        self._observer.reconciled(outcome="repaired" if repaired else "in_sync")
