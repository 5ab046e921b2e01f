"""A small cluster to look at: pods of an engine with the real runtime beside it, and the real Prometheus over them.

::

    with stage(tmp_path) as cluster:
        cluster.wait_for_scrapes(40)
        view = cluster.view(seconds=30)
        cluster.stop()
        view.now("sum by (pod) (kthena:num_requests_waiting)")

Around a pod that has something to do there is all that a dashboard can show: cache events into a real Redis, adapters
that are loaded and unloaded, downloads from a hub that is slow and breaks off, a router's page. `load=0` gives an idle
cluster, `bare=True` runtimes that know their engine and nothing else; `cluster.stop_engines()` takes the engines away.
"""

from __future__ import annotations

import contextlib
import json
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from simulators.adapters import make_adapter
from simulators.engine.__main__ import Engine
from simulators.hub.server import Hub
from simulators.kv.frames import form
from simulators.kv.publisher import KvPublisher
from simulators.misbehaving.proxy import BadProxy
from simulators.page_server import PageServer
from simulators.prometheus import Prometheus, Target
from simulators.redis import RedisServer
from simulators.waiting import PATIENCE, wait_until
from tests.dashboards.activity import (
    MODEL,
    Worker,
    download_models,
    publish_events,
    route_requests,
    slow_down,
    use_adapters,
)
from tests.dashboards.view import RATE_SECONDS, View
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from simulators.engine.api import FlavourName

__all__ = ["JOB", "NAMESPACE", "PATIENT_SECONDS", "PROVOKED", "Cluster", "Pod", "stage"]

JOB: Final = "kthena-runtime"
NAMESPACE: Final = "models"
# Alerts that have a reason to fire over a busy stage; all others have none.
PROVOKED: Final = {
    "KthenaLoraLoadFailing": "an adapter is asked for that is not there",
    "KthenaLoraAdapterFailed": "the same adapter, which stays failed",
    "KthenaDownloadFailing": "the same adapter, whose download comes before its load",
    "KthenaTTFTBudgetBurn": "requests come in bursts, one after another, and their first tokens take seconds",
}

# How long scrapes may fail to be in time; the machine is far too slow then.
PATIENT_SECONDS: Final = 300.0

_MODELS: Final = {"vllm": "llama-3.1-8b", "sglang": "qwen3-8b"}
_EVENTS: Final = {"vllm": "vllm-0.33", "sglang": "sglang-0.5.22"}
_ROUTER_PAGE: Final = "/metrics"
_SHARDS: Final = 3
_SHARD_BYTES: Final = 6_000_000
_PAUSE_SECONDS: Final = 0.15  # for each 64 kB of a shard


