"""Request targets: only the two forms of RFC 9112 that name a resource of this server are served.

    /v1/downloads?all=1                     origin-form
    http://runtime:9000/v1/downloads        absolute-form, of http and https

Everything else is answered 400: `v1/downloads`, `http:v1/downloads`, `*`, `host:80`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import falcon

if TYPE_CHECKING:
    from falcon import Request, Response

__all__ = ["RequestTarget"]

# Visible ASCII without "#", which no target has. RFC 3986 allows less, but clients do send brackets in queries.
_TARGET: Final = re.compile(
    r"""
    (?: (?i:https?) :// [!-"$-.0->@-~]+ (?= [/?] | \Z ) | (?=/) )  # scheme and authority, or a slash
    [!-"$-~]*                                                      # path and query
    """,
    re.VERBOSE,
)


class RequestTarget:
    """Falcon middleware that refuses other targets before anything is routed."""

    def process_request(self, req: Request, resp: Response) -> None:
        """Look at the target as it was sent, or at the path where the server does not say."""
        target: str | None = req.env.get("REQUEST_URI")
        is_fine = req.path.startswith("/") if target is None else _TARGET.fullmatch(target)
        if not is_fine:
            raise falcon.HTTPBadRequest(description="The request target must be a path, or a URL of http or https.")
