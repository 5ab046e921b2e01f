"""The WSGI application: its routes, and what happens around each request."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol

import falcon
from falcon.media import JSONHandler

from exporter.api.auth import BearerToken
from exporter.api.errors import add_error_handlers
from exporter.api.json_text import json_text
from exporter.api.routing import Router

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from falcon import Request, Response

__all__ = ["ROUTES", "RequestObserver", "create_app"]

# Every route and the method that it is mostly asked with.
ROUTES: Final = {
    "/": "GET",
    "/metrics": "GET",
    "/health": "GET",
    "/ready": "GET",
    "/version": "GET",
    "/v1/load_lora_adapter": "POST",
    "/v1/unload_lora_adapter": "POST",
    "/v1/lora_adapters": "GET",
    "/v1/lora_adapters/{name:path}": "GET",
    "/v1/download_model": "POST",
    "/v1/downloads": "GET",
    "/v1/downloads/{download}": "GET",
}

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


def create_app(
    resources: Mapping[str, Any], observer: RequestObserver, *, token: Callable[[], str] | None = None
) -> falcon.App[Request, Response]:
    """Make the application.

    Args:
        resources: A Falcon resource for each of `ROUTES`.
        observer: Told of each answer.
        token: Returns what callers of /v1 must bring, if anything.
    """
    middleware: list[Any] = [_Observe(observer), *([BearerToken(token)] if token else [])]
    app: falcon.App[Request, Response] = falcon.App(middleware=middleware, router=Router())
    app.req_options.strip_url_path_trailing_slash = True
    app.resp_options.media_handlers[falcon.MEDIA_JSON] = JSONHandler(dumps=json_text)
    for route in ROUTES:
        app.add_route(route, resources[route])
    add_error_handlers(app)
    return app
