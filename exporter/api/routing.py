"""Routes whose OPTIONS answer has the same Allow header as their 405."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import falcon
from falcon.routing import CompiledRouter

if TYPE_CHECKING:
    from falcon import Request, Response

__all__ = ["Router"]


class Router(CompiledRouter):
    """Falcon's router; Falcon's own OPTIONS answer leaves OPTIONS itself out."""

    def map_http_methods(self, resource: object, **kwargs: object) -> dict[str, Any]:
        """Return the responders of a resource by method, one for OPTIONS among them."""
        methods = dict(super().map_http_methods(resource, **kwargs))
        allow = ", ".join(sorted({*methods, "OPTIONS"}))

        def on_options(req: Request, resp: Response, **params: object) -> None:  # noqa: ARG001 - Falcon's signature
            resp.status = falcon.HTTP_204
            resp.set_header("Allow", allow)

        return {"OPTIONS": on_options, **methods}
