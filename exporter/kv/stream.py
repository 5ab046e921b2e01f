"""The event stream of one rank: batches in order and without gaps, as far as the engine can replay them.

Batches have sequence numbers, which start at 0 with the engine's process. A number
that is too high is a gap. The runtime fills it from the engine's replay socket, if
there is one. A number that is too low means that the engine restarted, and its cache
is empty.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import closing
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from exporter.kv.decode import Drop, PayloadError, decode
from exporter.kv.limits import MAX_PAYLOAD, MAX_SEQUENCE
from exporter.kv.replay import OversizedReplyError, ReplayError, UnsoundReplayError
from exporter.kv.seldom import Seldom
from exporter.kv.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from exporter.kv.ledger import Ledger

__all__ = ["EventStream", "Replays", "StreamObserver"]

logger: Final = logging.getLogger(__name__)

ENGINE_RESTART: Final = "engine_restart"
# Requests per replay. Each brings at least one socket buffer of the engine's ten thousand batches.
_REPLAY_TRIES: Final = 50
# The time for all requests of a replay together. Live messages wait meanwhile.
_REPLAY_SECONDS: Final = 60.0
# The pause after an answer that no engine gives.
_REST_SECONDS: Final = 60.0
# No engine restarts this often within a minute; several publishers must share one address.
_MOST_RESTARTS: Final = 5
_MINUTE: Final = 60.0
# The highest number of batches that one gap adds to the counter, because the peer chooses the sequence numbers.
_MOST_LOST: Final = 1_000_000
# Fewer messages without a pause cannot have overflowed the engine's queue: no high-water mark is this low.
_BURST: Final = 100


class StreamObserver(Protocol):
    """Observes a stream; called from the rank's thread, must not raise."""

    def received(self, tally: Tally) -> None:
        """A run of messages was applied."""

    def resynced(self, *, reason: str) -> None:
        """The engine restarted: the rank's part of the ledger is cleared."""


class Replays(Protocol):
    """A source of replayed batches (`exporter.kv.replay.Replay`)."""

    def since(self, start: int, *, missing: int = 0) -> Generator[tuple[int, bytes], None, None]:
        """Yield the number and payload of the batches from `start` on.

        `missing` batches are known to be missing.

        Raises:
            ReplayError: The answer is missing or not usable.
        """


