"""The stage of the KV benchmark: an engine's page, a Redis, and a runtime between a publisher and both."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from threading import Event, Thread
from time import sleep, time
from typing import TYPE_CHECKING, Final
from urllib.request import urlopen

from bench import peers
from bench.client import Scraper
from bench.kv_blocks import POD
from bench.kv_worker import Worker
from bench.peers import RUNTIME
from bench.process import HOST, Process, free_port
from simulators.reading import samples
from simulators.redis import RedisServer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from bench.kv_blocks import Load

__all__ = ["Run", "Stage", "Subject", "stage"]

PAGE: Final = "/small"
# What the runtime has in Redis besides the router's keys: the set that remembers them.
_OWN_KEYS: Final = 1
_LOOK: Final = 0.001
_SCRAPE_PAUSE: Final = 0.01
_LONGEST: Final = 120.0


@dataclass(frozen=True, slots=True)
class Run:
    """A load on its way into Redis.

    Attributes:
        first: When the first message was sent, unix seconds.
        seen: When Redis was looked at, and how many blocks it had.
        cpu: CPU seconds of the runtime.
    """

    first: float
    seen: list[tuple[float, int]]
    cpu: float

    @property
    def seconds(self) -> float:
        """From the first message to the last field."""
        return self.seen[-1][0] - self.first

    def lags(self, times: Iterable[float], per_event: int) -> list[float]:
        """Return for each message, sent at these times, how long its blocks took into Redis; as precise as the looks."""
        looks = iter(self.seen)
        at, count = next(looks)
        lags = []
        for place, sent in enumerate(times, 1):
            while count < place * per_event:
                at, count = next(looks)
            lags.append(at - sent)
        return lags


class Subject:
    """A runtime that listens to a publisher.

    Attributes:
        runtime: The console script.
        publisher: The engine's side.
    """

    def __init__(self, runtime: Process, publisher: Worker, redis: RedisServer) -> None:
        self.runtime = runtime
        self.publisher = publisher
        self._redis = redis

    def load(self, *loads: Load) -> None:
        """Let the publisher build messages."""
        for load in loads:
            self.publisher.ask("load", **asdict(load))

    def run(self, load: Load, *, rate: float | None = None) -> Run:
        """Send a load and wait until all of it is in Redis."""
        before = self.runtime.cpu()
        self.begin(load, rate=rate)
        seen = self.watch(load.blocks)
        cpu = self.runtime.cpu() - before
        return Run(self.publisher.hear()["first"], seen, cpu)

    def begin(self, load: Load, *, rate: float | None = None, times: float = 1) -> None:
        """Send a load; the publisher's answer tells when the first and the last message went."""
        self.publisher.tell("play", rate=rate, times=times, **asdict(load))

    def clear(self) -> Run:
        """Let the engine forget all blocks, and wait until Redis has none."""
        before, started = self.runtime.cpu(), time()
        self.publisher.ask("clear")
        seen = self.watch(0)
        return Run(started, seen, self.runtime.cpu() - before)

    def watch(self, blocks: int, *, seconds: float = _LONGEST, slack: int = 0) -> list[tuple[float, int]]:
        """Look at Redis until it has so many blocks, `slack` more or less; return what was seen.

        Raises:
            RuntimeError: It never comes to that.
        """
        seen = [(time(), self.size())]
        while abs(seen[-1][1] - blocks) > slack:
            if seen[-1][0] - seen[0][0] > seconds:
                message = f"Redis has {seen[-1][1]} blocks, not {blocks}, after {seconds:g} s: {self.runtime.log()}"
                raise RuntimeError(message)
            sleep(_LOOK)
            seen.append((time(), self.size()))
        return seen

    def size(self) -> int:
        """Return how many blocks Redis has."""
        return int(self._redis.client.dbsize()) - _OWN_KEYS

    def differences(self, keys: Collection[str]) -> tuple[int, int]:
        """Return how many of `keys` Redis lacks, and how many it has besides."""
        held = self._redis.keys_of(POD)
        return len(set(keys) - held), len(held - set(keys))

    def samples(self) -> dict[str, float]:
        """Return the series on the runtime's page."""
        with urlopen(f"http://{HOST}:{self.runtime.port}/metrics", timeout=60) as answer:
            return samples(answer.read().decode())

    @contextmanager
    def scraping(self) -> Iterator[list[float]]:
        """Scrape again and again meanwhile; the list gets the seconds that each scrape took."""
        latencies: list[float] = []
        over = Event()

        def scrape() -> None:
            with Scraper(self.runtime.port, "/metrics") as scraper:
                while not over.is_set():
                    latencies.append(scraper.scrape())
                    over.wait(_SCRAPE_PAUSE)

        thread = Thread(target=scrape)
        thread.start()
        try:
            yield latencies
        finally:
            over.set()
            thread.join()


@dataclass(frozen=True, slots=True)
class Stage:
    """What all measurements share.

    Attributes:
        engine: Serves the page that the runtime scrapes.
        redis: A server without persistence.
    """

    engine: Process
    redis: RedisServer

    @contextmanager
    def subject(self, *, mark: int = 100_000, steps: int = 10_000) -> Iterator[Subject]:
        """Run a runtime and its publisher, until they know each other.

        Args:
            mark: The publisher's high-water mark [vLLM: 100,000].
            steps: How many messages it keeps for replays [vLLM: 10,000].
        """
        port, replay_port = free_port(), free_port()
        variables = {
            "REDIS_HOST": HOST,
            "REDIS_PORT": str(self.redis.port),
            "KV_EVENTS_ENDPOINT": f"tcp://{HOST}:{port}",
            "KV_EVENTS_REPLAY_ENDPOINT": f"tcp://{HOST}:{replay_port}",
        }
        with ExitStack() as running:
            publisher = running.enter_context(Worker("bench.kv_publisher", port, replay_port, mark, steps))
            runtime = running.enter_context(peers.program(RUNTIME, self.engine.port, PAGE, variables))
            runtime.wait_for("/health")
            publisher.ask("subscribed")
            subject = Subject(runtime, publisher, self.redis)
            subject.watch(0)
            yield subject


@contextmanager
def stage() -> Iterator[Stage]:
    """Start the engine's page and Redis."""
    with peers.engine([PAGE.removeprefix("/")]) as engine, RedisServer() as redis:
        engine.wait_for("/health")
        yield Stage(engine, redis)
