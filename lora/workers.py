"""The worker threads. Each takes a record from the queue, carries out its goal, and reports the outcome."""

from __future__ import annotations

import logging
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from lora import codes
from lora.errors import EngineUnavailableError, LoraError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lora.procedure import Procedure
    from lora.record import Goal, Record
    from lora.store import Store
    from lora.transitions import Records

__all__ = ["OPERATIONS", "OUTCOMES", "OperationObserver", "Workers"]

logger: Final = logging.getLogger(__name__)

# Adapters that are worked on concurrently. Further ones wait in the queue.
COUNT: Final = 8

OPERATIONS: Final = ("load", "unload")
OUTCOMES: Final = ("done", "failed", "engine_unavailable")


class OperationObserver(Protocol):
    """Receives each attempt, for metrics. Implementations must not block or raise."""

    def operated(self, *, operation: str, outcome: str, seconds: float) -> None:
        """An attempt ended after `seconds`; see `OPERATIONS` and `OUTCOMES`."""


class Workers:
    """Owns the worker threads."""

    def __init__(
        self,
        records: Records,
        procedure: Procedure,
        store: Store,
        observer: OperationObserver,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Create the threads; `start` starts them.

        Args:
            records: The queue of work; it also receives the outcomes.
            procedure: Carries out goals.
            store: Writes the desired set before callers are told of a success.
            observer: Receives each attempt.
            clock: A monotonic clock in seconds.
        """
        self._records = records
        self._procedure = procedure
        self._store = store
        self._observer = observer
        self._clock = clock
        self._threads = [Thread(target=self._run, name=f"lora-{number}", daemon=True) for number in range(COUNT)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self, end: float) -> None:
        """Wait for the threads until the clock shows `end`, and no longer: an engine may never answer."""
        for thread in self._threads:
            thread.join(max(end - self._clock(), 0.0))

    def _run(self) -> None:
        while work := self._records.take():
            record, goal = work
            started = self._clock()
            operation = "load" if goal.wanted else "unload"
            outcome = self._attempt(record, goal)
            try:
                self._observer.operated(operation=operation, outcome=outcome, seconds=self._clock() - started)
            except Exception:  # a defect of a metric must not end the thread
                logger.exception("adapter %s: a defect of the runtime", record.name)

    def _attempt(self, record: Record, goal: Goal) -> str:
        try:
            self._carry_out(record, goal)
        except EngineUnavailableError as error:
            self._failed(record, goal, error)
            return "engine_unavailable"
        except LoraError as error:
            self._failed(record, goal, error)
            return "failed"
        # The thread's outermost frame: a defect must not end the thread, and callers must not wait forever.
        except Exception:
            logger.exception("adapter %s: a defect of the runtime", record.name)
            self._failed(record, goal, LoraError(codes.INTERNAL, "a defect of the runtime, see its log"))
            return "failed"
        return "done"

    def _carry_out(self, record: Record, goal: Goal) -> None:
        if goal.wanted:
            found = self._procedure.load(record, goal, goal.wanted)
            self._records.loaded(record, goal, found)
        else:
            found = None
            self._procedure.unload(record)
            self._records.unloaded(record, goal)
        self._store.write()  # before callers are told: what they hear of must survive a restart
        self._records.finish(record, goal)
        if found:
            logger.info("adapter %s is loaded from %s", record.name, found.engine_path)
        else:
            logger.info("adapter %s is unloaded", record.name)

    def _failed(self, record: Record, goal: Goal, error: LoraError) -> None:
        if self._records.fail(record, goal, error):
            logger.warning("adapter %s: %s", record.name, error.message)
