"""What users send: requests drawn from a seed, at a rate that waves and bursts."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BLOCK_TOKENS = 16
MAX_MODEL_LEN = 8192

_WAVE_SECONDS = 240.0
_WAVE_HEIGHT = 0.25
_BURST_HEIGHT = 2.6
_BURST_SECONDS = (3.0, 7.0)
_CALM_SECONDS = (15.0, 45.0)
_FIRST_BURST = (2.0, 6.0)
_PREFIX_TOKENS = (512, 768, 1024)
_TOKEN_LIMITS = (128, 256, 512, 1024)


@dataclass(slots=True, eq=False)
class Request:
    """One request, from its arrival to its last token. Times are in seconds."""

    arrived: float
    prompt: int
    cached: int
    output: int
    max_tokens: int
    reason: str
    streaming: bool
    adapter: str = ""
    scheduled: float = -1.0
    first_token: float = -1.0
    last_token: float = -1.0
    to_prefill: int = 0
    generated: int = 0
    preemptions: int = 0

    @property
    def blocks(self) -> int:
        """KV-cache blocks of its own; those of a shared prefix are not counted."""
        return -(-(self.prompt - self.cached + self.generated) // BLOCK_TOKENS)


class Traffic:
    """An open loop: requests arrive whether the engine keeps up or not."""

    def __init__(self, rate: float, *, seed: int, adapters: Callable[[], Sequence[str]] = tuple) -> None:
        """Draw requests at `rate` per second on average; 0 sends none."""
        self._rate = rate / _mean_height()
        self._random = random.Random(seed)
        self._adapters = adapters
        self._phase = self._random.uniform(0.0, math.tau)
        self._burst = _FIRST_BURST
        self._next = math.inf if rate <= 0 else self._gap(0.0)

    @property
    def next_arrival(self) -> float:
        """When the next request comes."""
        return self._next

    def take(self) -> Request:
        """Return the request that comes at `next_arrival`."""
        request = self.request(self._next)
        self._next += self._gap(self._next)
        return request

    def request(self, now: float) -> Request:
        """Draw one request: a prompt with a shared prefix as often as not, and its answer."""
        draw = self._random
        own = min(3000, int(draw.lognormvariate(5.3, 0.8)) + 8)
        prefix = draw.choice(_PREFIX_TOKENS)
        max_tokens = draw.choice(_TOKEN_LIMITS)
        wanted = int(draw.lognormvariate(4.9, 0.9)) + 1
        output, reason = (max_tokens, "length") if wanted >= max_tokens else (wanted, self._reason())
        if reason in {"abort", "error"}:
            output = draw.randint(1, output)
        return Request(
            arrived=now,
            prompt=prefix + own,
            cached=prefix if draw.random() < 0.75 else 0,
            output=output,
            max_tokens=max_tokens,
            reason=reason,
            streaming=draw.random() < 0.7,
            adapter=self._adapter(),
        )

    def _reason(self) -> str:
        draw = self._random.random()
        if draw < 0.02:
            return "abort"
        return "error" if draw < 0.024 else "stop"

    def _adapter(self) -> str:
        names = self._adapters()
        return self._random.choice(["", *names]) if names else ""

    def _gap(self, now: float) -> float:
        return self._random.expovariate(self._rate * self._height(now))

    def _height(self, now: float) -> float:
        start, end = self._burst
        if now > end:
            start = now + self._random.uniform(*_CALM_SECONDS)
            end = start + self._random.uniform(*_BURST_SECONDS)
            self._burst = (start, end)
        wave = 1.0 + _WAVE_HEIGHT * math.sin(math.tau * now / _WAVE_SECONDS + self._phase)
        return wave * (_BURST_HEIGHT if start <= now <= end else 1.0)


def _mean_height() -> float:
    burst, calm = sum(_BURST_SECONDS), sum(_CALM_SECONDS)
    return (burst * _BURST_HEIGHT + calm) / (burst + calm)
