"""Errors as RFC 9457 problem details, each with a stable `code` from `exporter.api.codes`.

    {"type": "about:blank", "title": "Not Found", "status": 404,
     "code": "not_found", "detail": "There is no /metric here; / lists what there is."}

With the type `about:blank`, RFC 9457 wants the title to be the status phrase. No
other module of the application turns exceptions into answers.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import falcon

from exporter.api.auth import TokenUnavailableError
from exporter.api.codes import OF_STATUS, TOKEN_UNAVAILABLE
from exporter.api.json_text import json_text
from lora.errors import LoraError
from storage.errors import StorageError

if TYPE_CHECKING:
    from falcon import Request, Response

__all__ = ["PROBLEM_TYPE", "add_error_handlers", "problem"]

PROBLEM_TYPE: Final = "application/problem+json"

logger: Final = logging.getLogger(__name__)

_RETRY_SECONDS: Final = "5"
# Statuses that may come with Retry-After.
_LATER: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


def problem(resp: Response, status: HTTPStatus, detail: str, *, code: str | None = None) -> None:
    """Answer with a problem document.

    Without a `code`, it is the one for the status. A status without a row has a code made from its phrase.
    """
    code = code or (OF_STATUS[status].name if status in OF_STATUS else status.phrase.lower().replace(" ", "_"))
    body = {"type": "about:blank", "title": status.phrase, "status": status, "code": code, "detail": detail}
    resp.status = falcon.code_to_http_status(status)
    resp.content_type = PROBLEM_TYPE
    resp.text = json_text(body)


def add_error_handlers(app: falcon.App[Request, Response]) -> None:
    """Answer every error as a problem document: Falcon's own, those of the packages, and defects."""
    app.add_error_handler(Exception, _unexpected)
    app.add_error_handler(falcon.HTTPError, _http_error)
    app.add_error_handler(TokenUnavailableError, _token_unavailable)
    app.add_error_handler(LoraError, _domain_error)
    app.add_error_handler(StorageError, _domain_error)


def _http_error(req: Request, resp: Response, error: falcon.HTTPError, params: object) -> None:
    status = HTTPStatus(error.status_code)
    details = {
        HTTPStatus.NOT_FOUND: f"There is no {req.path} here; / lists what there is.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{req.path} does not take {req.method}; see the Allow header.",
    }
    resp.set_headers(error.headers or {})
    problem(resp, status, error.description or details.get(status, status.description))


def _token_unavailable(req: Request, resp: Response, error: TokenUnavailableError, params: object) -> None:
    resp.set_header("Retry-After", _RETRY_SECONDS)
    detail = "The runtime cannot read the file of --api-token-file; its log says why."
    problem(resp, TOKEN_UNAVAILABLE.status, detail, code=TOKEN_UNAVAILABLE.name)


def _domain_error(req: Request, resp: Response, error: LoraError | StorageError, params: object) -> None:
    if error.row.retry_helps and error.row.status in _LATER:
        resp.set_header("Retry-After", _RETRY_SECONDS)
    problem(resp, error.row.status, error.message, code=error.row.name)


def _unexpected(req: Request, resp: Response, error: Exception, params: object) -> None:
    # The outermost frame of a request: the traceback goes to the log, and nothing of it to the client.
    logger.error("%s %s failed", req.method, req.path, exc_info=error)
    problem(resp, HTTPStatus.INTERNAL_SERVER_ERROR, "A defect of the runtime; its log has the details.")
