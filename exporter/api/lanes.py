"""Threads in lanes: a request waits only behind requests of its own kind.

Waitress has one queue for all threads. Requests that hang fill it, and /health
stands behind them. Here each lane of `exporter.api.places` has a queue and
threads of its own, which are started as they are needed.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from threading import Condition, Thread
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from exporter.api.places import Lane

__all__ = ["Lanes", "Task"]

logger: Final = logging.getLogger(__name__)


class Task(Protocol):
    """What a thread does: Waitress's channel, with a request to answer."""

    def service(self) -> None:
        """Do it; must not raise."""

    def cancel(self) -> None:
        """Give it up: no thread will do it."""


class Lanes:
    """Takes the place of Waitress's task dispatcher."""

    def __init__(self, threads: Mapping[Lane, int], choose: Callable[[Task], Lane]) -> None:
        """Start one thread for each lane.

        Args:
            threads: How many each lane may have.
            choose: Returns the lane of a task.
        """
        self._lanes = {lane: _Queue(lane.name.lower(), limit) for lane, limit in threads.items()}
        self._choose = choose

    def add_task(self, task: Task) -> None:
        """Have a task done by a thread of its lane."""
        self._lanes[self._choose(task)].add(task)

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5.0) -> bool:
        """End all threads, within `timeout` seconds; return whether tasks were given up."""
        tasks = [task for queue in self._lanes.values() for task in queue.stop()]
        deadline = monotonic() + timeout
        for queue in self._lanes.values():
            queue.join(deadline)
        if cancel_pending:
            for task in tasks:
                task.cancel()
        return cancel_pending and bool(tasks)

    @property
    def has_ended(self) -> bool:
        """Whether no thread is left."""
        return all(queue.has_ended for queue in self._lanes.values())


class _Queue:
    """One lane's tasks and threads."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._changed = Condition()
        self._tasks: deque[Task] = deque()
        self._threads: list[Thread] = []
        self._idle = 0
        self._is_stopping = False
        self._start_thread()

    def add(self, task: Task) -> None:
        with self._changed:
            self._tasks.append(task)
            if self._idle < len(self._tasks) and len(self._threads) < self._limit:
                # Without another thread the task waits for those that there are.
                with suppress(RuntimeError):
                    self._start_thread()
            self._changed.notify()

    def stop(self) -> list[Task]:
        """Begin no more tasks; return those that no thread has begun."""
        with self._changed:
            self._is_stopping = True
            tasks = list(self._tasks)
            self._tasks.clear()
            self._changed.notify_all()
        return tasks

    def join(self, deadline: float) -> None:
        for thread in self._threads:
            thread.join(max(deadline - monotonic(), 0.0))

    @property
    def has_ended(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def _start_thread(self) -> None:
        thread = Thread(target=self._work, name=f"http-{self._name}-{len(self._threads)}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                task.service()
            except Exception:
                logger.exception("a request failed")

    def _next(self) -> Task | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._tasks or self._is_stopping)
            self._idle -= 1
            return self._tasks.popleft() if self._tasks else None
