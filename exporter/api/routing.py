"""The router: finds the route of a request, checks the caller's access, and gives slow routes a place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import falcon
from falcon.routing import CompiledRouter

from exporter.api.places import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from falcon import Request, Response

    from exporter.api.places import Places

    Responder: TypeAlias = Callable[..., None]

__all__ = ["Router"]


class Router(CompiledRouter):
    """Falcon's router, which also enforces access (docs/adr/0013) and places (docs/adr/0014) for every route."""

    def __init__(self, admit: Callable[[Request, object | None], None], lanes: Mapping[str, Lane]) -> None:
        """Prepare the router.

        Args:
            admit: Raises if a request may not use a resource; gets `None` if no route was found.
            lanes: The lane of each route by template; a missing route has `Lane.CALLS`.
        """
        super().__init__()
        self._admit = admit
        self._lanes = lanes

    def find(self, uri: str, req: Request | None = None) -> Any:
        """Return the route of a path, after the caller was admitted.

        Falcon calls it before any responder, for every method.

        Raises:
            falcon.HTTPUnauthorized, TokenUnavailableError: From `admit`.
        """
        route = super().find(uri, req)
        if req is not None:
            # Falcon sets the template from the result of `find`. If `admit` raises, there is no result, but the request
            # must be counted under its route, too.
            req.uri_template = route[3] if route else None
            self._admit(req, route[0] if route else None)
        return route

    def lane_of(self, path: str) -> Lane:
        """Return the lane of a path as the client sent it; the server calls it before the request is routed.

        An unknown path goes to the lane of slow calls.
        """
        route = super().find(path.rstrip("/"))
        return self._lanes.get(route[3] or "", Lane.CALLS) if route else Lane.CALLS

    def map_http_methods(self, resource: object, *, places: Places | None = None, **kwargs: object) -> dict[str, Any]:
        """Return the responders of a resource by method; each holds one of `places`, if given, while it runs.

        Falcon's own answer to OPTIONS omits OPTIONS in the Allow header. This one is the same as in a 405.
        """
        methods: dict[str, Any] = dict(super().map_http_methods(resource, **kwargs))
        if places is not None:
            methods = {method: _within(places, responder) for method, responder in methods.items()}
        return {"OPTIONS": _options(", ".join(sorted({*methods, "OPTIONS"}))), **methods}


def _within(places: Places, responder: Responder) -> Responder:
    def respond(req: Request, resp: Response, **params: object) -> None:
        with places.take():
            responder(req, resp, **params)

    return respond


def _options(allow: str) -> Responder:
    def respond(req: Request, resp: Response, **params: object) -> None:
        resp.status = falcon.HTTP_204
        resp.set_header("Allow", allow)

    return respond
