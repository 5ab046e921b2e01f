"""What is measured of KV events; each function brings up what it needs on the stage, and returns figures."""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from math import ceil, inf
from statistics import median
from time import sleep, time
from typing import TYPE_CHECKING, Final

from bench.footprint import Idle, idle
from bench.kv_blocks import Load
from bench.kv_worker import Worker
from bench.peers import RUNTIME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.kv_stage import Stage, Subject

__all__ = ["BARE", "DECODE", "SHAPES", "Effort", "Lag", "Loss", "Memory", "Outage", "Rest", "Speed"]
__all__ += ["lag", "loss", "memory", "outage", "rest", "scrapes", "speed"]

BARE: Final = "bare pipeline"
DECODE: Final = "bare pipeline + decode"
REMOVE: Final = "runtime, removing"
SHAPES: Final = {"events of 32": 32, "events of 1": 1}

_PREFIX: Final = "kthena_runtime_kv_"
_FLOOR_DATABASE: Final = 1
# Until the runtime has given back what a burst took.
_CALM: Final = 2.0


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done to measure; all seconds and blocks.

    Attributes:
        rounds: How often the runtime and the floor take turns.
        blocks: Of a round.
        paced: At which rate the lag is measured, and for how long.
        memory: For how many blocks memory is measured.
        burst: Single blocks sent past a high-water mark of 1,000.
        room: What the engine of the outages has room for.
        outage: How long Redis is away, and how long events go on after that.
        idle: How long nothing happens.
    """

    rounds: int = 7
    blocks: int = 64_000
    paced: tuple[int, float] = (10_000, 8.0)
    memory: int = 100_000
    burst: int = 50_000
    room: int = 48_000
    outage: tuple[float, float] = (30.0, 15.0)
    idle: float = 30.0


@dataclass(frozen=True, slots=True)
class Speed:
    """Blocks a second, and CPU seconds a block."""

    rate: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Lag:
    """Seconds from the batch's time until it is in the ledger, and until its blocks are in Redis."""

    ledger: tuple[float, float]
    redis: tuple[float, float]
    cpu_percent: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident megabytes (10^6 bytes) of the runtime."""

    start: float
    per_100_000: float
    peak: float


@dataclass(frozen=True, slots=True)
class Loss:
    """A burst past the publisher's high-water mark."""

    sent: int
    seconds: float
    gaps: int
    replayed: int
    lost: int
    missing: int
    scrapes: Sequence[float]


@dataclass(frozen=True, slots=True)
class Outage:
    """Redis in trouble under load.

    Attributes:
        caught_up: Seconds from Redis's return until it had what the engine holds, while events went on.
        settled: Seconds from the last message until both were equal.
        missing: Blocks that Redis lacks after that.
        surplus: Blocks that it has and should not.
        before: Resident megabytes of the runtime before.
        peak: The most it ever had.
    """

    caught_up: float
    settled: float
    missing: int
    surplus: int
    before: float
    peak: float


@dataclass(frozen=True, slots=True)
class Rest:
    """A silent engine and a Redis that has nothing to do."""

    memory: float
    idle: Idle


@dataclass(slots=True)
class _Series:
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, blocks: int, seconds: float, cpu: float) -> None:
        self.rates.append(blocks / seconds)
        self.cpu.append(cpu / blocks)

    def figures(self) -> Speed:
        return Speed(median(self.rates), median(self.cpu))


def speed(stage: Stage, effort: Effort) -> dict[str, dict[str, Speed]]:
    """Let the runtime and the floor take turns; return the figures by shape and name."""
    loads = {shape: Load(effort.blocks, per_event) for shape, per_event in SHAPES.items()}
    series: dict[str, dict[str, _Series]] = {shape: defaultdict(_Series) for shape in loads}
    with ExitStack() as running:
        floor = running.enter_context(Worker("bench.kv_floor", stage.redis.port, _FLOOR_DATABASE))
        subject = running.enter_context(stage.subject())
        subject.load(*loads.values())
        for load in loads.values():
            floor.ask("load", **asdict(load))
            _warm_up(subject, floor, load)
        for _ in range(effort.rounds):
            for shape, load in loads.items():
                _turn(subject, floor, load, series[shape])
    return {shape: {name: one.figures() for name, one in found.items()} for shape, found in series.items()}


def _warm_up(subject: Subject, floor: Worker, load: Load) -> None:
    subject.run(load)
    if any(subject.differences(load.keys())):
        message = "Redis does not have what the engine sent"
        raise RuntimeError(message)
    subject.clear()
    floor.ask("run", decode=True, **asdict(load))


def _turn(subject: Subject, floor: Worker, load: Load, series: Mapping[str, _Series]) -> None:
    run = subject.run(load)
    series[RUNTIME].add(load.blocks, run.seconds, run.cpu)
    run = subject.clear()
    series[REMOVE].add(load.blocks, run.seconds, run.cpu)
    for name, decode in [(BARE, False), (DECODE, True)]:
        took = floor.ask("run", decode=decode, **asdict(load))
        series[name].add(load.blocks, took["seconds"], took["cpu"])


