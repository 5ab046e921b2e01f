"""A bearer token for everything under /v1, where one is configured."""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING

import falcon

if TYPE_CHECKING:
    from collections.abc import Callable

    from falcon import Request, Response

__all__ = ["BearerToken"]


class BearerToken:
    """Falcon middleware."""

    def __init__(self, token: Callable[[], str]) -> None:
        """Ask `token` for the token at each request."""
        self._token = token

    def process_request(self, req: Request, resp: Response) -> None:  # noqa: ARG002 - Falcon's signature
        """Refuse what comes without the token; the comparison takes the same time whatever is wrong."""
        if not req.path.startswith("/v1/"):
            return
        scheme, _, given = (req.get_header("Authorization") or "").partition(" ")
        right = compare_digest(given.strip().encode(), self._token().encode())
        if scheme.lower() != "bearer" or not right:
            raise falcon.HTTPUnauthorized(
                description="Send the token of --api-token-file as 'Authorization: Bearer ...'.", challenges=["Bearer"]
            )
