"""The pump: one thread that makes Redis match the ledger, through outages and loss of data (docs/adr/0006).

During an outage, the ledger continues to record events. The pump writes the
differences when Redis is back. When Redis lost data (it was emptied, restarted, or
failed over), the pump does a resync: it writes every field again, and removes the
fields that should not be there.
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

# The `reason` label of a failed operation. The first class that fits counts, so subclasses come first.
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

# Changes per pipeline: enough to hide the round trip, and few enough not to block a shared server.
BATCH: Final = 1000
# How long a first change waits for more: a pipeline for one change costs ten times as much as the change.
GATHER_SECONDS: Final = 0.005
CHECK_SECONDS: Final = 5.0
# The router drops a field after 24 h, so valid fields are rewritten well before that.
REFRESH_SECONDS: Final = 6 * 3600.0
# How long `join` waits beyond the deadline for an operation in flight.
LAST_SECONDS: Final = 0.5
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 10.0


class PumpObserver(Protocol):
    """Observes the pump; called from its thread, must not raise."""

    def redis_done(self, *, operation: str, seconds: float) -> None:
        """One of `OPERATIONS` succeeded."""

    def redis_failed(self, *, operation: str, reason: str) -> None:
        """One of `OPERATIONS` failed for one of `REASONS`."""

    def resynced(self, *, reason: str) -> None:
        """A resync for one of `RESYNCS`: every field is marked and will be written again."""


class Pump:
    """Owns the thread that writes to Redis; no other thread talks to Redis.

    Attributes:
        failure: The reason of the last failure, one of `REASONS`, until a whole turn succeeds; then `None`.
            It is a sentence before the first operation.
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
        """Prepare to write `ledger` to `index`; nothing is sent before `start`.

        Args:
            ledger: The blocks that the engine holds.
            index: This pod's fields in Redis.
            observer: Called for each operation.
            clock: A monotonic clock in seconds.
            now: Returns unix seconds, for the values of fields.
            check_every: Seconds between two checks whether Redis lost data.
            refresh_every: Seconds after which all fields are written again.
            pauses: The first and the longest pause after failures, in seconds.
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
        self._collected = 0  # the ledger's `forgotten` before the last look at this pod's set
        self._check_at = self._refresh_at = clock()
        self._first_pause, self._longest_pause = pauses
        self._pause = self._first_pause
        self._log_failure = {reason: Seldom() for reason in REASONS}
        self._log_success = Seldom()
        self._stopping = Event()
        self._deadline = 0.0
        # A daemon: a server that sends a byte now and then may delay an operation beyond the end of the runtime.
        self._thread = Thread(target=self._run, name="kv-pump", daemon=True)

    def start(self) -> None:
        self._refresh_at = self._clock() + self._refresh_every
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Ask the thread to remove this pod's fields from Redis and to end within `seconds`."""
        self._deadline = self._clock() + seconds
        # An empty ledger makes every field of this pod a removal, which the thread handles like any other change.
        self._ledger.close()
        self._stopping.set()
        self._ledger.wake()

    def join(self) -> None:
        """Wait for the end that `stop` requested, and log the number of fields that stay in Redis."""
        self._thread.join(max(self._deadline - self._clock(), 0.0) + LAST_SECONDS)
        left, more = self._ledger.size, " or more" if self._misses_some else ""
        if left or more:
            logger.warning("%d%s fields of this pod stay in Redis until its next start", left, more)

    def _run(self) -> None:
        while not self._is_last_turn():
            pass
        self._index.close()

    def _is_last_turn(self) -> bool:
        """Take one turn; return whether the thread must end. After a defect, the next turn begins with a resync."""
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
            return True  # the time is over, or Redis fails and has no field of this pod as far as the runtime knows
        if self._resync_reason is not None or self._ledger.pending:
            return False
        if self._misses_some:
            # The next check adopts the forgotten fields, so that they are removed, too.
            self._check_at = self._clock()
            return False
        # Everything is removed: the set goes last.
        if self._do("write", self._index.forget):
            return True
        self._rest()
        return False

    def _step(self) -> None:
        if self._resync() and self._check() and self._write():
            self._pause = self._first_pause
            if self.failure is not None:  # cleared only after a write: a full Redis answers checks and refuses writes
                if self._log_success.due():
                    logger.info("Redis takes the KV index")
                self.failure = None
            self._ledger.wait(max(self._check_at - self._clock(), 0.0), unless=self._stopping.is_set)
            if self._ledger.pending:
                self._stopping.wait(GATHER_SECONDS)
        else:
            self._rest()

    def _rest(self) -> None:
        """Back off after a failure, longer each time; only briefly after `stop`, to try again before the deadline."""
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
        """Compare the ledger with Redis: mark all entries for writing, and adopt the fields that the set names."""
        self._server = self._index.server_id()
        self._ledger.doubt()
        self._collect()
        self._index.claim()

    def _collect(self) -> None:
        """Let the ledger adopt the fields that this pod's set names, as far as there is room."""
        # Read the count first: what is forgotten during the scan needs another look.
        forgotten = self._ledger.forgotten
        for model, block in self._index.remembered():
            self._ledger.adopt(model, block)
        self._collected = forgotten

    @property
    def _misses_some(self) -> bool:
        """Whether Redis may have fields that the ledger forgot for lack of room."""
        return self._collected != self._ledger.forgotten

    def _check(self) -> bool:
        """Mark all fields for writing when a refresh is due, and check whether Redis lost data when that is due."""
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
            # A check may be due in a long run of writes: only it notices a Redis that was emptied meanwhile.
            if len(changes) < BATCH or self._clock() >= self._check_at:
                break
        return True

    def _put(self, changes: Sequence[Change]) -> bool:
        """Write changes. Removals go first, in a pipeline of their own: a Redis that is out of memory accepts them."""
        now, done = int(self._now()), True
        for present in (False, True):
            part = [change for change in changes if change.present is present]
            done = done and (not part or self._do("write", partial(self._index.write, part, now)))
            self._ledger.settle(part, done=done)
        return done

    def _do(self, operation: str, action: Callable[[], None]) -> bool:
        """Run one operation on Redis, and report it; return whether it succeeded."""
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
        # A failure that lasts a minute is also logged by `exporter.kv.events`, with what to do.
        if reason != self.failure and self._log_failure[reason].due():
            logger.warning(
                "Redis does not take the KV index (%s): events are kept and written later", reason,
                exc_info=error if reason == "internal" else None,
            )  # fmt: skip
        self.failure = reason
        # After any failure, check first whether this is still the same Redis with the same data.
        self._check_at = self._clock()
        if reason == "read_only" and self._resync_reason is None:
            # This server was demoted. After a promotion, it has the data of its former primary.
            self._resync_reason = "restarted"
