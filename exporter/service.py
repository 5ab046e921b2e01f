"""The composition root: builds the runtime out of settings, starts and ends it."""

from __future__ import annotations

import gc
import logging
import platform
import signal
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from threading import Event
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from exporter import __version__, logs, values
from exporter.addresses import points_back
from exporter.api.app import ROUTES, create_app
from exporter.api.health import HealthResource, ReadyResource, VersionResource
from exporter.api.landing import LandingResource
from exporter.api.metrics import MetricsResource
from exporter.api.server import HttpServer
from exporter.assembly import assemble, secret
from exporter.config import ConfigError
from exporter.metrics.collector import EngineCollector
from exporter.metrics.room import LEAST as LEAST_ROOM
from exporter.metrics.room import Room
from exporter.metrics.rules import RuleError, load_rules
from exporter.metrics.scrape import LOOP_HEADER, EngineClient
from exporter.metrics.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from exporter.assembly import Parts
    from exporter.config import Settings

__all__ = ["Service", "ServiceError", "build", "run"]

_log: Final = logging.getLogger(__name__)


class ServiceError(Exception):
    """The runtime cannot run here; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Service:
    """The graph of objects, ready to serve.

    Attributes:
        server: Serves HTTP until it is stopped.
        client: The connection to the engine.
        parts: What works beside the server.
    """

    server: HttpServer
    client: EngineClient
    parts: Parts

    def start(self) -> None:
        """Start what works beside the server."""
        for part in self.parts.running:
            part.start()

    def stop(self) -> None:
        """Ask it to end; `close` waits for that."""
        for part in reversed(self.parts.running):
            part.stop()

    def close(self) -> None:
        """End everything."""
        for part in reversed(self.parts.running):
            part.join()
        self.client.close()


def build(settings: Settings) -> Service:
    """Build everything; the port is bound, nothing is served yet.

    Raises:
        ConfigError: The settings do not fit together.
        ServiceError: The port cannot be had.
    """
    try:
        rules = load_rules(settings.engine, settings.metric_rules)
    except RuleError as error:
        message = f"--metric-rules {error}"
        raise ConfigError(message) from None
    instance = uuid4().hex
    client = EngineClient(
        settings.engine_metrics_url,
        max_bytes=settings.max_scrape_bytes,
        headers={LOOP_HEADER: instance, "User-Agent": f"kthena-runtime/{__version__}"},
    )
    telemetry = Telemetry(settings.engine, ROUTES)
    room = Room(max(2 * settings.max_scrape_bytes, LEAST_ROOM))
    collector = EngineCollector(
        client.fetch, rules, budget=settings.request_timeout, limit=settings.max_scrape_bytes, room=room,
        observer=telemetry,
    )  # fmt: skip
    parts = assemble(settings, telemetry)
    token = secret(settings.api_token_file, "--api-token-file")
    versions = {"version": __version__, "python": platform.python_version(), "engine": settings.engine}
    resources = {
        "/": LandingResource(
            collector, settings.model, settings.pod, versions, metrics_url=settings.engine_metrics_url
        ),
        "/metrics": MetricsResource(
            collector, telemetry, instance=instance, raw=settings.raw_metrics, packing=Room(settings.max_scrape_bytes)
        ),
        "/health": HealthResource(),
        "/ready": ReadyResource(collector, parts.findings),
        "/version": VersionResource(versions),
        **parts.resources,
    }
    listener = _listen(settings)
    port = listener.getsockname()[1]
    if points_back(settings.engine_base_url, settings.host, port):
        listener.close()
        message = (
            f"--engine-base-url {settings.engine_base_url} is this runtime's own address: "
            f"give it the engine's, or another port with --port"
        )
        raise ConfigError(message)
    if token is None and not _is_loopback(listener):
        _log.warning("whoever reaches this port may load adapters and download models: see --api-token-file")
    app = create_app(resources, telemetry, token=token)
    return Service(HttpServer(app, listener, unsent=room.size), client, parts)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is short and return.

    Raises:
        ConfigError: The settings do not fit together.
        ServiceError: The port cannot be had.
    """
    logs.configure(form=settings.log_format, level=settings.log_level)
    for warning in settings.warnings:
        _log.warning("%s", warning)
    # Before the port is bound: whoever can reach the runtime can also end it cleanly.
    stop = Event()
    _on_end_signals(stop.set)
    with ExitStack() as cleanup:
        service = build(settings)
        cleanup.callback(service.close)
        _on_end_signals(stop.set, service.server.wake)
        service.start()
        # What lives now lives on: keep the collector from going over it again and again.
        gc.collect()
        gc.freeze()
        _log.info(
            "kthena-runtime %s serves %s for %s at %s", __version__, service.server.url, settings.engine,
            values.shown(settings.engine_metrics_url),
        )  # fmt: skip
        signal.set_wakeup_fd(service.server.wakeup_fd, warn_on_full_buffer=False)
        service.server.serve(stop)
        signal.set_wakeup_fd(-1)
        service.stop()
        service.server.drain()
    _log.info("ended")


def _on_end_signals(*actions: Callable[[], object]) -> None:
    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's signature
        for action in actions:
            action()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def _is_loopback(listener: socket.socket) -> bool:
    return ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=128)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while attempting")[0]
        message = f"cannot listen on {settings.host} port {settings.port}: {reason}; choose with --host and --port"
        raise ServiceError(message) from None
