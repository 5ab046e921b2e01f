"""GET /health, /ready and /version."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import falcon

if TYPE_CHECKING:
    from collections.abc import Mapping

    from falcon import Request, Response

    from exporter.metrics.collector import EngineCollector

__all__ = ["HealthResource", "ReadyResource", "VersionResource"]

# A kubelet's probe waits one second by default.
PROBE_BUDGET: Final = 0.9


class HealthResource:
    """About this process only: an engine that is down must not restart it."""

    def on_get(self, req: Request, resp: Response) -> None:  # noqa: ARG002 - Falcon's signature
        """Answer that the process serves."""
        resp.media = {"status": "healthy", "service": "runtime"}

    on_head = on_get


class ReadyResource:
    """What of the things around the runtime works."""

    def __init__(self, collector: EngineCollector) -> None:
        """Ask `collector` about the engine."""
        self._collector = collector

    def on_get(self, req: Request, resp: Response) -> None:  # noqa: ARG002 - Falcon's signature
        """Answer 200 when all works, 503 and which does not otherwise."""
        scrape = self._collector.scrape(PROBE_BUDGET)
        engine: dict[str, Any] = {"status": "ok", "samples": scrape.page.samples}
        if scrape.error:
            engine = {"status": "failing", "reason": scrape.error.reason, "detail": scrape.error.detail}
        resp.media = {"status": "ready" if scrape.up else "not_ready", "checks": {"engine": engine}}
        if not scrape.up:
            resp.status = falcon.code_to_http_status(HTTPStatus.SERVICE_UNAVAILABLE)

    on_head = on_get


class VersionResource:
    """What is running."""

    def __init__(self, versions: Mapping[str, str]) -> None:
        """Serve `versions` as they are."""
        self._versions = dict(versions)

    def on_get(self, req: Request, resp: Response) -> None:  # noqa: ARG002 - Falcon's signature
        """Answer with the versions."""
        resp.media = self._versions

    on_head = on_get
