"""The WSGI application: its routes, and what happens around each request."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol

import falcon

from exporter.api.errors import add_error_handlers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falcon import Request, Response

__all__ = ["ROUTES", "RequestObserver", "create_app"]

ROUTES: Final = ("/", "/metrics", "/health", "/ready", "/version")

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNMATCHED: Final = "unmatched"


class RequestObserver(Protocol):
    """Told of each request that was answered."""

    def answered(self, *, route: str, method: str, status: int, seconds: float) -> None:
        """Take note of an answer; must not raise."""


class _Observe:
    """Counts requests by route template: raw paths would be without bound."""

    def __init__(self, observer: RequestObserver) -> None:
        self._observer = observer

    def process_request(self, req: Request, resp: Response) -> None:  # noqa: ARG002 - Falcon's signature
        req.context.started = perf_counter()

    def process_response(self, req: Request, resp: Response, resource: object, req_succeeded: bool) -> None:  # noqa: ARG002, FBT001 - Falcon's signature
        self._observer.answered(
            route=req.uri_template or _UNMATCHED,
            method=req.method if req.method in _METHODS else "other",
            status=resp.status_code,
            seconds=perf_counter() - req.context.started,
        )


def create_app(resources: Mapping[str, Any], observer: RequestObserver) -> falcon.App[Request, Response]:
    """Make the application.

    Args:
        resources: A Falcon resource for each of `ROUTES`.
        observer: Told of each answer.
    """
    app: falcon.App[Request, Response] = falcon.App(middleware=[_Observe(observer)])
    app.req_options.strip_url_path_trailing_slash = True
    for route in ROUTES:
        app.add_route(route, resources[route])
    add_error_handlers(app)
    return app
