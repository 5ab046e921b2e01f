"""LoRA administration as SGLang 0.5.23 does it."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from simulators.engine.http import Answer
from simulators.engine.lora import (
    AdapterError,
    AdapterNotFoundError,
    InvalidCallError,
    RankTooLargeError,
    find_fault,
)

if TYPE_CHECKING:
    from simulators.engine.http import Call
    from simulators.engine.lora import Adapters


class SglangLora:
    """``/load_lora_adapter`` and ``/unload_lora_adapter``."""

    def __init__(self, adapters: Adapters) -> None:
        """Administer `adapters`."""
        self._adapters = adapters

    def load(self, call: Call) -> Answer:
        """Load an adapter."""
        try:
            body = _fields(call, "lora_name", "lora_path")
        except InvalidCallError as error:
            return _invalid(error)
        name, path = body["lora_name"], body["lora_path"]
        if not self._adapters.enabled:
            return _disabled()
        if name in self._adapters.loaded:
            return self._result(f"Failed to load LoRA adapter {name} because it is already loaded")
        try:
            self._adapters.load(name, path)
        except AdapterError as error:
            return self._result(_reason(name, path, error))
        return self._result()

    def unload(self, call: Call) -> Answer:
        """Forget an adapter."""
        try:
            name = _fields(call, "lora_name")["lora_name"]
        except InvalidCallError as error:
            return _invalid(error)
        if not self._adapters.enabled:
            return _disabled()
        if self._adapters.loaded.pop(name, None) is None:
            loaded = f"odict_keys({list(self._adapters.loaded)})"
            return _answer(f"LoRA with name {name} does not exist. Loaded LoRAs: {loaded}", None)
        return self._result()

    def _result(self, error: str = "") -> Answer:
        return _answer(error, dict(self._adapters.loaded))


def _reason(name: str, path: str, error: AdapterError) -> str:
    match error:
        case AdapterNotFoundError():
            # What is no directory is taken for the name of a repository.
            return (
                "Repo id must be in the form 'repo_name' or 'namespace/repo_name':"
                f" '{path}'. Use `repo_type` argument if needed."
            )
        case RankTooLargeError():
            return (
                f"LoRA adapter {name} with rank {error.rank} is incompatible with the current LoRA memory pool"
                " configuration. Please ensure that the LoRA adapter's rank is within the configured"
                " `--max-lora-rank` and that the target modules are included in `--lora-target-modules`."
            )
        case _:
            return str(error)


def _fields(call: Call, *required: str) -> dict[str, Any]:
    try:
        body = json.loads(call.body)
    except ValueError as error:
        raise InvalidCallError(str(error)) from error
    faults = [fault for name in required if (fault := find_fault(body, name))]
    if faults:
        raise InvalidCallError(str(faults), faults[0]["loc"])
    return dict(body)


def _invalid(error: InvalidCallError) -> Answer:
    status = HTTPStatus.BAD_REQUEST
    fault = {"object": "error", "message": str(error), "type": status.phrase, "param": None}
    return Answer.json(status, fault | {"code": status.value})


def _disabled() -> Answer:
    return _answer("LoRA is not enabled. Please set `--enable-lora` to enable LoRA.", None)


def _answer(error: str, loaded: dict[str, str] | None) -> Answer:
    body = {
        "rid": None,
        "http_worker_ipc": None,
        "success": not error,
        "error_message": error,
        "loaded_adapters": loaded,
    }
    return Answer.json(HTTPStatus.BAD_REQUEST if error else HTTPStatus.OK, body)
