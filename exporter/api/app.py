"""The WSGI application: its routes, their lanes, and the middleware that counts requests."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol

import falcon
from falcon.media import JSONHandler

from exporter.api.errors import add_error_handlers
from exporter.api.json_text import json_text
from exporter.api.places import Lane
from exporter.api.targets import RequestTarget

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falcon import Request, Response

    from exporter.api.places import Budget
    from exporter.api.routing import Router

__all__ = ["LANES", "ROUTES", "RequestObserver", "create_app"]

# Every route, with its usual method. Its counters start at 0 with this method.
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

# The lane of each route, except the routes of Lane.CALLS.
LANES: Final = {
    "/": Lane.LOOKS,
    "/metrics": Lane.SCRAPES,
    "/health": Lane.QUICK,
    "/ready": Lane.LOOKS,
    "/version": Lane.QUICK,
    "/v1/load_lora_adapter": Lane.WAITS,
    "/v1/unload_lora_adapter": Lane.WAITS,
    "/v1/download_model": Lane.WAITS,
}
# Quick requests need no place. Loads, unloads and downloads take one themselves, because only the body says whether
# the caller waits (docs/adr/0014).
_WITHOUT: Final = frozenset({Lane.QUICK, Lane.WAITS})

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNMATCHED: Final = "unmatched"


class RequestObserver(Protocol):
    """Observes requests; called from the threads that answer them."""

    def answered(self, *, route: str, method: str, status: int, seconds: float) -> None:
        """Note an answer; `route` is a template or `unmatched`. Must not raise."""


class _Observe:
    """Falcon middleware that reports requests by route template: the number of raw paths is unbounded.

    Falcon refuses a method that HTTP does not have, such as WEBSOCKET, before `process_request`. Such a request has
    no start time, and is reported with 0 seconds.
    """

    def __init__(self, observer: RequestObserver) -> None:
        self._observer = observer

    def process_request(self, req: Request, resp: Response) -> None:
        req.context.started = perf_counter()

    def process_response(self, req: Request, resp: Response, resource: object, req_succeeded: bool) -> None:
        self._observer.answered(
            route=req.uri_template or _UNMATCHED,
            method=req.method if req.method in _METHODS else "other",
            status=resp.status_code,
            seconds=perf_counter() - getattr(req.context, "started", perf_counter()),
        )


def create_app(
    resources: Mapping[str, Any], observer: RequestObserver, *, router: Router, budget: Budget
) -> falcon.App[Request, Response]:
    """Build the application.

    Args:
        resources: A Falcon resource for each of `ROUTES`.
        observer: Called for each answer.
        router: Finds the route of a request, and checks the caller's token.
        budget: The places for slow requests.
    """
    app: falcon.App[Request, Response] = falcon.App(middleware=[_Observe(observer), RequestTarget()], router=router)
    app.req_options.strip_url_path_trailing_slash = True
    app.resp_options.media_handlers[falcon.MEDIA_JSON] = JSONHandler(dumps=json_text)
    for route in ROUTES:
        lane = LANES.get(route, Lane.CALLS)
        app.add_route(route, resources[route], places=None if lane in _WITHOUT else budget[lane], compile=True)
    add_error_handlers(app)
    return app
