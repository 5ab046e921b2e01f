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
from math import inf
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from exporter import __version__, logs, values
from exporter.addresses import points_back
from exporter.api.app import LANES, ROUTES, create_app
from exporter.api.auth import Gate
from exporter.api.health import HealthResource, ReadyResource, VersionResource
from exporter.api.landing import LandingResource
from exporter.api.metrics import MetricsResource
from exporter.api.places import Budget
from exporter.api.routing import Router
from exporter.api.server import HttpServer
from exporter.assembly import assemble, secret
from exporter.engine.client import LOOP_HEADER, EngineClient
from exporter.engine.collector import EngineCollector
from exporter.engine.room import LEAST as LEAST_ROOM
from exporter.engine.room import Room
from exporter.settings import ConfigError
from exporter.standard.rules import RuleError, load_rules
from exporter.telemetry.runtime import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    import falcon
    from falcon import Request, Response

    from exporter.assembly import Parts
    from exporter.settings import Settings

__all__ = ["Service", "ServiceError", "build", "run"]

logger: Final = logging.getLogger(__name__)

# Together with the server's own end (`exporter.api.server.DRAIN_SECONDS`) less than ten seconds.
_STOP_SECONDS: Final = 0.5
_CLOSE_SECONDS: Final = 4.0
# From `stop` on, what works beside the server has this long even if the server needs none of it: more than
# `exporter.kv.events.STOP_SECONDS`, in which this pod's fields are taken out of Redis.
_END_SECONDS: Final = 6.0


class ServiceError(Exception):
    """The runtime cannot run here; the message says what to do."""


@dataclass(slots=True)
class Service:
    """The graph of objects, ready to serve.

    Attributes:
        app: The WSGI application, with all routes.
        server: Serves it over HTTP until it is stopped.
        client: The connection to the engine.
        parts: What works beside the server.
        stopped_at: When it was asked to end, by the monotonic clock.
    """

    app: falcon.App[Request, Response]
    server: HttpServer
    client: EngineClient
    parts: Parts
    stopped_at: float = -inf

    def start(self) -> None:
        """Start what works beside the server."""
        for part in self.parts.running:
            part.start()

    def stop(self) -> None:
        """Ask it to end; `close` waits for that."""
        self.stopped_at = monotonic()
        for part in reversed(self.parts.running):
            _in_time(part.stop, _STOP_SECONDS)

    def close(self) -> None:
        """End everything, within some seconds: a part may wait for a disk that hangs."""
        deadline = max(monotonic() + _CLOSE_SECONDS, self.stopped_at + _END_SECONDS)
        for part in reversed(self.parts.running):
            if not _in_time(part.join, deadline - monotonic()):
                logger.warning("a part of the runtime did not end in time: part=%s", type(part).__name__)
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
    budget = Budget()
    parts = assemble(settings, telemetry, budget)
    token = secret(settings.api_token_file, "--api-token-file")
    if token is not None:
        parts.running.append(token)
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
        logger.warning("whoever reaches this port may load adapters and download models: see --api-token-file")
    router = Router(Gate(token.current if token is not None else None).admit, LANES)
    app = create_app(resources, telemetry, router=router, budget=budget)
    server = HttpServer(app, listener, budget=budget, lane_of=router.lane_of, unsent=room.size)
    return Service(app, server, client, parts)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is short and return.

    Raises:
        ConfigError: The settings do not fit together.
        ServiceError: The port cannot be had.
    """
    logs.configure(form=settings.log_format, level=settings.log_level)
    for warning in settings.warnings:
        logger.warning("%s", warning)
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
        logger.info(
            "kthena-runtime %s serves %s for %s at %s", __version__, service.server.url, settings.engine,
            values.shown(settings.engine_metrics_url),
        )  # fmt: skip
        signal.set_wakeup_fd(service.server.wakeup_fd, warn_on_full_buffer=False)
        service.server.serve(stop)
        signal.set_wakeup_fd(-1)
        service.stop()
        service.server.drain()
    logger.info("ended")


def _in_time(action: Callable[[], object], seconds: float) -> bool:
    """Do something, and return whether it was done in this time; it goes on if not."""
    thread = Thread(target=action, name="end", daemon=True)
    thread.start()
    thread.join(max(seconds, 0.1))
    return not thread.is_alive()


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