@dataclass(frozen=True, slots=True)
class Pod:
    """An engine and the runtime beside it.

    Attributes:
        name: As the label `pod` has it.
        flavour: Which engine it is.
        model: What the engine serves.
        publisher: The engine's cache events.
    """

    name: str
    flavour: FlavourName
    model: str
    engine: Engine
    runtime: Runtime
    publisher: KvPublisher
    _engine_alone: ExitStack
    _activity: ExitStack

    def stop_engine(self) -> None:
        """Take the engine away."""
        self._engine_alone.close()

    def stop_runtime(self) -> None:
        """Take the runtime away, and who uses it."""
        self._activity.close()
        self.runtime.stop()

    @property
    def has_runtime(self) -> bool:
        """Whether the runtime is there still."""
        return self.runtime.process.poll() is None


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is on the stage."""

    pods: Sequence[Pod]
    redis: RedisServer
    prometheus: Prometheus
    _all_but_prometheus: ExitStack

    def stop(self) -> None:
        """End everything but Prometheus, which goes on knowing what it knows."""
        self._all_but_prometheus.close()

    def stop_engines(self) -> None:
        """Take all engines away; the runtimes stay."""
        for pod in self.pods:
            pod.stop_engine()

    def wait_for_scrapes(self, count: int) -> None:
        """Wait until each pod has been scraped so often, a second apart."""
        query = f'min(count_over_time(up{{job="{JOB}"}}[1h]))'
        wait_until(lambda: self._value(query) >= count, f"{count} scrapes", seconds=PATIENCE + count, every=0.5)

    def view(self, *, seconds: int, in_time: int | None = None) -> View:
        """Look at the last so many seconds.

        On a busy machine a scrape now and then takes longer than its second, or an engine longer than the half of it
        that the runtime waits. Then Prometheus shows a fault that none of the programs has. A view without such a scrape
        is waited for.

        Args:
            seconds: How much of the past is looked at.
            in_time: For how many seconds all scrapes must have been in time; if not given, for all that the view shows.
        """
        return wait_until(
            lambda: self.look(seconds=seconds, in_time=in_time),
            "scrapes are in time",
            seconds=PATIENT_SECONDS,
            every=0.5,
        )

    def look(self, *, seconds: int, in_time: int | None = None) -> View | None:
        """Return a view as it is, or none if some scrape in it was not in time."""
        window = seconds + RATE_SECONDS if in_time is None else in_time
        view = View(self.prometheus, seconds=seconds)
        gone = "|".join(pod.name for pod in self.pods if not pod.has_runtime)
        missed = f'min_over_time(up{{pod!~"{gone}"}}[{window}s]) == 0'
        late = f'increase(kthena_runtime_engine_scrape_errors_total{{reason="timeout"}}[{window}s]) > 0'
        return None if view.now(missed) or view.now(late) else view

    def _value(self, query: str) -> float:
        return sum(float(series["value"][1]) for series in self.prometheus.query(query))


@contextlib.contextmanager
def stage(
    folder: Path,
    flavours: Sequence[FlavourName] = ("vllm", "sglang"),
    *,
    load: float = 8.0,
    bare: bool = False,
    rule_files: Sequence[Path] = (),
) -> Iterator[Cluster]:
    """Run a pod of each flavour; files go into `folder`.

    Args:
        folder: Where the files go.
        flavours: The engine of each pod.
        load: Requests per second and engine; 0 leaves all idle.
        bare: Whether the runtimes know their engine and nothing else; for idle pods.
        rule_files: What Prometheus evaluates besides, once a second.
    """
    assert not (bare and load), "a runtime without Redis and adapters has nothing to do"
    with ExitStack() as everything:
        running = everything.enter_context(ExitStack())
        redis = running.enter_context(RedisServer())
        hub = running.enter_context(_slow_hub())
        names = [f"{_MODELS[flavour]}-{flavours[:place].count(flavour)}" for place, flavour in enumerate(flavours)]
        pods = []
        for number, (name, flavour) in enumerate(zip(names, flavours, strict=True)):
            own = folder / name
            own.mkdir()
            services = {} if bare else {"REDIS_URL": redis.url, "HF_ENDPOINT": hub.url}
            pods.append(_start_pod(running, own, name, flavour, load=load, seed=number, services=services))
        router = running.enter_context(_router(pods, load))
        jobs: dict[str, list[str | Target]] = {JOB: [_target(pod) for pod in pods], "kthena-router": [router]}
        prometheus = everything.enter_context(Prometheus(folder, jobs, honor_labels=False, rule_files=rule_files))
        yield Cluster(pods, redis, prometheus, running)


def _start_pod(
    running: ExitStack,
    folder: Path,
    name: str,
    flavour: FlavourName,
    *,
    load: float,
    seed: int,
    services: Mapping[str, str],
) -> Pod:
    alone = running.enter_context(ExitStack())
    engine = alone.enter_context(Engine(flavour=flavour, model=_MODELS[flavour], load=load, seed=seed))
    publisher = running.enter_context(KvPublisher(form(_EVENTS[flavour])))
    identity = ("--pod", f"{name}.{NAMESPACE}", "--model", _MODELS[flavour])
    places = _places(folder) if services else ()
    variables = {**services, **_events(publisher)} if services else {}
    runtime = running.enter_context(Runtime(engine.url, *identity, *places, engine=flavour, variables=variables))
    activity = running.enter_context(ExitStack())
    pod = Pod(name, flavour, _MODELS[flavour], engine, runtime, publisher, alone, activity)
    if load:
        _keep_busy(activity, pod, folder, seed)
    return pod


def _places(folder: Path) -> tuple[str, ...]:
    """Return where models and adapters go, and which adapter there is from the start."""
    models = folder / "models"
    models.mkdir()
    return (
        *("--write-root", str(models), "--lora-dir", str(models / "adapters"), "--reconcile-interval", "1"),
        *("--model-config", str(_model_config(folder))),
    )


def _events(publisher: KvPublisher) -> dict[str, str]:
    return {"KV_EVENTS_ENDPOINT": publisher.endpoint, "KV_EVENTS_REPLAY_ENDPOINT": publisher.replay_endpoint}


def _keep_busy(activity: ExitStack, pod: Pod, folder: Path, seed: int) -> None:
    adapters = folder / "adapters"
    make_adapter(adapters / "chat")
    for work in (
        partial(publish_events, pod.publisher, seed),
        partial(use_adapters, pod.runtime, adapters, seed, broken=seed == 0),
        partial(download_models, pod.runtime, folder / "models"),
    ):
        activity.enter_context(Worker(f"{pod.name}-{work.func.__name__}", work))


def _model_config(folder: Path) -> Path:
    """Write the Model that the pod belongs to, with an adapter."""
    source = make_adapter(folder / "adapters" / "sql")
    backend = {"name": "backend", "loraAdapters": [{"name": "sql", "artifactURL": f"pvc://{source}"}]}
    path = folder / "model.yaml"
    # JSON is YAML.
    path.write_text(json.dumps({"kind": "Model", "spec": {"backends": [backend]}}))
    return path


def _target(pod: Pod) -> Target:
    """Return the target with the labels that deploy/prometheus.yml gives."""
    return Target(pod.runtime.url, {"namespace": NAMESPACE, "pod": pod.name})


@contextlib.contextmanager
def _slow_hub() -> Iterator[Hub]:
    with Hub() as hub, BadProxy(hub.cdn_netloc) as proxy:
        hub.cdn_url = proxy.url
        slow_down(proxy, seconds=_PAUSE_SECONDS)
        shards = {f"model-{number}.safetensors": bytes([number]) * _SHARD_BYTES for number in range(_SHARDS)}
        hub.create(MODEL).commit({"config.json": json.dumps({"model_type": "demo"}).encode(), **shards})
        yield hub


@contextlib.contextmanager
def _router(pods: Sequence[Pod], load: float) -> Iterator[str]:
    pages = {_ROUTER_PAGE: b""}
    models = {pod.model: round(load) for pod in pods}
    with PageServer(pages) as server, Worker("router", partial(route_requests, pages, _ROUTER_PAGE, models)):
        yield server.url
