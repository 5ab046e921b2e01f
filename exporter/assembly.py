"""The parts of the runtime besides metrics: KV events, downloads and LoRA adapters.

Each part contributes its routes, its metrics, its entry in `/ready`, and the
objects that the service starts and stops.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from exporter.api.lora import AdapterResource, AdaptersResource, LoadResource, UnloadResource
from exporter.api.models import DownloadModelResource, DownloadResource, DownloadsResource
from exporter.api.unsupported import UnsupportedResource
from exporter.patience import in_time
from exporter.secret_file import SecretFile, reason
from exporter.settings import KV_ENGINES, ConfigError
from exporter.telemetry.downloads import DownloadTelemetry
from exporter.telemetry.kv import KvLabels, KvTelemetry, enabled_family
from exporter.telemetry.lora import LoraTelemetry
from exporter.telemetry.volumes import Volumes
from lora.adapter import Origin, State
from lora.engine.client import APIS, EngineClient
from lora.engine.prefix_cache import WARNING
from lora.manager import Manager
from lora.model.follower import ModelSource
from lora.state_file import Forgetful, StateFile
from storage.disk.regular import check_regular
from storage.supervisor.limits import Limits
from storage.supervisor.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from exporter.api.health import Check
    from exporter.api.places import Budget
    from exporter.settings import Settings
    from exporter.telemetry.runtime import Telemetry

__all__ = ["Finding", "Part", "Parts", "assemble", "secret"]

# The service waits only slightly longer, for all parts together (`exporter.service`).
_STOP_SECONDS: Final = 3.0


class Finding(NamedTuple):
    """One entry of `/ready`: the status (`ok`, `off`, `waiting` or `failing`), and a sentence for people."""

    status: str
    detail: str


class Part(Protocol):
    """Something that runs in threads or processes of its own, next to the HTTP server.

    The service calls `start` in order, and `stop` and `join` in reverse order.
    """

    def start(self) -> None:
        """Start the part's threads."""

    def stop(self) -> None:
        """Request the end without waiting for it; the service gives this call half a second."""

    def join(self) -> None:
        """Wait for the end; the service gives up after a few seconds, because an engine or a volume may hang."""


@dataclass(slots=True)
class Parts:
    """The contributions of all parts.

    Attributes:
        resources: Falcon resources by route template.
        checks: Functions that return entries of `/ready`, by name.
        running: The parts to start and stop, in the order of starting.
    """

    resources: dict[str, Any] = field(default_factory=dict)
    checks: list[Callable[[], Mapping[str, Check]]] = field(default_factory=list)
    running: list[Part] = field(default_factory=list)

    def findings(self) -> dict[str, Check]:
        """Return the entries of `/ready` of all parts."""
        return dict(chain.from_iterable(check().items() for check in self.checks))


def assemble(settings: Settings, telemetry: Telemetry, budget: Budget) -> Parts:
    """Build all parts; nothing is started yet.

    Args:
        settings: The configuration.
        telemetry: Exports the metrics of each part.
        budget: The places for slow requests, such as loads.

    Raises:
        ConfigError: The settings contradict each other, or a file that they name cannot be used.
    """
    parts = Parts()
    _add_kv(parts, settings, telemetry)
    supervisor = _add_downloads(parts, settings, telemetry)
    manager = _add_lora(parts, settings, telemetry, supervisor, budget)
    # A download must not touch the files of a loaded adapter: the engine would crash.
    holds = manager.holds if manager else lambda _: False
    parts.resources["/v1/download_model"] = DownloadModelResource(
        supervisor, settings.storage, holds, budget, replace=settings.download_replace
    )
    return parts


def secret(path: Path | None, flag: str) -> SecretFile | None:
    """Return the secret file at `path`, read once, or `None` without a path; its thread runs already.

    Raises:
        ConfigError: The file cannot be read, or not in time; the message names `flag`.
    """
    if path is None:
        return None
    try:
        return SecretFile(path)
    except (OSError, ValueError) as error:
        message = f"{flag} {path}: {reason(error)}"
        raise ConfigError(message) from None


def _add_kv(parts: Parts, settings: Settings, telemetry: Telemetry) -> None:
    if not settings.redis_url or settings.engine not in KV_ENGINES:
        telemetry.add(lambda: iter((enabled_family(enabled=False),)))
        detail = "no Redis is configured (REDIS_HOST or REDIS_URL)"
        if settings.redis_url:
            detail = f"not for engine {settings.engine}: it is known for {', '.join(KV_ENGINES)}"
        parts.checks.append(lambda: {"kv_events": Finding("off", detail)})
        return
    # Imported here: ZeroMQ and redis-py cost 13 MB of memory that most pods do not need.
    from exporter.kv import events as kv_events

    options = kv_events.KvOptions(
        engine=settings.engine,
        model=settings.model,
        pod=settings.pod,
        redis_url=settings.redis_url,
        endpoint=settings.kv_endpoint,
        topic=settings.kv_topic,
        replay_endpoint=settings.kv_replay_endpoint,
        ranks=settings.data_parallel_size,
        max_blocks=settings.kv_max_blocks,
    )
    observer = KvTelemetry(KvLabels(ranks=range(settings.data_parallel_size), **kv_events.LABELS))
    try:
        kv = kv_events.KvEvents(options, observer)
    except ValueError as error:
        message = f"KV events: {error}"
        raise ConfigError(message) from None
    telemetry.add(lambda: chain((enabled_family(enabled=True),), observer.families(kv.ledger)))
    parts.checks.append(kv.findings)
    parts.running.append(kv)