class EventStream:
    """Applies one rank's messages to the ledger. Not thread-safe: only the rank's subscriber calls it.

    Other threads read `received`, `replay_failure` and `is_shared` for `/ready`.

    Attributes:
        tally: Sums since the last report.
        received: Whether any batch has arrived yet.
        replay_failure: Why the replay socket does not work; `None` if it works or was not asked yet.
    """

    def __init__(
        self,
        rank: int,
        ledger: Ledger,
        observer: StreamObserver,
        replay: Replays | None = None,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Prepare to apply messages.

        Args:
            rank: The DP rank.
            ledger: Where events are applied.
            observer: Called with the sums of each run, and for each restart of the engine.
            replay: The rank's replay socket; without it, the events of a gap are lost.
            clock: A monotonic clock in seconds.
        """
        self._rank = rank
        self._ledger = ledger
        self._observer = observer
        self._replay = replay
        self._clock = clock
        self._rest_until = 0.0
        self._next = 0
        self._is_placed = False  # whether `_next` is really the next number, and not only a first guess
        self._paused_at = 0  # `_next` at the last pause
        self._last: tuple[int, bytes] | None = None  # the last batch that was applied
        # Number -> hash of the payload, for replayed batches that may still arrive on the socket.
        self._replayed: dict[int, int] = {}
        self._replayed_to = -1
        self._doubtful = False  # whether the next message must show if the engine restarted
        self._restarts: deque[float] = deque(maxlen=_MOST_RESTARTS)
        self._log_restart, self._log_loss, self._log_replay = (Seldom(clock=clock) for _ in range(3))
        self.tally = Tally()
        self.received = False
        self.replay_failure: str | None = None

    def connected(self) -> None:
        """Catch up after the socket has connected; find out whether the engine is still the same process."""
        if self._last is None:
            self._catch_up()
        elif self._replay is None:
            # The number of the next message tells: the same process continues to count.
            self._doubtful = True
        elif self._is_same_process():
            self._catch_up()
        else:
            self._restart()

    def take(self, number: int, payload: bytes) -> None:
        """Apply a message from the socket; fill a gap in front of it first."""
        if number >= MAX_SEQUENCE:
            self.tally.drop(Drop.SEQUENCE)
            return
        if self._has_replayed(number, payload):
            self.tally.drop(Drop.DUPLICATE)
            return
        doubtful, self._doubtful = self._doubtful, False
        if not self._is_placed:
            self._next = number  # messages from before this runtime started are not a gap
        elif number < self._next or (doubtful and number != self._next):
            self._restart()
        if number > self._next:
            self._fill_gap(number)
        # The replay that filled the gap may have brought this message, too.
        if not self._has_replayed(number, payload):
            self._apply(number, payload)
        if number >= self._replayed_to:
            self._replayed.clear()

    def skip(self) -> None:
        """Skip the next batch, which ZeroMQ refused because it is too large; it is not a gap."""
        self.tally.drop(Drop.TOO_LARGE)
        if self._is_placed:
            self._next += 1

    @property
    def is_in_burst(self) -> bool:
        """Whether enough messages arrived since the last pause to overflow the engine's queue."""
        return self._next - self._paused_at >= _BURST

    def pause(self) -> None:
        """Ask the replay socket for the end of a burst.

        If the engine dropped its last messages, no gap shows that until the next event. A replay socket that does not
        work is not asked, because each request would cost seconds.
        """
        self._paused_at = self._next
        if self.replay_failure is None:
            self._catch_up()

    @property
    def is_shared(self) -> bool:
        """Whether the numbers start over so often that several publishers must share the address."""
        return len(self._restarts) == _MOST_RESTARTS and self._clock() - self._restarts[0] < _MINUTE

    def report(self) -> None:
        """Report the sums since the last report to the observer, if there are any."""
        if self.tally:
            self._observer.received(self.tally)
            self.tally = Tally()

    def _has_replayed(self, number: int, payload: bytes) -> bool:
        return bool(self._replayed) and self._replayed.get(number) == hash(payload)

    def _apply(self, number: int, payload: bytes) -> None:
        self._next = number + 1
        self._is_placed = True
        self._last = (number, payload)
        self.received = True
        if len(payload) > MAX_PAYLOAD:
            self.tally.drop(Drop.TOO_LARGE)
            return
        try:
            batch = decode(payload)
        except PayloadError:
            self.tally.drop(Drop.PAYLOAD)
            return
        refused = self._ledger.apply(self._rank, batch.events)
        self.tally.add(batch)
        if refused:
            self.tally.drop(Drop.FULL, refused)

    def _restart(self) -> None:
        self._restarts.append(self._clock())
        if times := self._log_restart.due():
            logger.info("engine restarted, its blocks are dropped: dp_rank=%d count=%d", self._rank, times)
        self._observer.resynced(reason=ENGINE_RESTART)
        self._ledger.clear(self._rank)
        self._next = self._paused_at = 0
        self._last = None
        self._replayed.clear()
        self._catch_up()

    def _fill_gap(self, number: int) -> None:
        self.tally.gaps += 1
        self._catch_up(number)
        if number > self._next:
            self._lose(number)
            self._next = number

    def _lose(self, number: int) -> None:
        """Count the missing batches in front of `number` as lost."""
        lost = min(number - self._next, _MOST_LOST)
        self.tally.drop(Drop.LOST, lost)
        if lost := self._log_loss.due(lost):
            logger.warning("event batches are lost: dp_rank=%d count=%d: %s", self._rank, lost, self._why_lost())

    def _why_lost(self) -> str:
        if self._replay is None:
            return "set KV_EVENTS_REPLAY_ENDPOINT and the engine's replay_endpoint to get such batches again"
        return self.replay_failure or "the engine no longer has them: raise its buffer_steps"

    def _catch_up(self, wanted: int = 0) -> None:
        """Apply all batches that the engine has from the next number on.

        The engine may drop replies. The request is therefore repeated as long as it brings something, until an answer
        is complete and the next number is at least `wanted`.
        """
        deadline = self._clock() + _REPLAY_SECONDS
        for _ in range(_REPLAY_TRIES):
            before = self._next
            if self._replay is None or self._clock() > deadline or self._clock() < self._rest_until:
                return
            try:
                if self._replay_once(self._replay, wanted) and self._next >= wanted:
                    return
            except ReplayError as error:
                self._fail(error)
            if self._next == before:
                return

    def _fail(self, error: ReplayError) -> None:
        if isinstance(error, OversizedReplyError):
            self.skip()
            return
        self._note_replay(str(error))
        if isinstance(error, UnsoundReplayError):
            self._rest_until = self._clock() + _REST_SECONDS

    def _replay_once(self, replay: Replays, wanted: int) -> bool:
        """Apply one answer; return whether it was complete. A gap inside it means that replies were dropped."""
        first = True
        for number, payload in replay.since(self._next, missing=max(wanted - self._next, 0)):
            if number > self._next and not first:
                return False
            # A gap at the beginning: the engine no longer has the older batches.
            if number > self._next and self._last is not None:
                self._lose(number)
            first = False
            self._apply(number, payload)
            self._replayed[number] = hash(payload)
            self._replayed_to = number
            self.tally.replayed += 1
        self._is_placed = True
        self._note_replay(None)
        return True

    def _is_same_process(self) -> bool:
        """Tell whether the engine is still the same process: only that one has the last batch under its number.

        If the replay socket does not answer, return true, and let the next number decide.
        """
        if self._replay is None or self._last is None:
            return False
        try:
            with closing(self._replay.since(self._last[0])) as answer:
                return next(answer, None) == self._last
        except ReplayError as error:
            self._note_replay(str(error))
            self._doubtful = True
            return True

    def _note_replay(self, failure: str | None) -> None:
        if failure != self.replay_failure and failure and self._log_replay.due():
            logger.warning("the engine's replay socket is of no use (dp_rank %d): %s", self._rank, failure)
        self.replay_failure = failure
