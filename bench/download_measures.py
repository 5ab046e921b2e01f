"""What is measured of downloads: sets from a store and from a volume, and what a runtime feels of them."""

from __future__ import annotations

import json
import mmap
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from threading import Event, Thread
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any, Final
from urllib.request import Request, urlopen

from bench import download_peers, peers
from bench.client import Scraper
from bench.download_sets import LORA, MODEL, remove
from bench.download_stage import SEAWEEDFS
from bench.download_usage import Usage, calm, children_cpu, family, watched
from bench.peers import RUNTIME
from bench.process import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.download_peers import Peer, Store
    from bench.download_sets import FileSet
    from bench.download_stage import Effort, Stage
    from bench.process import Process

__all__ = [
    "DOWNLOAD",
    "IDLE",
    "ROUTE",
    "Calls",
    "Growth",
    "adapter",
    "model",
    "neighbour",
    "sidecar",
    "volume",
]

ROUTE: Final = "POST /v1/download_model"
IDLE: Final = "nothing"
DOWNLOAD: Final = "the runtime downloads"

_PAGE: Final = "/medium"
_SHARES: Final = 5
_LEAST: Final = 19
_WARM_BYTES: Final = 6_000_000_000


@dataclass(frozen=True, slots=True)
class Calls:
    """Scrapes beside a load, in turns with other loads.

    Attributes:
        turns: Of each, the seconds of its scrapes from when each was due.
    """

    turns: Sequence[Sequence[float]]

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(map(len, self.turns))

    @property
    def middle(self) -> float:
        """The median of the turns' medians."""
        return median(map(median, self.turns))

    @property
    def p99(self) -> float:
        """What one in a hundred takes longer than, as the median of the turns: others disturb some of them."""
        return median(quantiles(turn, n=100)[98] for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Growth:
    """Megabytes of the sidecar before and after downloads."""

    before: float
    after: float


def model(place: Stage, server: str, effort: Effort, *, without: Sequence[str]) -> dict[str, list[Usage]]:
    """Fetch the model from a store with everybody who can be had."""
    store = place.stores[server]
    clients = [peer for peer in download_peers.stores(store, place.home) if peer.name not in without]
    bring = partial(_bring, place.sets[MODEL], place.copies / "copy", store.server)
    return _turns(clients, effort, bring)


def adapter(place: Stage, effort: Effort, *, without: Sequence[str]) -> dict[str, list[Usage]]:
    """Fetch the adapter from the real store with everybody who can be had, and by way of a runtime."""
    store = place.stores[SEAWEEDFS]
    clients = [peer for peer in download_peers.stores(store, place.home) if peer.name not in without]
    with _runtime(store, effort) as route:
        bring = partial(_bring, place.sets[LORA], place.copies / "copy", store.server)
        return _turns([*clients, route], effort, bring)


def volume(place: Stage, effort: Effort, *, without: Sequence[str]) -> dict[str, list[Usage]]:
    """Copy the model within one file system, everything in the page cache."""
    ways = [peer for peer in download_peers.volumes(place.home) if peer.name not in without]
    bring = partial(_bring, place.sets[MODEL], place.volume / "copy", None, fresh=effort.careful)
    return _turns(ways, effort, bring)


def _turns(
    ways: Sequence[Peer | _Route], effort: Effort, bring: Callable[[Peer | _Route], Usage]
) -> dict[str, list[Usage]]:
    """Let them take turns, and once before that: it fills caches."""
    usages: dict[str, list[Usage]] = {way.name: [] for way in ways}
    for way in ways if effort.careful else ():
        bring(way)
    for _ in range(effort.rounds):
        for way in ways:
            measure = partial(bring, way)
            usages[way.name].append(calm(measure) if effort.careful else measure())
    return usages


def _bring(files: FileSet, to: Path, server: int | None, way: Peer | _Route, *, fresh: bool = False) -> Usage:
    """Make one copy and check it."""
    if fresh:
        _fresh_memory()
    usage = way.run(files, to, server)
    files.check(to)
    remove(to)
    return usage


def _fresh_memory() -> None:
    # A virtual machine gives free memory back to its host, and to get it again takes longer than a copy does.
    os.sync()
    size = min(_WARM_BYTES, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") // 2)
    with mmap.mmap(-1, size) as memory:
        for at in range(0, size, mmap.PAGESIZE):
            memory[at] = 1


class _Route:
    """A runtime that downloads; its workers are started cold."""

    name = ROUTE

    def __init__(self, runtime: Process, source: Callable[[FileSet], str]) -> None:
        self.runtime = runtime
        self._source = source

    def run(self, files: FileSet, to: Path, server: int | None = None) -> Usage:
        """Download a set, and answer when it is there; memory is that of the workers."""
        del server
        cpu = self.runtime.cpu() + children_cpu(self.runtime.pid)
        started = perf_counter()
        with watched(lambda: family(self.runtime.pid)[1:]) as memory:
            state = self.ask(files, to)["state"]
            wall = perf_counter() - started
        if state != "done":
            message = f"the download is {state}: {self.runtime.log()}"
            raise RuntimeError(message)
        cpu = self.runtime.cpu() + children_cpu(self.runtime.pid) - cpu
        return Usage(wall, cpu, memory.tree, memory.largest)

    def ask(self, files: FileSet, to: Path, **more: object) -> dict[str, Any]:
        """Ask for a download; return what is said of it."""
        body = {"source": self._source(files), "output_dir": str(to), **more}
        found: dict[str, Any] = self._call("/v1/download_model", json.dumps(body).encode())["download"]
        return found

    def state(self, job: str) -> str:
        """Return the state of a download."""
        return str(self._call(f"/v1/downloads/{job}")["state"])

    def _call(self, path: str, body: bytes | None = None) -> dict[str, Any]:
        request = Request(f"http://{HOST}:{self.runtime.port}{path}", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=600) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


@contextmanager
def _runtime(store: Store, effort: Effort) -> Iterator[_Route]:
    """Run a runtime before an engine's page."""
    with peers.engine([_PAGE.removeprefix("/")]) as engine:
        engine.wait_for("/health")
        more = {} if effort.careful else {"worker-nice": "0"}
        with peers.program(RUNTIME, engine.port, _PAGE, store.pod(), more) as runtime:
            runtime.wait_for("/health")
            yield _Route(runtime, lambda files: store.uri(files.name))


def neighbour(place: Stage, effort: Effort, *, without: Sequence[str]) -> dict[str, Calls]:
    """Scrape while nothing happens, while the runtime downloads, and while others do: what the machine itself costs."""
    files, to, store = place.sets[MODEL], place.copies / "copy", place.stores[SEAWEEDFS]
    loads: dict[str, Callable[[_Route], None]] = {
        IDLE: lambda _route: sleep(0.5),
        DOWNLOAD: partial(_download, files, to),
    }
    for peer in download_peers.stores(store, place.home):
        if peer.name in (download_peers.RCLONE, download_peers.FLOOR) and peer.name not in without:
            loads[peer.name] = partial(_run_beside, peer, files, to)
    turns: dict[str, list[list[float]]] = {name: [] for name in loads}
    if effort.careful:
        _step_back(store.server)
    with _runtime(store, effort) as route, Scraper(route.runtime.port, "/metrics") as scraper:
        for _ in range(20):
            scraper.scrape()
        for _ in range(_SHARES):  # in turns: what else the machine does changes
            for name, load in loads.items():
                turns[name].append(_beside(partial(load, route), scraper, effort, to))
    return {name: Calls(each) for name, each in turns.items()}


def _step_back(server: int) -> None:
    """Let the store take what others leave, for good: it is on another machine in truth."""
    for thread in Path(f"/proc/{server}/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(thread.name), _LEAST)
    with suppress(OSError):  # where the kernel schedules sessions as groups
        Path(f"/proc/{server}/autogroup").write_text(str(_LEAST))


def _run_beside(peer: Peer, files: FileSet, to: Path, _route: _Route) -> None:
    peer.run(files, to)


def _download(files: FileSet, to: Path, route: _Route) -> None:
    job = route.ask(files, to, async_download=True)["id"]
    while (state := route.state(job)) not in ("done", "failed", "cancelled"):
        sleep(0.25)
    if state != "done":
        message = f"the download is {state}: {route.runtime.log()}"
        raise RuntimeError(message)


def _beside(load: Callable[[], object], scraper: Scraper, effort: Effort, to: Path) -> list[float]:
    """Scrape at a steady rate while a load runs, again and again if it is short; from when each scrape was due."""
    running, over, failures = Event(), Event(), []

    def work() -> None:
        try:
            while not over.is_set():
                running.set()
                load()
                running.clear()
                remove(to)
        except Exception as failure:  # noqa: BLE001 - a thread's outermost frame: raised below
            failures.append(failure)

    thread = Thread(target=work)
    thread.start()
    seconds: list[float] = []
    due = perf_counter()
    while len(seconds) < effort.scrapes // _SHARES and not failures:
        due += 1 / effort.rate
        sleep(max(due - perf_counter(), 0.0))
        before = running.is_set()
        scraper.scrape()
        if before and running.is_set():
            seconds.append(perf_counter() - due)
    over.set()
    thread.join()
    remove(to)
    if failures:
        raise failures[0]
    return seconds


def sidecar(place: Stage, effort: Effort) -> Growth:
    """Let a runtime fetch adapters, one after the other, and see what stays in its memory."""
    files, to, store = place.sets[LORA], place.copies / "copy", place.stores[SEAWEEDFS]
    with _runtime(store, effort) as route:
        with Scraper(route.runtime.port, "/metrics") as scraper:
            scraper.scrape()
        before = route.runtime.resident() / 1e6
        for _ in range(effort.downloads):
            route.run(files, to)
            remove(to)
        return Growth(before, route.runtime.resident() / 1e6)
