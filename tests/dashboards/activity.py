"""What goes on around the pods of a stage: cache events, adapters that come and go, downloads, a router that looks."""

from __future__ import annotations

import itertools
import random
import threading
from time import time
from typing import TYPE_CHECKING, Any, Final

import requests

from simulators.kv.frames import Remove, Store
from simulators.misbehaving.proxy_faults import resets, throttles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from simulators.kv.publisher import KvPublisher
    from simulators.misbehaving.proxy import BadProxy
    from tests.harness.runtime import Runtime

__all__ = ["MODEL", "Worker", "download_models", "publish_events", "route_requests", "slow_down", "use_adapters"]

# The repository that is downloaded again and again.
MODEL: Final = "org/model"

_EVENT_SECONDS: Final = 0.1
_STORED_BLOCKS: Final = range(4, 24)
_CACHE_BLOCKS: Final = 4000
_ADAPTER_SECONDS: Final = (1.0, 5.0)
_MATCH_BOUNDS: Final = ("0.0", "0.25", "0.5", "0.75", "1.0", "+Inf")
_UNDER_WAY: Final = frozenset({"queued", "running"})
_RESET_REQUESTS: Final = range(5, 500, 9)


class Worker(threading.Thread):
    """Does one thing after another until its ``with`` block ends."""

    def __init__(self, name: str, work: Callable[[threading.Event], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._stopping = threading.Event()
        self._work = work

    def run(self) -> None:
        self._work(self._stopping)

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.join(timeout=30)
        assert not self.is_alive(), f"{self.name} does not end"


def publish_events(publisher: KvPublisher, seed: int, stopping: threading.Event) -> None:
    """Store blocks of prompts and evict the oldest, as a full cache does."""
    chance = random.Random(seed)
    publisher.wait_for_subscriber()
    held: list[int] = []
    # A block in the memory of the CPU is left out of the index.
    offloaded = Store([1], range(16), medium="CPU")
    while not stopping.wait(_EVENT_SECONDS * chance.uniform(0.5, 1.5)):
        blocks = [chance.getrandbits(63) for _ in range(chance.choice(_STORED_BLOCKS))]
        stored = Store(blocks, [chance.randrange(32_000) for _ in range(16 * len(blocks))])
        held += blocks
        evicted, held = held[: max(0, len(held) - _CACHE_BLOCKS)], held[-_CACHE_BLOCKS:]
        happenings = [stored, Remove(evicted), offloaded] if evicted else [stored]
        publisher.publish_payload(publisher.form.batch(*happenings, ts=time()))


def use_adapters(runtime: Runtime, folder: Path, seed: int, stopping: threading.Event, *, broken: bool) -> None:
    """Load an adapter and unload it, again and again; with `broken`, ask for one that is not there, too."""
    chance = random.Random(seed)
    while not stopping.wait(chance.uniform(*_ADAPTER_SECONDS)):
        if broken:
            # Not from the start: Prometheus is to see each failure come.
            _post(runtime, "/v1/load_lora_adapter", _adapter(folder, "lost") | {"async_download": True})
            broken = False
        _post(runtime, "/v1/load_lora_adapter", _adapter(folder, "chat"))
        if stopping.wait(chance.uniform(*_ADAPTER_SECONDS)):
            return
        _post(runtime, "/v1/unload_lora_adapter", {"lora_name": "chat"})
        _ask(runtime, "GET", "/ready")


def download_models(runtime: Runtime, folder: Path, stopping: threading.Event) -> None:
    """Download a model from the Hub into one directory after another, and each from there to a second place."""
    for number in itertools.count():
        if stopping.is_set():
            return
        target = folder / f"copy-{number}"
        _download(runtime, MODEL, target, stopping)
        _download(runtime, f"pvc://{target}", folder / f"second-{number}", stopping)


def slow_down(proxy: BadProxy, *, seconds: float) -> None:
    """Let downloads take their time, and break off now and then."""
    for request in _RESET_REQUESTS:
        proxy.misbehave(resets(after=500_000), skip=request, times=1)
    proxy.misbehave(throttles(seconds=seconds))


def route_requests(pages: dict[str, bytes], path: str, models: Mapping[str, int], stopping: threading.Event) -> None:
    """Count requests as the router does: of each model's, how much of the prompt some pod had in its cache."""
    chance = random.Random(0)
    counts = {model: [0] * len(_MATCH_BOUNDS) for model in models}
    while True:
        for model, requests_per_second in models.items():
            for _ in range(requests_per_second):
                ratio = chance.choice((0.0, 0.2, 0.6, 0.8, 0.9))
                counts[model] = [
                    count + (ratio <= float(bound)) for count, bound in zip(counts[model], _MATCH_BOUNDS, strict=True)
                ]
        pages[path] = _router_page(counts)
        if stopping.wait(1.0):
            return


def _router_page(counts: Mapping[str, list[int]]) -> bytes:
    name = "kthena_router_kvcache_aware_match_ratio"
    lines = [f"# HELP {name} Share of a prompt that a pod has in its cache.", f"# TYPE {name} histogram"]
    for model, buckets in counts.items():
        lines += [
            f'{name}_bucket{{model="{model}",le="{bound}"}} {count}'
            for bound, count in zip(_MATCH_BOUNDS, buckets, strict=True)
        ]
        lines += [f'{name}_sum{{model="{model}"}} {buckets[-1] / 2}', f'{name}_count{{model="{model}"}} {buckets[-1]}']
    return "\n".join([*lines, ""]).encode()


def _adapter(folder: Path, name: str) -> dict[str, Any]:
    return {"lora_name": name, "source": f"pvc://{folder / name}"}


def _download(runtime: Runtime, source: str, target: Path, stopping: threading.Event) -> None:
    body = {"source": source, "output_dir": str(target), "async_download": True}
    place = _post(runtime, "/v1/download_model", body).headers["Location"]
    while _ask(runtime, "GET", place).json()["state"] in _UNDER_WAY and not stopping.wait(0.5):
        pass


def _post(runtime: Runtime, path: str, body: Mapping[str, Any]) -> requests.Response:
    return _ask(runtime, "POST", path, json=body)


def _ask(runtime: Runtime, method: str, path: str, **options: Any) -> requests.Response:
    # A session of its own: the runtime's belongs to the thread that started it.
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, runtime.url + path, timeout=60, **options)
