"""What can go wrong with an adapter: one class for each distinct reaction; the code is a row of `lora.codes`.

Messages are for people and say what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora import codes
from storage.errors import clipped

if TYPE_CHECKING:
    from storage.codes import Code

__all__ = [
    "DownloadFailedError",
    "EngineRefusedError",
    "EngineUnavailableError",
    "InvalidAdapterError",
    "LoraError",
    "RolledBackError",
    "UnknownAdapterError",
    "WithdrawnError",
]


class LoraError(Exception):
    """Something is wrong with an adapter.

    Attributes:
        row: Its row in the table of codes.
        message: A sentence for people.
    """

    def __init__(self, row: Code, message: str) -> None:
        """Keep both."""
        self.row = row
        self.message = clipped(message)
        super().__init__(self.message)

    @property
    def code(self) -> str:
        """The word for programs."""
        return self.row.name


class InvalidAdapterError(LoraError):
    """What was asked for can never be loaded: the caller must ask for something else."""


class UnknownAdapterError(LoraError):
    """Nobody knows an adapter of this name."""

    def __init__(self, name: str) -> None:
        """Name it."""
        super().__init__(codes.UNKNOWN_ADAPTER, f"there is no adapter {name!r}, neither wanted nor in the engine")


class DownloadFailedError(LoraError):
    """The adapter's files could not be had."""


class EngineUnavailableError(LoraError):
    """The engine does not answer.

    Attributes:
        is_down: Whether nothing listens at its address: its process has ended, or has yet to start.
    """

    def __init__(self, message: str, *, is_down: bool = False) -> None:
        """Say why."""
        super().__init__(codes.ENGINE_UNAVAILABLE, message)
        self.is_down = is_down


class WithdrawnError(LoraError):
    """Something else is wanted by now, or the runtime ends."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__(
            codes.SUPERSEDED, "another request for this adapter came in between, or the runtime is shutting down"
        )


class EngineRefusedError(LoraError):
    """The engine answered, and did not do it."""


class RolledBackError(LoraError):
    """The engine refused an adapter, and has the former one again."""
