"""Errors as RFC 9457 problem details, each with a stable `code`.

    {"type": "about:blank", "title": "Not Found", "status": 404,
     "code": "not_found", "detail": "There is no /metric here: ..."}

The title and the status say the same as the status line.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import falcon

from exporter.api.auth import TokenUnavailableError
from exporter.api.json_text import json_text
from lora.errors import InvalidAdapterError, LoraError
from storage.errors import StorageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falcon import Request, Response

__all__ = ["PROBLEM_TYPE", "add_error_handlers", "problem"]

PROBLEM_TYPE: Final = "application/problem+json"

_log: Final = logging.getLogger(__name__)

# Codes are part of the interface; the rest are named after their status.
_CODES: Final = {
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "body_too_large",
    HTTPStatus.LOOP_DETECTED: "scrape_loop",
    HTTPStatus.INTERNAL_SERVER_ERROR: "internal",
}


# Domain errors by their own codes; the classes below say what the rest are.
_STATUSES: Final[Mapping[str, HTTPStatus]] = {
    "not_found": HTTPStatus.NOT_FOUND,
    "unknown_adapter": HTTPStatus.NOT_FOUND,
    "adapter_not_found": HTTPStatus.NOT_FOUND,
    "denied": HTTPStatus.FORBIDDEN,
    "gated": HTTPStatus.FORBIDDEN,
    "no_credentials": HTTPStatus.FORBIDDEN,
    "name_taken": HTTPStatus.CONFLICT,
    "too_many_adapters": HTTPStatus.CONFLICT,
    "superseded": HTTPStatus.CONFLICT,
    "locked": HTTPStatus.CONFLICT,
    "target_holds_other": HTTPStatus.CONFLICT,
    "cancelled": HTTPStatus.CONFLICT,
    "source_changed": HTTPStatus.CONFLICT,
    "lora_disabled": HTTPStatus.CONFLICT,
    "lora_updating_disabled": HTTPStatus.CONFLICT,
    "rank_too_large": HTTPStatus.BAD_REQUEST,
    "usage": HTTPStatus.BAD_REQUEST,
    "invalid_source": HTTPStatus.BAD_REQUEST,
    "invalid_config": HTTPStatus.BAD_REQUEST,
    "forbidden_target": HTTPStatus.BAD_REQUEST,
    "unsupported_engine": HTTPStatus.NOT_IMPLEMENTED,
    "state_not_kept": HTTPStatus.INSUFFICIENT_STORAGE,
    "no_space": HTTPStatus.INSUFFICIENT_STORAGE,
    "out_of_memory": HTTPStatus.INSUFFICIENT_STORAGE,
    "timeout": HTTPStatus.GATEWAY_TIMEOUT,
    "stalled": HTTPStatus.GATEWAY_TIMEOUT,
    "busy": HTTPStatus.SERVICE_UNAVAILABLE,
    "engine_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "internal": HTTPStatus.INTERNAL_SERVER_ERROR,
}
_CLASSES: Final = ((InvalidAdapterError, HTTPStatus.BAD_REQUEST), (UsageError, HTTPStatus.BAD_REQUEST))
_RETRY_SECONDS: Final = "5"


def problem(resp: Response, status: HTTPStatus, detail: str, *, code: str | None = None) -> None:
    """Answer with a problem document."""
    code = code or _CODES.get(status, status.phrase.lower().replace(" ", "_"))
    body = {"type": "about:blank", "title": status.phrase, "status": status, "code": code, "detail": detail}
    resp.status = falcon.code_to_http_status(status)
    resp.content_type = PROBLEM_TYPE
    resp.text = json_text(body)


def add_error_handlers(app: falcon.App[Request, Response]) -> None:
    """Answer every error, Falcon's and ours, as a problem document."""
    app.add_error_handler(Exception, _unexpected)
    app.add_error_handler(falcon.HTTPError, _http_error)
    app.add_error_handler(TokenUnavailableError, _token_unavailable)
    app.add_error_handler(LoraError, _domain_error)
    app.add_error_handler(StorageError, _domain_error)


def _http_error(req: Request, resp: Response, error: falcon.HTTPError, params: object) -> None:  # noqa: ARG001 - Falcon's signature
    status = HTTPStatus(error.status_code)
    details = {
        HTTPStatus.NOT_FOUND: f"There is no {req.path} here; / lists what there is.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{req.path} does not take {req.method}; see the Allow header.",
    }
    resp.set_headers(error.headers or {})
    problem(resp, status, error.description or details.get(status, status.description))


def _token_unavailable(req: Request, resp: Response, error: TokenUnavailableError, params: object) -> None:  # noqa: ARG001 - Falcon's signature
    resp.set_header("Retry-After", _RETRY_SECONDS)
    detail = "The runtime cannot read the file of --api-token-file; its log says why."
    problem(resp, HTTPStatus.SERVICE_UNAVAILABLE, detail, code="token_unavailable")


def _domain_error(req: Request, resp: Response, error: LoraError | StorageError, params: object) -> None:  # noqa: ARG001 - Falcon's signature
    # What stands between us and a store or an engine is a gateway's trouble.
    other = next((status for kind, status in _CLASSES if isinstance(error, kind)), HTTPStatus.BAD_GATEWAY)
    status = _STATUSES.get(error.code, other)
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        resp.set_header("Retry-After", _RETRY_SECONDS)
    problem(resp, status, error.message, code=error.code)


def _unexpected(req: Request, resp: Response, error: Exception, params: object) -> None:  # noqa: ARG001 - Falcon's signature
    # The outermost frame of a request: nothing of the traceback goes to the caller.
    _log.error("%s %s failed", req.method, req.path, exc_info=error)
    problem(resp, HTTPStatus.INTERNAL_SERVER_ERROR, "A defect of the runtime; its log has the details.")
