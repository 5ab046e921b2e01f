"""What can go wrong with an adapter: one class for each distinct reaction.

    LoraError                         code
    ├── InvalidAdapterError           invalid_name, invalid_path, invalid_source, invalid_adapter, pickled_adapter
    ├── UnknownAdapterError           unknown_adapter
    ├── DownloadFailedError           download_failed; the cause has the download's own code
    ├── EngineUnavailableError        engine_unavailable: no adapter's fault, tried again when the engine is back
    ├── WithdrawnError                superseded
    ├── RolledBackError               the code of the refusal; the former adapter is loaded again
    └── EngineRefusedError            lora_disabled, lora_updating_disabled, engine_unauthorized, rank_too_large,
                                      name_taken, adapter_not_found, engine_refused

Codes are stable: clients branch on them. Messages are for people and say what to do.
"""

from __future__ import annotations

from storage.errors import clipped

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
        code: A word for programs.
        message: A sentence for people.
    """

    def __init__(self, code: str, message: str) -> None:
        """Keep both."""
        self.code = code
        self.message = clipped(message)
        super().__init__(self.message)


class InvalidAdapterError(LoraError):
    """What was asked for can never be loaded: the caller must ask for something else."""


class UnknownAdapterError(LoraError):
    """Nobody knows an adapter of this name."""

    def __init__(self, name: str) -> None:
        """Name it."""
        super().__init__("unknown_adapter", f"there is no adapter {name!r}, neither wanted nor in the engine")


class DownloadFailedError(LoraError):
    """The adapter's files could not be had."""


class EngineUnavailableError(LoraError):
    """The engine does not answer.

    Attributes:
        is_down: Whether nothing listens at its address: its process has ended, or has yet to start.
    """

    def __init__(self, message: str, *, is_down: bool = False) -> None:
        """Say why."""
        super().__init__("engine_unavailable", message)
        self.is_down = is_down


class WithdrawnError(LoraError):
    """Something else is wanted by now, or the runtime ends."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__(
            "superseded", "another request for this adapter came in between, or the runtime is shutting down"
        )


class EngineRefusedError(LoraError):
    """The engine answered, and did not do it."""


class RolledBackError(LoraError):
    """The engine refused an adapter, and has the former one again."""
