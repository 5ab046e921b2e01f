"""GET /health, /ready and /version."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

import falcon

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from falcon import Request, Response

    from exporter.engine.collector import EngineCollector

__all__ = ["HealthResource", "ReadyResource", "VersionResource"]

# A kubelet's probe waits one second by default.
PROBE_BUDGET: Final = 0.9


class HealthResource:
    """About this process only: an engine that is down must not restart it."""

    public: Final = True

    def on_get(self, req: Request, resp: Response) -> None:
        """Answer that the process serves."""
        resp.media = {"status": "healthy", "service": "runtime"}

    on_head = on_get


class Check(Protocol):
    """How something fares: `ok`, `off`, `waiting` or `failing`, and why."""

    @property
    def status(self) -> str:
        """One of the four."""

    @property
    def detail(self) -> str:
        """A sentence for people."""


class ReadyResource:
    """What of the things around the runtime works."""

    public: Final = True

    def __init__(self, collector: EngineCollector, checks: Callable[[], Mapping[str, Check]]) -> None:
        """Ask `collector` about the engine, and `checks` about all else."""
        self._collector = collector
        self._checks = checks

    def on_get(self, req: Request, resp: Response) -> None:
        """Answer 200 when all works, 503 and which does not otherwise."""
        scrape = self._collector.scrape(PROBE_BUDGET, glance=True)
        present, missing = len(scrape.standard.present), len(scrape.standard.missing)
        counts = {"samples": scrape.page.samples, "standard_metrics": f"{present} of {present + missing}"}
        checks: dict[str, Any] = {"engine": {"status": "ok", **counts}}
        if scrape.error:
            checks["engine"] = {"status": "failing", "reason": scrape.error.reason, "detail": scrape.error.detail}
        for name, check in self._checks().items():
            checks[name] = {"status": check.status, "detail": check.detail}
        ready = all(check["status"] != "failing" for check in checks.values())
        resp.media = {"status": "ready" if ready else "not_ready", "checks": checks}
        if not ready:
            resp.status = falcon.code_to_http_status(HTTPStatus.SERVICE_UNAVAILABLE)

    on_head = on_get


class VersionResource:
    """What is running."""

    public: Final = True

    def __init__(self, versions: Mapping[str, str]) -> None:
        """Serve `versions` as they are."""
        self._versions = dict(versions)

    def on_get(self, req: Request, resp: Response) -> None:
        """Answer with the versions."""
        resp.media = self._versions

    on_head = on_get
