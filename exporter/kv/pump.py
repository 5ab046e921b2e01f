"""The pump: one thread that makes Redis match the ledger, whatever happens to Redis.

While Redis is away events go on into the ledger, which the engine's own cache
bounds; what differs is written when Redis is back. A Redis that lost data (it
was emptied, restarted, or failed over) gets everything again, and fields that
should not be there are taken out.
"""

from __future__ import annotations

import logging
from functools import partial
from threading import Event, Thread
from time import monotonic, time
from typing import TYPE_CHECKING, Final, Protocol

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from exporter.kv.seldom import Seldom

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from exporter.kv.index import PodIndex
    from exporter.kv.ledger import Change, Ledger

__all__ = ["OPERATIONS", "REASONS", "RESYNCS", "Pump", "PumpObserver"]

logger: Final = logging.getLogger(__name__)

# The `reason` of a failure: the first class that fits (subclasses first).
_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (AuthenticationError, "auth"),
    (NoPermissionError, "auth"),
    (BusyLoadingError, "loading"),
    (ReadOnlyError, "read_only"),
    (OutOfMemoryError, "out_of_memory"),
    (InvalidResponse, "invalid_reply"),
    (RedisTimeoutError, "timeout"),
    (RedisConnectionError, "connection"),
    (RedisError, "other"),
    (Exception, "internal"),
)
REASONS: Final = tuple(dict.fromkeys(reason for _, reason in _REASONS))
OPERATIONS: Final = ("write", "check", "resync")
RESYNCS: Final = ("start", "emptied", "restarted", "refresh")

# Commands a pipeline: enough to hide the round trip, few enough not to hold a shared server up.
BATCH: Final = 1000
# How long a first change waits for more: a pipeline of its own costs ten times what the change does.
GATHER_SECONDS: Final = 0.005
CHECK_SECONDS: Final = 5.0
# The router takes a field for stale after 24 h.
REFRESH_SECONDS: Final = 6 * 3600.0
# How long after the deadline an operation that is under way may still succeed.
LAST_SECONDS: Final = 0.5
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 10.0


class PumpObserver(Protocol):
    """Told what the pump does; must not raise."""

    def redis_done(self, *, operation: str, seconds: float) -> None:
        """An operation succeeded."""

    def redis_failed(self, *, operation: str, reason: str) -> None:
        """An operation failed."""

    def resynced(self, *, reason: str) -> None:
        """Everything is written again."""


