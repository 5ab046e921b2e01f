"""One rank of an engine in memory: it counts its batches, keeps some of them, and knows what it holds."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from exporter.kv.replay import ReplayError
from simulators.kv.frames import Clear, Remove, Store, form
from simulators.kv.router import block_key

if TYPE_CHECKING:
    from collections.abc import Generator

    from simulators.kv.frames import Form, Happening

__all__ = ["KvEngine"]


class KvEngine:
    """Makes batches, and gives those it still has again.

    Attributes:
        wire: The wire form of its batches.
        dead: Whether replays are not answered.
        lose_every: Of an answer, each reply of this number is lost; 0 loses none.
        lose_end: Whether an answer ends in silence.
        asked: The numbers from which replays were asked for.
    """

    def __init__(self, model: str = "base", *, buffer: int = 10_000, wire: Form | None = None) -> None:
        self.wire = wire or form("vllm-0.33")
        self.dead = False
        self.lose_every = 0
        self.lose_end = False
        self.asked: list[int] = []
        self._model = model
        self._steps = buffer
        self.restart()

    def restart(self) -> None:
        """Be a new process."""
        self.sequence = 0
        self._buffer: deque[tuple[int, bytes]] = deque(maxlen=self._steps)
        self._copies: dict[int, list[str]] = {}

    def emit(self, *happenings: Happening) -> tuple[int, bytes]:
        """Let something happen; return the batch's number and payload."""
        for happening in happenings:
            self._happen(happening)
        message = (self.sequence, self.wire.batch(*happenings, ts=1764000000.0 + self.sequence))
        self.sequence += 1
        self._buffer.append(message)
        return message

    def held(self) -> set[str]:
        """Return the router's keys of the blocks that it holds."""
        return {key for copies in self._copies.values() for key in copies}

    def since(self, start: int, *, missing: int = 0) -> Generator[tuple[int, bytes], None, None]:  # noqa: ARG002 - as `Replays` has it
        """Yield what it still has from a number on."""
        self.asked.append(start)
        if self.dead:
            message = "no answer"
            raise ReplayError(message)
        wanted = [one for one in self._buffer if one[0] >= start]
        for place, one in enumerate(wanted, 1):
            if not self.lose_every or place % self.lose_every:
                yield one
        if self.lose_end:
            message = "no answer"
            raise ReplayError(message)

    def _happen(self, happening: Happening) -> None:
        match happening:
            case Store():
                for place, name in enumerate(happening.hashes):
                    tokens = happening.tokens[place * happening.size : (place + 1) * happening.size]
                    key = block_key(happening.adapter or self._model, tokens)
                    copies = self._copies.setdefault(name, [])
                    copies[:] = [copy for copy in copies if copy == key] + [key]
            case Remove():
                for name in happening.hashes:
                    if held := self._copies.get(name):
                        held.pop()
            case Clear():
                self._copies = {}
