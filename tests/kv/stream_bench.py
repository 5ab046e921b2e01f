"""A stream between an engine in memory and a ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.kv.ledger import Ledger
from exporter.kv.stream import EventStream
from simulators.kv.frames import Store
from tests.kv.engine import KvEngine
from tests.kv.observer import KvRecorder

if TYPE_CHECKING:
    from simulators.kv.frames import Happening

__all__ = ["Bench", "store"]


def store(number: int) -> Store:
    """Return a store of one block whose name and tokens follow from its number."""
    return Store([number], range(number * 100 + 1, number * 100 + 17))


class Bench:
    """A stream between an engine and a ledger."""

    def __init__(self, *, replay: bool = True, buffer: int = 10_000) -> None:
        self.engine = KvEngine(buffer=buffer)
        self.ledger = Ledger("base")
        self.recorder = KvRecorder()
        self.stream = EventStream(0, self.ledger, self.recorder, self.engine if replay else None)

    def live(self, *happenings: Happening) -> tuple[int, bytes]:
        """Let the engine make a batch, and the socket bring it."""
        message = self.engine.emit(*happenings)
        self.stream.take(*message)
        return message

    def check(self) -> None:
        """Hold the ledger against the engine."""
        assert {f"matrix:kv:block:{model}@{block}" for model, block in self.ledger.held()} == self.engine.held()

    @property
    def told(self) -> KvRecorder:
        self.stream.report()
        return self.recorder
