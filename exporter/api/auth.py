"""Who may use a route: everyone if its resource is public, and callers with the token otherwise.

The decision is about the route that Falcon's router has chosen, never about the
text of the path: a path has more spellings than any check of its text expects.
A resource is public only if it says so, with `public = True`.
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
    """The token cannot be read at the moment, so no caller can be let in."""


class Gate:
    """Checks the bearer token of requests."""

    def __init__(self, token: Callable[[], str | None] | None = None) -> None:
        """Let callers in who send the token.

        Args:
            token: Returns the token, or `None` while it is not known; must not
                block. Without this function everyone is let in.
        """
        self._token = token

    def admit(self, req: Request, resource: object | None) -> None:
        """Let a request pass, or raise; `resource` is `None` where no route was found.

        Raises:
            falcon.HTTPUnauthorized: The token is missing or wrong.
            TokenUnavailableError: The runtime does not know its token.
        """
        if self._token is not None and not _is_public(req, resource):
            _check(req, self._token())


def _is_public(req: Request, resource: object | None) -> bool:
    if resource is None:
        # Which paths lead nowhere is a secret below /v1 only. The router splits paths like this.
        return req.path.lstrip("/").split("/")[0] != _PROTECTED
    return getattr(resource, "public", False) is True


def _check(req: Request, token: str | None) -> None:
    """Compare in a time that does not depend on what is wrong."""
    if not token:
        raise TokenUnavailableError
    scheme, _, given = (req.get_header("Authorization") or "").partition(" ")
    is_right = compare_digest(given.strip().encode(), token.encode())
    if scheme.lower() != "bearer" or not is_right:
        raise falcon.HTTPUnauthorized(
            description="Send the token of --api-token-file as 'Authorization: Bearer ...'.", challenges=["Bearer"]
        )
