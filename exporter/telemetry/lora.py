"""Metrics of LoRA adapters: the observer of `lora`."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from exporter.telemetry import names
from exporter.telemetry.instruments import Histogram, Value
from lora.adapter import State
from lora.engine.prefix_cache import RESETS
from lora.watcher import RECONCILES
from lora.workers import OPERATIONS, OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.page.family import TextFamily
    from lora.adapter import Status
    from lora.engine.prefix_cache import Reset

__all__ = ["LoraTelemetry"]

_LOAD_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


class LoraTelemetry:
    """Metrics of LoRA adapters; safe for threads. Every series with known label values starts at 0.

        kthena_runtime_model_config_valid 1.0
        kthena_runtime_lora_adapters{state="loaded"} 1.0
        kthena_runtime_lora_adapter_info{lora_name="sql",source_scheme="hf",state="loaded"} 1.0
        kthena_runtime_lora_adapters_possibly_stale 0.0
        kthena_runtime_lora_operations_total{operation="load",outcome="done"} 1.0
        kthena_runtime_lora_operation_duration_seconds_bucket{operation="load",le="10.0"} 1.0
        kthena_runtime_lora_reconciles_total{outcome="in_sync"} 42.0
        kthena_runtime_lora_cache_resets_total{outcome="done"} 0.0

    `kthena_runtime_model_config_valid` exists only with a Model file.
    """

    def __init__(self) -> None:
        self._operations = Value(names.LORA_OPERATIONS)
        self._duration = Histogram(names.LORA_OPERATION_DURATION, _LOAD_BUCKETS)
        for operation in OPERATIONS:
            self._duration.make(operation)
            for outcome in OUTCOMES:
                self._operations.add(operation, outcome, amount=0)
        self._reconciles = Value(names.LORA_RECONCILES)
        for outcome in RECONCILES:
            self._reconciles.add(outcome, amount=0)
        self._resets = Value(names.LORA_CACHE_RESETS)
        for outcome in RESETS:
            self._resets.add(outcome, amount=0)

    def operated(self, *, operation: str, outcome: str, seconds: float) -> None:
        """Count an attempt to load or unload an adapter, with its duration."""
        self._operations.add(operation, outcome)
        self._duration.observe(operation, value=seconds)

    def reconciled(self, *, outcome: str) -> None:
        """Count a comparison of the engine with the desired set."""
        self._reconciles.add(outcome)

    def cache_reset(self, *, outcome: Reset) -> None:
        """Count an attempt to reset the engine's prefix cache."""
        self._resets.add(outcome)

    def families(self, statuses: Iterable[Status], *, model_valid: bool | None) -> list[TextFamily]:
        """Return the families with their current values.

        Args:
            statuses: The adapters that the runtime was asked for.
            model_valid: Whether the Model file is followed as it is now; `None` without a Model file.
        """
        statuses = tuple(statuses)
        stale = Value(names.LORA_POSSIBLY_STALE)
        stale.set(value=float(sum(status.possibly_stale for status in statuses)))
        valid = Value(names.MODEL_CONFIG_VALID)
        if model_valid is not None:
            valid.set(value=float(model_valid))
        kept = (stale, self._operations, self._duration, self._reconciles, self._resets)
        return [
            *([] if model_valid is None else [valid.family()]),
            *_state_families(tuple((status.name, status.source, status.state) for status in statuses)),
            *(each.family() for each in kept),
        ]


@lru_cache(maxsize=4)  # adapters rarely change between two scrapes
def _state_families(statuses: tuple[tuple[str, str | None, State], ...]) -> tuple[TextFamily, TextFamily]:
    adapters, info = Value(names.LORA_ADAPTERS), Value(names.LORA_ADAPTER_INFO)
    for state in State:
        adapters.add(state, amount=0)
    for name, source, state in statuses:
        adapters.add(state)
        info.set(name, _scheme(source), state, value=1.0)
    return adapters.family(), info.family()


def _scheme(source: str | None) -> str:
    """Return a source's scheme: `hf` for a plain `namespace/repo`, `local` for an adapter that is only a directory."""
    if source is None:
        return "local"
    scheme, colon, _ = source.partition("://")
    return scheme if colon else "hf"
