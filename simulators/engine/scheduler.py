"""A continuous-batching scheduler, small but with the real one's consequences.

Nothing here reads a clock. Time is a number that `Scheduler.advance` moves on, so the same seed
gives the same queues and latencies whether a second takes a second or none.

The numbers agree with each other because they come from one model: a burst fills the batch, the
queue grows, time to first token follows the queue, longer steps stretch inter-token latency, and
a full KV cache preempts the youngest request.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from simulators.engine.traffic import Request, Traffic

_TOKENS_PER_STEP = 2048
_STEP_SECONDS = 0.018
_SECONDS_PER_DECODE = 0.0001
_SECONDS_PER_PREFILL_TOKEN = 0.00002

# What a request costs on average, measured over `Traffic`: it sizes the batch so that a load of
# any height keeps the engine busy. The headroom is above the crest of the wave with its bursts, so
# that a burst overruns the engine and the queue is gone before long: at 1.3 it grew for minutes.
_MEAN_OUTPUT_TOKENS = 155
_MEAN_COMPUTED_TOKENS = 480
_MEAN_HELD_BLOCKS = 40
_HEADROOM = 1.7
_LOAD_OF_ONE_GPU = 16.0
_LOAD_WHEN_IDLE = 8.0
_SMALLEST_BATCH = 8


@dataclass(frozen=True, slots=True)
class Step:
    """What one forward pass did."""

    now: float
    seconds: float
    prefilled: int
    decoded: int


class Observer(Protocol):
    """Whoever turns what happens in the scheduler into metrics."""

    def on_scheduled(self, request: Request) -> None:
        """Note that `request` entered the batch for the first time."""

    def on_first_token(self, request: Request) -> None:
        """Note the end of a prefill."""

    def on_token(self, request: Request, seconds: float) -> None:
        """Note a further token, `seconds` after the one before."""

    def on_preempted(self, request: Request) -> None:
        """Note that `request` lost its blocks and waits again."""

    def on_finished(self, request: Request) -> None:
        """Note that `request` left the engine."""

    def on_step(self, step: Step, scheduler: Scheduler) -> None:
        """Note the end of a forward pass."""


class Scheduler:
    """Continuous batching: waiting requests join the running ones as room allows.

    Not thread-safe: the engine calls it under its lock.
    """

    def __init__(self, traffic: Traffic, observer: Observer, *, load: float, seed: int) -> None:
        """Size the batch and the KV cache so that `load` requests per second nearly fill them."""
        self.now = 0.0
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.max_running, self._speed = _capacity(load)
        self.total_blocks = self.max_running * _MEAN_HELD_BLOCKS * 5 // 4
        self.max_adapters = 2
        self._traffic = traffic
        self._observer = observer
        self._random = random.Random(seed)

    @property
    def used_blocks(self) -> int:
        """KV-cache blocks that running requests hold."""
        return sum(request.blocks for request in self.running)

    @property
    def deferred(self) -> int:
        """Waiting requests that no free place would help: their adapter has no slot."""
        active = self.active_adapters
        if len(active) < self.max_adapters:
            return 0
        return sum(1 for each in self.waiting if each.adapter and each.adapter not in active)

    @property
    def active_adapters(self) -> set[str]:
        """Names of the adapters that running requests use."""
        return {request.adapter for request in self.running if request.adapter}

    def submit(self, request: Request) -> None:
        """Put `request` at the end of the queue."""
        self.waiting.append(request)

    def advance(self, until: float) -> None:
        """Let time pass up to `until`, and on to the end of the step that is under way then."""
        while self.now < until:
            if not (self.waiting or self.running):
                self.now = min(until, max(self.now, self._traffic.next_arrival))
            while self._traffic.next_arrival <= self.now:
                self.submit(self._traffic.take())
            if self.waiting or self.running:
                self.step()

    def step(self) -> None:
        """Do one forward pass: a token for each decoding request, the rest of it prefill."""
        self._admit()
        self._make_room()
        decoding = [request for request in self.running if not request.to_prefill]
        chunks = self._prefill_chunks(_TOKENS_PER_STEP - len(decoding))
        prefilled = sum(chunk for _, chunk in chunks)
        seconds = self._duration(len(decoding), prefilled)
        self.now += seconds
        for request in decoding:
            self._decode(request)
        for request, chunk in chunks:
            request.to_prefill -= chunk
            if not request.to_prefill:
                self._begin_decoding(request)
        self.running = [each for each in self.running if each.generated < each.output]
        step = Step(self.now, seconds, prefilled, len(decoding))
        self._observer.on_step(step, self)

    def _admit(self) -> None:
        free = self.total_blocks - self.used_blocks
        active = self.active_adapters
        passed_over: deque[Request] = deque()
        while self.waiting and len(self.running) < self.max_running:
            request = self.waiting.popleft()
            if request.adapter and len(active | {request.adapter}) > self.max_adapters:
                passed_over.append(request)
                continue
            if request.blocks > free and self.running:
                self.waiting.appendleft(request)
                break
            free -= request.blocks
            if request.adapter:
                active.add(request.adapter)
            self._schedule(request)
        self.waiting.extendleft(reversed(passed_over))

    def _schedule(self, request: Request) -> None:
        request.to_prefill = request.prompt - request.cached + request.generated
        self.running.append(request)
        if request.scheduled < 0:
            request.scheduled = self.now
            self._observer.on_scheduled(request)

    def _make_room(self) -> None:
        while len(self.running) > 1 and self.used_blocks > self.total_blocks:
            request = self.running.pop()
            request.preemptions += 1
            self.waiting.appendleft(request)
            self._observer.on_preempted(request)

    def _prefill_chunks(self, budget: int) -> list[tuple[Request, int]]:
        chunks = []
        for request in self.running:
            chunk = min(request.to_prefill, budget)
            if chunk > 0:
                chunks.append((request, chunk))
                budget -= chunk
        return chunks

    def _duration(self, decoding: int, prefilled: int) -> float:
        seconds = _STEP_SECONDS + _SECONDS_PER_DECODE * decoding + _SECONDS_PER_PREFILL_TOKEN * prefilled
        return seconds / self._speed * self._random.uniform(0.85, 1.2)

    def _decode(self, request: Request) -> None:
        interval = self.now - request.last_token
        request.generated += 1
        request.last_token = self.now
        self._observer.on_token(request, interval)
        if request.generated >= request.output:
            self._observer.on_finished(request)

    def _begin_decoding(self, request: Request) -> None:
        if request.generated:
            self._decode(request)
            return
        request.generated = 1
        request.first_token = request.last_token = self.now
        self._observer.on_first_token(request)
        if request.output == 1:
            self._observer.on_finished(request)


def _capacity(load: float) -> tuple[int, float]:
    """Return the batch size and the speed of an engine that `load` keeps busy."""
    load = load if load > 0 else _LOAD_WHEN_IDLE
    speed = max(1.0, load / _LOAD_OF_ONE_GPU)
    load /= speed
    tokens = _HEADROOM * load * _MEAN_OUTPUT_TOKENS
    share = 1.0 - load * _MEAN_COMPUTED_TOKENS * _SECONDS_PER_PREFILL_TOKEN
    batch = _STEP_SECONDS * tokens / (share - _SECONDS_PER_DECODE * tokens)
    return max(_SMALLEST_BATCH, round(batch)), speed