class _Measuring:
    """Measures the volumes of the write roots while the runtime runs; adapts `Volumes` to `Part`."""

    def __init__(self, volumes: Volumes, write_roots: tuple[str, ...]) -> None:
        self._volumes = volumes
        self._write_roots = write_roots

    def start(self) -> None:
        self._volumes.follow(self._write_roots)

    def stop(self) -> None:
        self._volumes.follow(())

    def join(self) -> None:
        self._volumes.join()


class _Downloads:
    """Ends the download workers with the runtime; adapts `Supervisor` to `Part`."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def start(self) -> None:
        """Do nothing: a worker starts with its download."""

    def stop(self) -> None:
        """Do nothing: `join` both asks the workers to end and waits for them."""

    def join(self) -> None:
        self._supervisor.stop(_STOP_SECONDS)


def _add_downloads(parts: Parts, settings: Settings, telemetry: Telemetry) -> Supervisor:
    volumes = Volumes()
    observer = DownloadTelemetry(volumes, settings.write_roots)
    limits = Limits(
        write_roots=settings.write_roots,
        stall_timeout=settings.stall_timeout,
        worker_memory=settings.worker_memory,
        worker_nice=settings.worker_nice,
    )
    supervisor = Supervisor(limits, observer=observer)
    telemetry.add(observer.families)
    parts.resources["/v1/downloads"] = DownloadsResource(supervisor)
    parts.resources["/v1/downloads/{download}"] = DownloadResource(supervisor)
    parts.running += [_Measuring(volumes, settings.write_roots), _Downloads(supervisor)]
    return supervisor


class _Lora:
    """Runs the adapters' manager, and the follower of the Model file if there is one; adapts both to `Part`."""

    def __init__(self, manager: Manager, source: ModelSource | None) -> None:
        self._manager = manager
        self._source = source

    def start(self) -> None:
        # The manager first: it restores the desired set of the state directory, which the Model then changes.
        self._manager.start()
        if self._source:
            self._source.start()

    def stop(self) -> None:
        if self._source:
            self._source.stop()
        self._manager.stop()

    def join(self) -> None:
        # A load may be in flight at an engine that hangs, so the wait is short.
        self._manager.join(1.0)

    def findings(self) -> dict[str, Finding]:
        """Return the entry `lora` of `/ready`.

        An adapter of the Model that is not loaded is `failing`; one that a client asked for is `waiting`.
        """
        if self._source and self._source.problem:
            return {"lora": Finding("failing", self._source.problem)}
        missing = [one for one in self._manager.managed() if one.state is not State.LOADED]
        of_model = [one.name for one in missing if one.origin is Origin.MODEL]
        if of_model:
            return {"lora": Finding("failing", f"adapters of the Model that are not loaded: {', '.join(of_model)}")}
        if missing:
            return {
                "lora": Finding("waiting", f"adapters that are not loaded: {', '.join(one.name for one in missing)}")
            }
        stale = [one.name for one in self._manager.managed() if one.possibly_stale]
        if stale:
            return {"lora": Finding("failing", f"{WARNING}: {', '.join(stale)}")}
        return {"lora": Finding("ok", "all wanted adapters are loaded")}


def _add_lora(
    parts: Parts, settings: Settings, telemetry: Telemetry, supervisor: Supervisor, budget: Budget
) -> Manager | None:
    routes = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/lora_adapters", "/v1/lora_adapters/{name:path}")
    api = APIS.get(settings.engine)
    if api is None:
        detail = f"LoRA adapters are managed for {', '.join(APIS)}, not for {settings.engine}"
        parts.resources.update(dict.fromkeys(routes, UnsupportedResource(detail)))
        parts.checks.append(lambda: {"lora": Finding("off", detail)})
        return None
    observer = LoraTelemetry()
    key = secret(settings.engine_api_key_file, "--engine-api-key-file")
    if key is not None:
        parts.running.append(key)
    manager = Manager(
        EngineClient(settings.engine_base_url, api, api_key=key.last if key is not None else lambda: None),
        supervisor,
        _desired(settings.state_dir),
        observer,
        config=settings.storage,
        pod=settings.pod,
        interval=settings.reconcile_interval,
    )
    source = None
    if settings.model_config:
        _check_model_config(settings.model_config)
        source = ModelSource(
            settings.model_config, backend=settings.backend, lora_dir=settings.lora_dir, manager=manager
        )
    part = _Lora(manager, source)
    load = LoadResource(
        manager, budget, config=settings.storage, lora_dir=settings.lora_dir, write_roots=settings.write_roots
    )
    resources = (load, UnloadResource(manager, budget), AdaptersResource(manager), AdapterResource(manager))
    parts.resources.update(zip(routes, resources, strict=True))
    telemetry.add(lambda: observer.families(manager.managed(), model_valid=source.is_valid if source else None))
    parts.checks.append(part.findings)
    parts.running.append(part)
    return manager


def _check_model_config(path: Path) -> None:
    """Refuse a path that can never be a Model file, such as a directory; the file need not exist yet."""
    try:
        in_time(partial(check_regular, path))
    except OSError as error:
        message = f"--model-config {path}: {error.strerror}"
        raise ConfigError(message) from None


def _desired(state_dir: Path | None) -> Forgetful | StateFile:
    try:
        return in_time(partial(StateFile, state_dir)) if state_dir else Forgetful()
    except OSError as error:
        message = f"--state-dir {state_dir}: {error.strerror}"
        raise ConfigError(message) from None