class Pump:
    """Owns the thread that writes to Redis.

    Attributes:
        failure: Why Redis does not take what it is sent, for people; `None` when it does.
    """

    def __init__(
        self,
        ledger: Ledger,
        index: PodIndex,
        observer: PumpObserver,
        *,
        clock: Callable[[], float] = monotonic,
        now: Callable[[], float] = time,
        check_every: float = CHECK_SECONDS,
        refresh_every: float = REFRESH_SECONDS,
        pauses: tuple[float, float] = (FIRST_PAUSE, LONGEST_PAUSE),
    ) -> None:
        """Write `ledger` to `index`.

        Args:
            ledger: What the engine holds.
            index: Redis.
            observer: Told of each operation.
            clock: A monotonic clock in seconds.
            now: Unix seconds, for the fields' values.
            check_every: Seconds between two looks at whether Redis still has everything.
            refresh_every: Seconds after which all fields are written anew.
            pauses: Seconds to wait after a first failure, and at most.
        """
        self._ledger = ledger
        self._index = index
        self._observer = observer
        self._clock = clock
        self._now = now
        self._check_every = check_every
        self._refresh_every = refresh_every
        self.failure: str | None = "not asked yet"
        self._server: str | None = None
        self._resync_reason: str | None = "start"
        self._collected = 0  # of what the ledger has forgotten
        self._check_at = self._refresh_at = clock()
        self._first_pause, self._longest_pause = pauses
        self._pause = self._first_pause
        self._log_failure = {reason: Seldom() for reason in REASONS}
        self._log_success = Seldom()
        self._stopping = Event()
        self._deadline = 0.0
        # A server that sends a byte now and then can hold an operation longer than an end may take.
        self._thread = Thread(target=self._run, name="kv-pump", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._refresh_at = self._clock() + self._refresh_every
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Ask the thread to take this pod's fields out of Redis and to end within `seconds`."""
        self._deadline = self._clock() + seconds
        self._ledger.close()
        self._stopping.set()
        self._ledger.wake()

    def join(self) -> None:
        """Wait for the end that `stop` asked for, and log what is left in Redis."""
        self._thread.join(max(self._deadline - self._clock(), 0.0) + LAST_SECONDS)
        left, more = self._ledger.size, " or more" if self._misses_some else ""
        if left or more:
            logger.warning("%d%s fields of this pod stay in Redis until its next start", left, more)

    def _run(self) -> None:
        while not self._is_last_turn():
            pass
        self._index.close()

    def _is_last_turn(self) -> bool:
        """Take one turn; a defect costs that turn, and everything is written again."""
        try:
            if self._is_over():
                return True
            self._step()
        except Exception as error:  # noqa: BLE001 - the outermost frame of a thread
            self._failed("write", error)
            self._resync_reason = self._resync_reason or "refresh"
            self._rest()
        return False

    def _is_over(self) -> bool:
        if not self._stopping.is_set():
            return False
        is_empty = not self._ledger.size and not self._misses_some
        if self._clock() >= self._deadline or (self.failure is not None and is_empty):
            return True  # or nothing of ours is there, as far as the runtime knows
        if self._resync_reason is not None or self._ledger.pending:
            return False
        if self._misses_some:
            self._check_at = self._clock()
            return False
        if self._do("write", self._index.forget):
            return True
        self._rest()
        return False

    def _step(self) -> None:
        if self._resync() and self._check() and self._write():
            self._pause = self._first_pause
            if self.failure is not None:  # over only now: a full Redis answers checks and refuses writes
                if self._log_success.due():
                    logger.info("Redis takes the KV index")
                self.failure = None
            self._ledger.wait(max(self._check_at - self._clock(), 0.0), unless=self._stopping.is_set)
            if self._ledger.pending:
                self._stopping.wait(GATHER_SECONDS)
        else:
            self._rest()

    def _rest(self) -> None:
        """Pause after a failure, longer each time; the end is near when `stop` was called."""
        if self._stopping.is_set():
            Event().wait(min(self._first_pause, max(self._deadline - self._clock(), 0.0)))
        else:
            self._stopping.wait(self._pause)
        self._pause = min(self._pause * 2, self._longest_pause)

    def _resync(self) -> bool:
        if self._resync_reason is None:
            return True
        if not self._do("resync", self._adopt):
            return False
        self._observer.resynced(reason=self._resync_reason)
        self._resync_reason = None
        return True

    def _adopt(self) -> None:
        """Make the ledger and Redis know of each other's entries."""
        self._server = self._index.server_id()
        self._ledger.doubt()
        self._collect()
        self._index.claim()

    def _collect(self) -> None:
        """Let the ledger adopt what this pod has in Redis, as far as there is room."""
        forgotten = self._ledger.forgotten
        for model, block in self._index.remembered():
            self._ledger.adopt(model, block)
        self._collected = forgotten

    @property
    def _misses_some(self) -> bool:
        """Whether Redis may have fields that the ledger has forgotten."""
        return self._collected != self._ledger.forgotten

    def _check(self) -> bool:
        """Notice that Redis lost what was written, and what is due to be written anew."""
        now = self._clock()
        if now >= self._refresh_at:
            self._refresh_at = now + self._refresh_every
            self._ledger.doubt()
            self._observer.resynced(reason="refresh")
        if now < self._check_at:
            return True
        if not self._do("check", self._look):
            return False
        self._check_at = now + self._check_every
        return self._resync() and (not self._misses_some or self._do("resync", self._collect))

    def _look(self) -> None:
        if not self._index.is_claimed():
            self._resync_reason = "emptied"
        elif self._index.server_id() != self._server:
            self._resync_reason = "restarted"
        else:
            self._index.renew()

    def _write(self) -> bool:
        while changes := self._ledger.take(BATCH):
            if not self._put(changes):
                return False
            if len(changes) < BATCH or self._clock() >= self._check_at:
                break
        return True

    def _put(self, changes: Sequence[Change]) -> bool:
        """Write changes; what goes, goes first and by itself: a Redis out of memory still lets go."""
        now, done = int(self._now()), True
        for present in (False, True):
            part = [change for change in changes if change.present is present]
            done = done and (not part or self._do("write", partial(self._index.write, part, now)))
            self._ledger.settle(part, done=done)
        return done

    def _do(self, operation: str, action: Callable[[], None]) -> bool:
        """Run one operation against Redis; count it, and say once when Redis goes."""
        started = self._clock()
        try:
            action()
        except Exception as error:  # noqa: BLE001 - one failed operation must not end the thread
            self._failed(operation, error)
            return False
        self._observer.redis_done(operation=operation, seconds=self._clock() - started)
        return True

    def _failed(self, operation: str, error: Exception) -> None:
        reason = next(reason for kind, reason in _REASONS if isinstance(error, kind))
        self._observer.redis_failed(operation=operation, reason=reason)
        # What stays wrong is logged by `exporter.kv.events` as well, after a minute.
        if reason != self.failure and self._log_failure[reason].due():
            logger.warning(
                "Redis does not take the KV index (%s): events are kept and written later", reason,
                exc_info=error if reason == "internal" else None,
            )  # fmt: skip
        self.failure = reason
        # Whatever it was: before the next write, look whether this is still the same Redis.
        self._check_at = self._clock()
        if reason == "read_only" and self._resync_reason is None:
            self._resync_reason = "restarted"  # demoted: promoted again it has what its primary had
