"""Access control: a public resource is open to every client, all others require the bearer token (docs/adr/0013).

The decision depends on the route that Falcon's router found, never on the text of the
path. A path has more spellings than a check of its text can expect. A resource is
public only if it declares `public = True`, so a new route is closed by default.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING, Final

import falcon

if TYPE_CHECKING:
    from collections.abc import Callable

    from falcon import Request

__all__ = ["Gate", "TokenUnavailableError"]

_PROTECTED: Final = "v1"


class TokenUnavailableError(Exception):
    """The token file cannot be read at the moment, so no caller is admitted: 503, `token_unavailable`."""


class Gate:
    """Checks the bearer token of requests; safe for threads."""

    def __init__(self, token: Callable[[], str | None] | None = None) -> None:
        """Admit callers that send the token.

        Args:
            token: Returns the token, or `None` while it is not known; must not
                block for long. Without this function, every caller is admitted.
        """
        self._token = token

    def admit(self, req: Request, resource: object | None) -> None:
        """Admit a request, or raise; `resource` is `None` if no route was found.

        Raises:
            falcon.HTTPUnauthorized: The token is missing or wrong.
            TokenUnavailableError: The runtime does not know the token at the moment.
        """
        if self._token is not None and not _is_public(req, resource):
            _check(req, self._token())


def _is_public(req: Request, resource: object | None) -> bool:
    if resource is None:
        # Below /v1, the answer must not reveal whether a route exists. The router splits paths in the same way.
        return req.path.lstrip("/").split("/")[0] != _PROTECTED
    return getattr(resource, "public", False) is True


def _check(req: Request, token: str | None) -> None:
    """Compare the token in constant time; the scheme is checked afterwards, so that it does not change the time."""
    if not token:
        raise TokenUnavailableError
    scheme, _, given = (req.get_header("Authorization") or "").partition(" ")
    is_right = compare_digest(given.strip().encode(), token.encode())
    if scheme.lower() != "bearer" or not is_right:
        raise falcon.HTTPUnauthorized(
            description="Send the token of --api-token-file as 'Authorization: Bearer ...'.", challenges=["Bearer"]
        )
