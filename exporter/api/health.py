"""GET /health, /ready and /version.

/health    {"status": "healthy", "service": "runtime"}
/ready     {"status": "not_ready", "checks": {"engine": {"status": "failing", "reason": "refused", "detail": ...},
                                              "redis": {"status": "ok", "detail": ...}, ...}}
/version   {"version": "1.0.0", "python": "3.12.1", "engine": "vllm"}
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

import falcon

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from falcon import Request, Response

    from exporter.engine.collector import EngineCollector

__all__ = ["HealthResource", "ReadyResource", "VersionResource"]

# Seconds for the engine: by default, a kubelet's probe waits one second in total.
PROBE_BUDGET: Final = 0.9


class HealthResource:
    """Liveness of this process only: an engine that is down must not cause a restart of the runtime."""

    public: Final = True

    def on_get(self, req: Request, resp: Response) -> None:
        resp.media = {"status": "healthy", "service": "runtime"}

    on_head = on_get


class Check(Protocol):
    """One entry of `/ready`."""

    @property
    def status(self) -> str:
        """`ok`, `off`, `waiting` or `failing`; only `failing` makes `/ready` answer 503."""

    @property
    def detail(self) -> str:
        """A sentence for people."""


class ReadyResource:
    """Status of the runtime's dependencies: the engine, Redis, KV events and LoRA adapters."""

    public: Final = True

    def __init__(self, collector: EngineCollector, checks: Callable[[], Mapping[str, Check]]) -> None:
        """Use `collector` to scrape the engine, and `checks` for all other entries."""
        self._collector = collector
        self._checks = checks

    def on_get(self, req: Request, resp: Response) -> None:
        """Answer 200, or 503 if an entry is `failing`; the body has all entries."""
        # A probe waits less than a scraper: its timeout must not appear in the log or in the error counter.
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
    """The versions of the runtime and of Python, and the engine whose rules are in use."""

    public: Final = True

    def __init__(self, versions: Mapping[str, str]) -> None:
        self._versions = dict(versions)

    def on_get(self, req: Request, resp: Response) -> None:
        resp.media = self._versions

    on_head = on_get
