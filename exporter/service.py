"""The composition root: builds the runtime from its settings, starts it, and stops it in order."""

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

# With the server's `DRAIN_SECONDS` (`exporter.api.server`), the whole shutdown takes less than ten seconds.
_STOP_SECONDS: Final = 0.5
_CLOSE_SECONDS: Final = 4.0
# From `stop` on, the parts have at least this long, even if the server drains faster. It is more than
# `exporter.kv.events.STOP_SECONDS`, in which the pump removes this pod's fields from Redis.
_END_SECONDS: Final = 6.0


class ServiceError(Exception):
    """The runtime cannot run in this environment; the message says what to do. Exit code 1."""


@dataclass(slots=True)
class Service:
    """The runtime's objects, ready to serve.

    Attributes:
        app: The WSGI application with all routes.
        server: The HTTP server of the application.
        client: The HTTP client for the engine's metrics page.
        parts: Everything that runs next to the server.
        stopped_at: When `stop` was called, by the monotonic clock.
    """

    app: falcon.App[Request, Response]
    server: HttpServer
    client: EngineClient
    parts: Parts
    stopped_at: float = -inf

    def start(self) -> None:
        """Start the parts, in order."""
        for part in self.parts.running:
            part.start()

    def stop(self) -> None:
        """Ask the parts to end, in reverse order; `close` waits for them.

        Call it before the server drains: the parts end while the last requests finish.
        """
        self.stopped_at = monotonic()
        for part in reversed(self.parts.running):
            _in_time(part.stop, _STOP_SECONDS)

    def close(self) -> None:
        """Wait for the parts, a few seconds in total: a part may be blocked by a disk that hangs."""
        deadline = max(monotonic() + _CLOSE_SECONDS, self.stopped_at + _END_SECONDS)
        for part in reversed(self.parts.running):
            if not _in_time(part.join, deadline - monotonic()):
                logger.warning("a part of the runtime did not end in time: part=%s", type(part).__name__)
        self.client.close()


def build(settings: Settings) -> Service:
    """Build the object graph and bind the port; the parts are not started, and nothing is served yet.

    Raises:
        ConfigError: The settings contradict each other, or a file that they name cannot be used.
        ServiceError: The port cannot be bound.
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
    # ADR 18: all pages in memory share twice the limit of one page.
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
    # The port is known only now: with --port 0, the system chooses it.
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
    """Serve until SIGTERM or SIGINT, let short requests finish, and return.

    Raises:
        ConfigError: The settings contradict each other, or a file that they name cannot be used.
        ServiceError: The port cannot be bound.
    """
    logs.configure(form=settings.log_format, level=settings.log_level)
    for warning in settings.warnings:
        logger.warning("%s", warning)
    # Install the handlers before the port is bound: once a client can reach the runtime, a signal ends it cleanly.
    stop = Event()
    _on_end_signals(stop.set)
    with ExitStack() as cleanup:
        service = build(settings)
        cleanup.callback(service.close)
        _on_end_signals(stop.set, service.server.wake)
        service.start()
        # The objects of the start live until the end. Freezing them keeps the garbage collector from visiting them.
        gc.collect()
        gc.freeze()
        logger.info(
            "kthena-runtime %s serves %s for %s at %s", __version__, service.server.url, settings.engine,
            values.shown(settings.engine_metrics_url),
        )  # fmt: skip
        # A signal between a look at `stop` and the next poll must wake the loop. The Python handler alone may run
        # too late: only after the poll.
        signal.set_wakeup_fd(service.server.wakeup_fd, warn_on_full_buffer=False)
        service.server.serve(stop)
        signal.set_wakeup_fd(-1)
        # Stop the parts first: removing this pod's fields from Redis and draining the server then overlap.
        service.stop()
        service.server.drain()
    logger.info("ended")


def _in_time(action: Callable[[], object], seconds: float) -> bool:
    """Run `action` in a thread, and return whether it ended in time; otherwise it continues in the background."""
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
