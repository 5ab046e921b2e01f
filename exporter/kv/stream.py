"""One engine's batches, in order and without gaps, as far as the engine can give them.

Batches carry sequence numbers that begin at 0 with the engine's process. A
number too high is a gap, filled from the engine's replay socket where there is
one; a number too low is a restart of the engine, which empties its cache.
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
# Each try brings at least a socket's buffer full, of the engine's ten thousand batches.
_REPLAY_TRIES: Final = 50
# All of them together may take so long; live messages wait meanwhile.
_REPLAY_SECONDS: Final = 60.0
# So long the socket is left alone after an answer that no engine gives.
_REST_SECONDS: Final = 60.0
# An engine does not restart as often as that within a minute: several publishers send under one address.
_MOST_RESTARTS: Final = 5
_MINUTE: Final = 60.0
# A gap counts as no more batches: its numbers are whatever the peer says.
_MOST_LOST: Final = 1_000_000
# So many messages may have filled the engine's queue, if no pause was between them; no high-water mark is that low.
_BURST: Final = 100


class StreamObserver(Protocol):
    """Told what came; must not raise."""

    def received(self, tally: Tally) -> None:
        """A run of messages was taken."""

    def resynced(self, *, reason: str) -> None:
        """The ledger begins anew: the engine was restarted."""


class Replays(Protocol):
    """What can be asked for batches again."""

    def since(self, start: int, *, missing: int = 0) -> Generator[tuple[int, bytes], None, None]:
        """Yield number and payload of the batches from `start` on, or raise ReplayError; so many are known to be missing."""


class EventStream:
    """Brings one rank's messages into the ledger. For one thread.

    Attributes:
        tally: What came since the last report.
        received: Whether any batch has come yet.
        replay_failure: Why the replay socket is of no use, if it is not.
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
        """Feed `ledger` under `rank`; without `replay` gaps stay."""
        self._rank = rank
        self._ledger = ledger
        self._observer = observer
        self._replay = replay
        self._clock = clock
        self._rest_until = 0.0
        self._next = 0
        self._is_placed = False  # whether `_next` is known to be the next
        self._paused_at = 0
        self._last: tuple[int, bytes] | None = None  # the last batch taken
        # Number -> print, of what the socket may bring a second time.
        self._replayed: dict[int, int] = {}
        self._replayed_to = -1
        self._doubtful = False
        self._restarts: deque[float] = deque(maxlen=_MOST_RESTARTS)
        self._log_restart, self._log_loss, self._log_replay = (Seldom(clock=clock) for _ in range(3))
        self.tally = Tally()
        self.received = False
        self.replay_failure: str | None = None

    def connected(self) -> None:
        """The socket has a connection, the first or a new one: find out where the engine is."""
        if self._last is None:
            self._catch_up()
        elif self._replay is None:
            # The next number tells: the same process goes on counting.
            self._doubtful = True
        elif self._is_same_process():
            self._catch_up()
        else:
            self._restart()

    def take(self, number: int, payload: bytes) -> None:
        """Take a message that the socket brought."""
        if number >= MAX_SEQUENCE:
            self.tally.drop(Drop.SEQUENCE)
            return
        if self._has_replayed(number, payload):
            self.tally.drop(Drop.DUPLICATE)
            return
        doubtful, self._doubtful = self._doubtful, False
        if not self._is_placed:
            self._next = number  # what came before this runtime is not a gap
        elif number < self._next or (doubtful and number != self._next):
            self._restart()
        if number > self._next:
            self._fill_gap(number)
        if not self._has_replayed(number, payload):
            self._apply(number, payload)
        if number >= self._replayed_to:
            self._replayed.clear()

    def skip(self) -> None:
        """Pass over the next batch: it came and was refused."""
        self.tally.drop(Drop.TOO_LARGE)
        if self._is_placed:
            self._next += 1

    @property
    def is_in_burst(self) -> bool:
        """Whether many messages came since the last pause."""
        return self._next - self._paused_at >= _BURST

    def pause(self) -> None:
        """Ask for the end of a burst: if it is lost, no gap shows that until more follows."""
        self._paused_at = self._next
        if self.replay_failure is None:
            self._catch_up()

    @property
    def is_shared(self) -> bool:
        """Whether the numbers start over so often that several publishers must send them."""
        return len(self._restarts) == _MOST_RESTARTS and self._clock() - self._restarts[0] < _MINUTE

    def report(self) -> None:
        """Tell the observer what came since the last time."""
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
        """Count the batches before a number as lost."""
        lost = min(number - self._next, _MOST_LOST)
        self.tally.drop(Drop.LOST, lost)
        if lost := self._log_loss.due(lost):
            logger.warning("event batches are lost: dp_rank=%d count=%d: %s", self._rank, lost, self._why_lost())

    def _why_lost(self) -> str:
        if self._replay is None:
            return "set KV_EVENTS_REPLAY_ENDPOINT and the engine's replay_endpoint to get such batches again"
        return self.replay_failure or "the engine no longer has them: raise its buffer_steps"

    def _catch_up(self, wanted: int = 0) -> None:
        """Take what the engine has from the next number on; again while replies, up to `wanted`, are lost."""
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
        """Take one answer; tell whether it was whole."""
        first = True
        for number, payload in replay.since(self._next, missing=max(wanted - self._next, 0)):
            if number > self._next and not first:
                return False
            if number > self._next and self._last is not None:  # the engine no longer has what is before
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
        """Ask for the last batch taken: only the same process has the same one under its number."""
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
