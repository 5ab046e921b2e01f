"""All error codes of the HTTP API: its own, and those of adapters and downloads from their packages."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from lora import codes as adapters
from storage import codes as downloads
from storage.codes import Code, table

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CODES", "OF_STATUS", "TOKEN_UNAVAILABLE"]

TOKEN_UNAVAILABLE: Final = Code(
    "token_unavailable",
    HTTPStatus.SERVICE_UNAVAILABLE,
    retry_helps=True,
    advice="make the file of `--api-token-file` readable: the runtime's log says why it is not",
)

# Codes for refused requests, one for each status. `not_found` and `internal` are shared with the packages.
_OWN: Final = (
    Code("bad_request", HTTPStatus.BAD_REQUEST, retry_helps=False, advice="correct the request as the message says"),
    Code("unauthorized", HTTPStatus.UNAUTHORIZED, retry_helps=False, advice="send the token of `--api-token-file`"),
    downloads.NOT_FOUND,
    Code(
        "method_not_allowed",
        HTTPStatus.METHOD_NOT_ALLOWED,
        retry_helps=False,
        advice="use a method of the `Allow` header",
    ),
    Code("body_too_large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, retry_helps=False, advice="send a shorter body"),
    adapters.INTERNAL,
    Code(
        "service_unavailable",
        HTTPStatus.SERVICE_UNAVAILABLE,
        retry_helps=True,
        advice="try again after `Retry-After` seconds, or use `async_download`",
    ),
    Code(
        "scrape_loop",
        HTTPStatus.LOOP_DETECTED,
        retry_helps=False,
        advice="correct `--engine-base-url`: it leads back to this runtime",
    ),
)
OF_STATUS: Final[Mapping[HTTPStatus, Code]] = {row.status: row for row in _OWN}

CODES: Final[Mapping[str, Code]] = {**table((*_OWN, TOKEN_UNAVAILABLE)), **adapters.CODES, **downloads.CODES}
