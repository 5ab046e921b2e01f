"""The adapters of an engine, and the checks that both engines make when they load one.

An adapter is read from disk when it is loaded, as the real engines do: its directory must be
there, its configuration must parse, its rank must fit and its weights must exist.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from simulators.engine.http import Answer, Call

_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")


@dataclass(slots=True)
class Adapters:
    """The adapters that an engine serves besides its base model.

    Attributes:
        base: Name of the base model.
        max_rank: The engine's ``--max-lora-rank``.
        enabled: Whether the engine was started with ``--enable-lora``.
        loaded: Path of each adapter, by name.
        weights: What was read when each adapter was loaded, by name.
    """

    base: str
    max_rank: int = 16
    enabled: bool = True
    loaded: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)

    def load(self, name: str, path: str) -> None:
        """Read the adapter at `path`, and serve it as `name` from now on."""
        check_adapter(path, self.max_rank)
        self.weights[name] = weights_of(path)
        self.loaded[name] = path


class LoraApi(Protocol):
    """An engine's LoRA routes."""

    def load(self, call: Call) -> Answer:
        """Load the adapter that `call` names."""

    def unload(self, call: Call) -> Answer:
        """Forget the adapter that `call` names."""


class AdapterError(Exception):
    """The adapter at a path cannot be used; the text is the reason."""


class AdapterNotFoundError(AdapterError):
    """There is no adapter at a path."""


class RankTooLargeError(AdapterError):
    """The engine has no room for an adapter of this rank."""

    def __init__(self, rank: int, limit: int) -> None:
        """Keep both ranks."""
        super().__init__(f"LoRA rank {rank} is greater than max_lora_rank {limit}.")
        self.rank = rank


class InvalidCallError(Exception):
    """A call is not what the route takes."""

    def __init__(self, message: str, param: str | None = None) -> None:
        """Keep the engine's words, and the field they are about."""
        super().__init__(message)
        self.param = param


def weights_of(path: str) -> str:
    """Return what tells the weights of an adapter on disk from others."""
    whole = b"".join(file.read_bytes() for file in sorted(Path(path).glob("adapter_*")))
    return sha256(whole).hexdigest()


def check_adapter(path: str, max_rank: int) -> None:
    """Raise `AdapterError` unless there is a whole adapter at `path`."""
    directory = Path(path)
    config = directory / "adapter_config.json"
    if not config.is_file():
        raise AdapterNotFoundError(path)
    try:
        rank = json.loads(config.read_bytes())["r"]
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(str(error)) from error
    if rank > max_rank:
        raise RankTooLargeError(rank, max_rank)
    if not any((directory / name).is_file() for name in _WEIGHTS):
        reason = f"{path} doesn't contain tensors"
        raise AdapterError(reason)


def find_fault(body: dict[str, Any], name: str) -> dict[str, str] | None:
    """Say in pydantic's words what is wrong with a field that must be a string."""
    if name not in body:
        found = ("missing", "Field required", f"<dict of {len(body)} items>")
    elif not isinstance(body[name], str):
        found = ("string_type", "Input should be a valid string", str(body[name]))
    else:
        return None
    kind, message, value = found
    return {"type": kind, "loc": f"body.{name}", "msg": message, "input": value}
