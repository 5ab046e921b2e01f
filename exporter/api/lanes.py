"""Threads in lanes: a request waits only behind requests of its own kind (docs/adr/0014).

Waitress has one queue for all threads. Requests that hang take all threads, and
/health waits behind them. Here, each lane of `exporter.api.places` has a queue and
threads of its own, which start when they are needed.
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
    """A unit of work for a thread: Waitress's channel with a request to answer."""

    def service(self) -> None:
        """Answer the request; must not raise."""

    def cancel(self) -> None:
        """Drop the request: no thread will answer it."""


class Lanes:
    """Gives requests to threads, in place of Waitress's task dispatcher, whose interface it has."""

    def __init__(self, threads: Mapping[Lane, int], choose: Callable[[Task], Lane]) -> None:
        """Start one thread for each lane.

        Args:
            threads: The highest number of threads of each lane.
            choose: Returns the lane of a task.
        """
        self._lanes = {lane: _Queue(lane.name.lower(), limit) for lane, limit in threads.items()}
        self._choose = choose

    def add_task(self, task: Task) -> None:
        """Put a task into the queue of its lane; does not block."""
        self._lanes[self._choose(task)].add(task)

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5.0) -> bool:
        """Ask all threads to end, and wait up to `timeout` seconds; return whether queued tasks were cancelled.

        A thread that is still busy goes on; it is a daemon.
        """
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
        """Whether all threads have ended."""
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
                # The system may refuse another thread. The task then waits for an existing one.
                with suppress(RuntimeError):
                    self._start_thread()
            self._changed.notify()

    def stop(self) -> list[Task]:
        """Let the threads begin no more tasks; return the queued ones."""
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
