"""The router: it finds a route, lets the caller in or not, and gives slow routes a place."""

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
    """Falcon's router, with what every route has to have."""

    def __init__(self, admit: Callable[[Request, object | None], None], lanes: Mapping[str, Lane]) -> None:
        """Route requests.

        Args:
            admit: Raises if a request may not use a resource, or the place where there is none.
            lanes: The lane of a route, by its template; `Lane.CALLS` for those that are missing.
        """
        super().__init__()
        self._admit = admit
        self._lanes = lanes

    def find(self, uri: str, req: Request | None = None) -> Any:
        """Return the route of a path, once the caller is let in."""
        route = super().find(uri, req)
        if req is not None:
            # Refused requests are counted under their route, too.
            req.uri_template = route[3] if route else None
            self._admit(req, route[0] if route else None)
        return route

    def lane_of(self, path: str) -> Lane:
        """Return the lane of a path as it was sent; a path that is not found goes where slow requests go."""
        route = super().find(path.rstrip("/"))
        return self._lanes.get(route[3] or "", Lane.CALLS) if route else Lane.CALLS

    def map_http_methods(self, resource: object, *, places: Places | None = None, **kwargs: object) -> dict[str, Any]:
        """Return the responders of a resource by method; each takes one of `places`, if there are any.

        Falcon's own answer to OPTIONS leaves OPTIONS itself out of Allow; this one is the same as in a 405.
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
