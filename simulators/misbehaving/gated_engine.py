"""An engine that answers when the test lets it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from simulators.misbehaving.engine import BadEngine, Behaviour
from simulators.misbehaving.pages import PAGE, response

if TYPE_CHECKING:
    from simulators.misbehaving.exchange import Exchange

__all__ = ["GatedEngine"]


class GatedEngine(BadEngine):
    """Takes every request at once, and answers a good page once `gate` is set; open when the block ends."""

    def __init__(self) -> None:
        """Begin with the gate shut."""
        self.gate = threading.Event()
        super().__init__(Behaviour("answers when it is let", self._answer))

    def __exit__(self, *exception: object) -> None:
        """Open the gate, or threads would wait behind it."""
        self.gate.set()
        super().__exit__(*exception)

    def _answer(self, exchange: Exchange, _size: int) -> None:
        self.gate.wait()
        exchange.send(response(PAGE))
