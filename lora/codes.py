"""The table of codes for adapter errors, one row each. Download errors have their own table, `storage.codes`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from storage.codes import INVALID_SOURCE, Code, table

__all__ = ["CODES", "INVALID_SOURCE"]

_BAD_REQUEST, _CONFLICT, _GATEWAY = HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.BAD_GATEWAY

# The request itself is wrong, or conflicts with the state of the runtime.
INVALID_NAME: Final = Code(
    "invalid_name",
    _BAD_REQUEST,
    retry_helps=False,
    advice="choose another `lora_name`: 1 to 255 letters, digits, `.`, `_`, `-`, with `/` inside",
)
INVALID_PATH: Final = Code("invalid_path", _BAD_REQUEST, retry_helps=False, advice="give one absolute directory")
INVALID_ADAPTER: Final = Code(
    "invalid_adapter",
    _BAD_REQUEST,
    retry_helps=False,
    advice="read the message: a file is missing or truncated; for an adapter that is loaded, restore its directory and load it again",
)
PICKLED_ADAPTER: Final = Code(
    "pickled_adapter",
    _BAD_REQUEST,
    retry_helps=False,
    advice="convert the weights to safetensors, or set `allow_pickle` if you trust them",
)
UNKNOWN_ADAPTER: Final = Code(
    "unknown_adapter", HTTPStatus.NOT_FOUND, retry_helps=False, advice="look at `/v1/lora_adapters`"
)
TOO_MANY_ADAPTERS: Final = Code(
    "too_many_adapters", _CONFLICT, retry_helps=False, advice="unload adapters that are not needed"
)
SUPERSEDED: Final = Code(
    "superseded",
    _CONFLICT,
    retry_helps=True,
    advice="nothing, or ask again: another call for the adapter came in between, or the runtime is shutting down",
)

# The engine refused the request or did not answer.
LORA_DISABLED: Final = Code("lora_disabled", _CONFLICT, retry_helps=False, advice="start the engine with --enable-lora")
LORA_UPDATING_DISABLED: Final = Code(
    "lora_updating_disabled", _CONFLICT, retry_helps=False,
    advice="the engine has no such route: vLLM must run with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, SGLang be 0.4.9 or newer",
)  # fmt: skip
RANK_TOO_LARGE: Final = Code(
    "rank_too_large", _BAD_REQUEST, retry_helps=False, advice="raise the engine's --max-lora-rank"
)
NAME_TAKEN: Final = Code("name_taken", _CONFLICT, retry_helps=False, advice="choose another lora_name")
ADAPTER_NOT_FOUND: Final = Code(
    "adapter_not_found", HTTPStatus.NOT_FOUND, retry_helps=False,
    advice="the engine does not see the directory: mount the volume at the same path in both containers",
)  # fmt: skip
ENGINE_UNAUTHORIZED: Final = Code(
    "engine_unauthorized",
    _GATEWAY,
    retry_helps=False,
    advice="the engine wants an API key: give it with --engine-api-key-file",
)
ENGINE_REFUSED: Final = Code(
    "engine_refused", _GATEWAY, retry_helps=False, advice="read the engine's words in the message, and its log"
)
ENGINE_UNAVAILABLE: Final = Code(
    "engine_unavailable",
    HTTPStatus.SERVICE_UNAVAILABLE,
    retry_helps=True,
    advice="nothing, while it loads its model; otherwise look at the engine",
)
UNSUPPORTED_ENGINE: Final = Code(
    "unsupported_engine", HTTPStatus.NOT_IMPLEMENTED, retry_helps=False, advice="use vLLM or SGLang"
)

# The runtime itself failed.
TIMEOUT: Final = Code(
    "timeout",
    HTTPStatus.GATEWAY_TIMEOUT,
    retry_helps=True,
    advice="look at `/v1/lora_adapters` and `/v1/downloads`: the adapter is not loaded after an hour",
)
STATE_NOT_KEPT: Final = Code(
    "state_not_kept",
    HTTPStatus.INSUFFICIENT_STORAGE,
    retry_helps=False,
    advice="free space below `--state-dir`, or mount it writable",
)
INTERNAL: Final = Code(
    "internal",
    HTTPStatus.INTERNAL_SERVER_ERROR,
    retry_helps=False,
    advice="report the traceback in the runtime's log: it is a defect",
)

CODES: Final = table(row for row in tuple(globals().values()) if isinstance(row, Code))
