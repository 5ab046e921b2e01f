"""The engine's list of adapters for API callers. Few callers ask concurrently, and none waits long."""

from __future__ import annotations

from threading import Semaphore
from typing import TYPE_CHECKING, Final

from lora.errors import LoraError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lora.engine.client import EngineClient

__all__ = ["Listed"]

# Callers that ask the engine concurrently, and the seconds that another caller waits for its turn. An engine that hangs
# must not take all threads of the API.
_ASKERS: Final = 2
_ASK_SECONDS: Final = 0.5


class Listed:
    """Asks the engine for its adapters; safe for threads."""

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine
        self._askers = Semaphore(_ASKERS)

    def read(self) -> Mapping[str, str]:
        """Return the directory of each adapter by name.

        Empty if the engine does not answer, or if too many callers are waiting for it already.
        """
        if not self._askers.acquire(timeout=_ASK_SECONDS):
            return {}
        try:
            return self._engine.models().adapters
        except LoraError:
            return {}
        finally:
            self._askers.release()
