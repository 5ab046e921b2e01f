"""LoRA administration as vLLM 0.32 does it, down to the words of its errors."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from simulators.engine.http import Answer
from simulators.engine.lora import (
    AdapterError,
    AdapterNotFoundError,
    InvalidCallError,
    find_fault,
)

if TYPE_CHECKING:
    from simulators.engine.http import Call
    from simulators.engine.lora import Adapters

_SYSTEM_PATH = re.compile(r"/(?:home|lib|mnt|opt|root|srv|tmp|usr|var)(?:/[\w.-]+)+")
_ONLY_JSON = "Unsupported Media Type: Only 'application/json' is allowed"


class VllmLora:
    """``/v1/load_lora_adapter`` and ``/v1/unload_lora_adapter``."""

    def __init__(self, adapters: Adapters) -> None:
        """Administer `adapters`."""
        self._adapters = adapters

    def load(self, call: Call) -> Answer:
        """Load an adapter; a name that is loaded already is an error unless in place."""
        try:
            body = _fields(call, "lora_name", "lora_path")
        except InvalidCallError as error:
            return _invalid(error)
        name, path = body["lora_name"], body["lora_path"]
        if not (name and path):
            return _refused("Both 'lora_name' and 'lora_path' must be provided.")
        if name == self._adapters.base:
            return _refused(f"The lora adapter '{name}' conflicts with a served base model.")
        if name in self._adapters.loaded and not body.get("load_inplace"):
            return _refused(
                f"The lora adapter '{name}' has already been loaded. If you want to load the"
                " adapter in place, set 'load_inplace' to True."
            )
        if not self._adapters.enabled:
            return _failed("LoRA is not enabled. Use --enable-lora to enable LoRA.")
        return self._load(name, path)

    def unload(self, call: Call) -> Answer:
        """Forget an adapter."""
        try:
            name = _fields(call, "lora_name")["lora_name"]
        except InvalidCallError as error:
            return _invalid(error)
        if not name:
            return _refused("'lora_name' needs to be provided to unload a LoRA adapter.")
        if self._adapters.loaded.pop(name, None) is None:
            return _error(HTTPStatus.NOT_FOUND, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
        return Answer.text(200, f"Success: LoRA adapter '{name}' removed successfully.")

    def _load(self, name: str, path: str) -> Answer:
        try:
            self._adapters.load(name, path)
        except AdapterNotFoundError:
            message = f"Loading lora {name} failed: No adapter found for {path}"
            return _error(HTTPStatus.NOT_FOUND, "NotFoundError", message)
        except AdapterError as error:
            return _failed(f"Worker failed with error '{error}', please check the stack trace above for the root cause")
        return Answer.text(200, f"Success: LoRA adapter '{name}' added successfully.")


def _fields(call: Call, *required: str) -> dict[str, Any]:
    if call.media_type != "application/json":
        raise InvalidCallError(_validation([_ONLY_JSON]))
    try:
        body = json.loads(call.body)
    except json.JSONDecodeError as error:
        place = f"body.{error.pos}"
        found = {
            "type": "json_invalid",
            "loc": place,
            "msg": "JSON decode error",
            "input": "<dict of 0 items>",
            "ctx": {"error": error.msg},
        }
        raise InvalidCallError(_validation([found]), place) from error
    faults = [fault for name in required if (fault := find_fault(body, name))]
    if faults:
        raise InvalidCallError(_validation(faults), faults[0]["loc"])
    return dict(body)


def _validation(faults: list[Any]) -> str:
    errors = "error" if len(faults) == 1 else "errors"
    return "\n  ".join([f"{len(faults)} validation {errors}:", *map(str, faults)])


def _invalid(error: InvalidCallError) -> Answer:
    return _error(HTTPStatus.BAD_REQUEST, "Bad Request", str(error), error.param)


def _refused(message: str) -> Answer:
    return _error(HTTPStatus.BAD_REQUEST, "InvalidUserInput", message)


def _failed(reason: str) -> Answer:
    message = f"Call to add_lora method failed: {reason}"
    return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalServerError", message)


def _error(status: HTTPStatus, kind: str, message: str, param: str | None = None) -> Answer:
    # The engine keeps the paths of its own file system from its clients.
    message = _SYSTEM_PATH.sub("<path>", message)
    error = {"message": message, "type": kind, "param": param, "code": status.value}
    return Answer.json(status, {"error": error})
