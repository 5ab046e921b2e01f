"""Request targets: the server accepts only the two forms of RFC 9112 that name one of its resources.

    /v1/downloads?all=1                     origin-form
    http://runtime:9000/v1/downloads        absolute-form, of http and https

Everything else gets 400: `v1/downloads`, `http:v1/downloads`, `*`, `host:80`. Waitress
and Falcon would find routes for some of these spellings. The gate checks the route
anyway; this is the second lock (docs/adr/0013).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import falcon

if TYPE_CHECKING:
    from falcon import Request, Response

__all__ = ["RequestTarget"]

# Visible ASCII without "#", which no target contains. RFC 3986 allows less, but clients send brackets in queries, as in
# `name[]=`.
_TARGET: Final = re.compile(
    r"""
    (?: (?i:https?) :// [!-"$-.0->@-~]+ (?= [/?] | \Z ) | (?=/) )  # scheme and authority, or a slash
    [!-"$-~]*                                                      # path and query
    """,
    re.VERBOSE,
)


class RequestTarget:
    """Falcon middleware that refuses all other targets before the request is routed."""

    def process_request(self, req: Request, resp: Response) -> None:
        """Check the target as the client sent it; without REQUEST_URI from the server, check the path.

        Raises:
            falcon.HTTPBadRequest: The target has another form.
        """
        target: str | None = req.env.get("REQUEST_URI")
        is_fine = req.path.startswith("/") if target is None else _TARGET.fullmatch(target)
        if not is_fine:
            raise falcon.HTTPBadRequest(description="The request target must be a path, or a URL of http or https.")
