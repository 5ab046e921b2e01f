"""The recording rules: what alerts need, and what is dear to compute for each look at a dashboard.

A rule is named `level:metric:operation`; the colon of the standard metrics' own
names is an underscore here, so that the level stays readable. None of them is
ever NaN: without traffic a ratio or a quantile has no series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.telemetry.names import ENGINE_INFO
from grafana.names import E2E, GENERATION_TOKENS, TPOT, TTFT, WAITING
from grafana.series import ON_TARGET, TARGET, one_of, series

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["RULES", "SLOW_SECONDS", "TTFT_REQUESTS", "WAITING_PER_POD", "Rule", "slow_share"]

# A first token that takes longer is slow. A bound of the buckets that vLLM and SGLang both have.
SLOW_SECONDS: Final = 1
_WINDOWS: Final = ("5m", "30m", "1h", "6h")
_BOUND: Final = one_of(f"{SLOW_SECONDS}", f"{SLOW_SECONDS}.0")  # Python's client writes 1.0, others 1

_LEVEL: Final = "namespace_model_name"
_BY: Final = "namespace, model_name"
# Engines differ in their buckets, so their histograms are never added up: a level of their own.
_ENGINE_LEVEL: Final = "namespace_model_name_engine"
_ENGINE_BY: Final = "namespace, model_name, engine"
_TARGET_BY: Final = ", ".join((*TARGET, "model_name"))

WAITING_PER_POD: Final = f"{_LEVEL}:kthena_num_requests_waiting:avg"
TTFT_REQUESTS: Final = f"{_LEVEL}:kthena_ttft:increase1h"


@dataclass(frozen=True, slots=True)
class Rule:
    """One series to be recorded: its name and what it is computed of."""

    record: str
    expr: str


def slow_share(window: str) -> str:
    """Return the name of the share of requests, 0 to 1, whose first token was slow within a window."""
    return f"{_LEVEL}:kthena_ttft_over_{SLOW_SECONDS}s:ratio_rate{window}"


def _slow_share(window: str) -> Rule:
    """Count only the engines that have the bound: another one's requests would all look slow."""
    fast = f"rate({series(f'{TTFT}_bucket', le=_BOUND)}[{window}])"
    every = f"rate({series(f'{TTFT}_bucket', le='+Inf')}[{window}])"
    expr = f"""\
1 -
  sum by ({_BY}) ({fast})
/
  (sum by ({_BY}) ({every} and ignoring (le) {fast}) > 0)"""
    return Rule(slow_share(window), expr)


def _quantiles(histogram: str) -> Iterator[Rule]:
    """Yield the rates of the buckets, and the quantile that is made of them."""
    short = histogram.replace(":", "_")
    buckets = f"{_ENGINE_LEVEL}:{short}_bucket:rate5m"
    expr = f"""\
sum by ({_ENGINE_BY}, le) (
    sum by ({_TARGET_BY}, le) (rate({histogram}_bucket[5m]))
  * {ON_TARGET} group_left (engine)
    topk by ({", ".join(TARGET)}) (1, {ENGINE_INFO.name})
)"""
    yield Rule(buckets, expr)
    # What is not a number is not >= 0, and left out.
    yield Rule(f"{_ENGINE_LEVEL}:{short}:p95_5m", f"histogram_quantile(0.95, {buckets}) >= 0")


RULES: Final = (
    Rule(f"{_LEVEL}:kthena_requests:rate5m", f"sum by ({_BY}) (rate({E2E}_count[5m]))"),
    Rule(f"{_LEVEL}:kthena_generation_tokens:rate5m", f"sum by ({_BY}) (rate({GENERATION_TOKENS}[5m]))"),
    Rule(f"{_LEVEL}:kthena_num_requests_waiting:sum", f"sum by ({_BY}) ({WAITING})"),
    Rule(WAITING_PER_POD, f"avg by ({_BY}) (sum by ({_TARGET_BY}) ({WAITING}))"),
    *(rule for histogram in (TTFT, TPOT, E2E) for rule in _quantiles(histogram)),
    *(_slow_share(window) for window in _WINDOWS),
    Rule(TTFT_REQUESTS, f"sum by ({_BY}) (increase({TTFT}_count[1h]))"),
)
