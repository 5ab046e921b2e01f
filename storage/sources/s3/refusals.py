"""The meaning of an object store's refusals."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from storage.errors import DeniedError, NetworkError, NotFoundError, StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["error_of"]

_MISSING: Final = frozenset(("NoSuchBucket", "NoSuchKey", "NotFound", "404"))
_HINTS: Final[Mapping[str, str]] = {
    "AccessDenied": "the credentials have no right to it",
    "AllAccessDisabled": "access to it is disabled",
    "InvalidAccessKeyId": "the access key is unknown there: check ACCESS_KEY and ENDPOINT",
    "SignatureDoesNotMatch": "the secret key does not fit the access key: check SECRET_KEY",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is not valid",
    "RequestTimeTooSkewed": "the clock of this machine is off",
    "AuthorizationHeaderMalformed": "the region is another: set AWS_REGION",
    "PermanentRedirect": "the bucket is in another region or at another endpoint: set AWS_REGION or ENDPOINT",
    "301": "the bucket is in another region or at another endpoint: set AWS_REGION or ENDPOINT",
    "403": "the credentials have no right to it",
}


def error_of(what: str, status: int, headers: Mapping[str, str], body: bytes) -> tuple[StorageError, str]:
    """Return the error for an answer, and the store's own error code (or the status, if there is none)."""
    # A pattern, not an XML parser: the body may be cut off. A HEAD has no body, so the status must do.
    match = re.search(rb"<Code>(\w{1,64})</Code>", body)
    code = match[1].decode() if match else str(status)
    if code in _MISSING or status == HTTPStatus.NOT_FOUND:
        return NotFoundError(f"{what} does not exist ({code})"), code
    if code in _HINTS or status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        region = headers.get("x-amz-bucket-region")
        where = f"; the bucket is in {region}" if region else ""
        return DeniedError(f"{what} is refused: {_HINTS.get(code, 'access denied')} ({code}){where}"), code
    return NetworkError(f"{what}: the store answers {status} ({code})"), code
