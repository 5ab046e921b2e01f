"""Adapter errors: one class per distinct reaction of a caller. The code of an error is a row of `lora.codes`.

Messages are shown to users and say what to do.
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
    """A download, load or unload of an adapter failed.

    Attributes:
        row: Its row in the table of codes: HTTP status, whether a retry helps, advice.
        message: One sentence for users; cut to a maximum length, because it may quote the engine.
    """

    def __init__(self, row: Code, message: str) -> None:
        self.row = row
        self.message = clipped(message)
        super().__init__(self.message)

    @property
    def code(self) -> str:
        """The stable name of the error in API answers."""
        return self.row.name


class InvalidAdapterError(LoraError):
    """The request can never succeed: the caller must change it."""


class UnknownAdapterError(LoraError):
    """Neither the runtime nor the engine has an adapter of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(codes.UNKNOWN_ADAPTER, f"there is no adapter {name!r}, neither wanted nor in the engine")


class DownloadFailedError(LoraError):
    """The adapter's files could not be downloaded. The row is that of the download's own error (`storage.codes`)."""


class EngineUnavailableError(LoraError):
    """The engine does not answer. This is not the adapter's fault: the runtime retries without backoff (docs/adr/0010).

    Attributes:
        is_down: Whether the connection was refused: the engine's process has ended, or has not started yet. A new
            process starts with an empty prefix cache.
    """

    def __init__(self, message: str, *, is_down: bool = False) -> None:
        super().__init__(codes.ENGINE_UNAVAILABLE, message)
        self.is_down = is_down


class WithdrawnError(LoraError):
    """Another goal replaced this one, or the runtime is shutting down."""

    def __init__(self) -> None:
        super().__init__(
            codes.SUPERSEDED, "another request for this adapter came in between, or the runtime is shutting down"
        )


class EngineRefusedError(LoraError):
    """The engine answered and refused the request."""


class RolledBackError(LoraError):
    """The engine refused the new adapter, and the former one is loaded again."""
