"""The engine's list of adapters, for callers of the API: few ask concurrently, and none waits for long."""

from __future__ import annotations

from threading import Semaphore
from typing import TYPE_CHECKING, Final

from lora.errors import LoraError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora.engine.client import EngineClient

__all__ = ["Listed"]

# Callers that ask the engine concurrently, and how long another waits for a place.
_ASKERS: Final = 2
_ASK_SECONDS: Final = 0.5


class Listed:
    """Asks the engine what it has; safe for threads."""

    def __init__(self, engine: EngineClient) -> None:
        """Ask `engine`."""
        self._engine = engine
        self._askers = Semaphore(_ASKERS)

    def read(self) -> Mapping[str, str]:
        """Return the directory of each adapter by name; nothing while the engine is away, or others wait already."""
        if not self._askers.acquire(timeout=_ASK_SECONDS):
            return {}
        try:
            return self._engine.models().adapters
        except LoraError:
            return {}
        finally:
            self._askers.release()