def scrapes(stage: Stage, effort: Effort) -> dict[str, list[float]]:
    """Scrape while blocks come at full speed; return the seconds of each scrape by shape."""
    found: dict[str, list[float]] = {}
    with stage.subject() as subject:
        for shape, per_event in SHAPES.items():
            load = Load(effort.blocks, per_event)
            subject.load(load)
            found[shape] = []
            for _ in range(effort.rounds):
                with subject.scraping() as latencies:
                    subject.run(load)
                found[shape] += latencies
                subject.clear()
    return found


def lag(stage: Stage, effort: Effort) -> dict[str, Lag]:
    """Pace the blocks; return how late they are, by shape."""
    rate, seconds = effort.paced
    found = {}
    for shape, per_event in SHAPES.items():
        load = Load(int(rate * seconds) // per_event * per_event, per_event)
        with stage.subject() as subject:
            subject.load(load)
            run = subject.run(load, rate=rate)
            ledger = _quantile(subject.samples(), 0.5), _quantile(subject.samples(), 0.99)
            lags = sorted(run.lags(subject.publisher.ask("times")["times"], per_event))
            redis = lags[len(lags) // 2], lags[ceil(0.99 * len(lags)) - 1]
            found[shape] = Lag(ledger, redis, 100 * run.cpu / run.seconds)
            subject.clear()
    return found


def _quantile(samples: Mapping[str, float], share: float) -> float:
    """Return a quantile of the runtime's lag as PromQL's histogram_quantile does."""
    name = f'{_PREFIX}event_lag_seconds_bucket{{le="'
    buckets = sorted(
        (float(series[len(name) : -2]), count) for series, count in samples.items() if series.startswith(name)
    )
    wanted = share * buckets[-1][1]
    below, before = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            return below if bound == inf else below + (bound - below) * (wanted - before) / (count - before)
        below, before = bound, count
    raise AssertionError


def memory(stage: Stage, effort: Effort) -> dict[str, Memory]:
    """Return what a runtime takes and how much it grows with its blocks, by shape."""
    found = {}
    for shape, per_event in SHAPES.items():
        load = Load(effort.memory, per_event)
        with stage.subject() as subject:
            subject.load(load)
            start = subject.runtime.resident()
            subject.run(load)
            sleep(_CALM)
            grown = (subject.runtime.resident() - start) * 100_000 / load.blocks
            found[shape] = Memory(start / 1e6, grown / 1e6, subject.runtime.peak() / 1e6)
            subject.clear()
    return found


def loss(stage: Stage, effort: Effort) -> Loss:
    """Send single blocks faster than a small high-water mark lets through; the publisher can replay all."""
    load = Load(effort.burst, 1)
    with stage.subject(mark=1000, steps=2 * effort.burst) as subject:
        subject.load(load)
        with subject.scraping() as latencies:
            run = subject.run(load)
        missing, _ = subject.differences(load.keys())
        samples = subject.samples()
        subject.clear()
    gaps, replayed, lost = (
        int(samples[_PREFIX + name])
        for name in ("event_gaps_total", "events_replayed_total", 'events_dropped_total{reason="lost"}')
    )
    return Loss(load.blocks, run.seconds, gaps, replayed, lost, missing, latencies)


def outage(stage: Stage, effort: Effort, *, killed: bool) -> Outage:
    """Kill Redis for a while, or empty it, while the engine stores and removes blocks all the time."""
    rate, per_event = 20_000, 32
    away, after = effort.outage
    load = Load(2 * effort.room, per_event, keep=effort.room)
    lead = effort.room / rate + 1
    seconds = lead + (away if killed else 0) + after
    with stage.subject() as subject:
        subject.load(load)
        subject.begin(load, rate=rate, times=seconds * rate / load.blocks)
        sleep(lead)
        before = subject.runtime.resident()
        back = _trouble(stage, away if killed else None)
        caught_up = subject.watch(effort.room, slack=effort.room // 20)[-1][0] - back
        played = subject.publisher.hear()
        settled = subject.watch(effort.room)[-1][0] - played["last"]
        missing, surplus = subject.differences(_held(load, played["messages"]))
        peak = subject.runtime.peak()
        subject.clear()
    return Outage(caught_up, max(settled, 0.0), missing, surplus, before / 1e6, peak / 1e6)


def _trouble(stage: Stage, away: float | None) -> float:
    """Empty Redis, or kill it and start it again; return when it was back."""
    if away is None:
        stage.redis.client.flushall()
    else:
        stage.redis.kill()
        sleep(away)
        stage.redis.start()
    return time()


def _held(load: Load, messages: int) -> set[str]:
    """Return the keys that an engine holds which played so many messages of a load."""
    keys, last = load.keys(), messages * load.per_event
    return {keys[place % load.blocks] for place in range(last - load.keep, last)}


def rest(stage: Stage, effort: Effort) -> Rest:
    """Leave a runtime alone."""
    with stage.subject() as subject:
        resident = subject.runtime.resident() / 1e6
        return Rest(resident, idle({RUNTIME: subject.runtime}, effort.idle)[RUNTIME])
