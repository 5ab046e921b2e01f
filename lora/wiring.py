"""How the parts that keep the engine reconciled are made of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from lora.engine.prefix_cache import CacheObserver, PrefixCache
from lora.files.contents import Contents
from lora.files.installation import Installation
from lora.housekeeping import Housekeeping
from lora.procedure import Procedure
from lora.store import Store
from lora.watcher import Watcher, WatcherObserver
from lora.workers import OperationObserver, Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from lora.engine.client import EngineClient
    from lora.files.installation import Downloads
    from lora.files.references import References
    from lora.state_file import Medium
    from lora.transitions import Records
    from storage.request.config import Config

__all__ = ["INTERVAL_SECONDS", "Observer", "Wired", "wire"]

# Seconds between two comparisons: a restart of the engine is noticed after this time at most.
INTERVAL_SECONDS: Final = 5.0


class Observer(WatcherObserver, OperationObserver, CacheObserver, Protocol):
    """Receives events for metrics. Implementations must not block or raise."""


class Wired(NamedTuple):
    """What runs, and what is written: none of it has started."""

    store: Store
    workers: Workers
    watcher: Watcher


def wire(  # noqa: PLR0913 - the parts' collaborators
    records: Records,
    engine: EngineClient,
    downloads: Downloads,
    medium: Medium,
    observer: Observer,
    *,
    references: References,
    config: Config,
    interval: float,
    reset_patience: float,
    clock: Callable[[], float],
) -> Wired:
    """Make the store, the workers and the watcher, which share one procedure and one prefix cache."""
    cache = PrefixCache(engine, observer, patience=reset_patience, clock=clock)
    store = Store(medium, records, cache)
    procedure = Procedure(engine, Installation(downloads, config, Contents(), references), cache, records)
    workers = Workers(records, procedure, store, observer, clock=clock)
    watcher = Watcher(engine, records, cache, store, procedure, Housekeeping(references), observer, interval=interval)
    return Wired(store, workers, watcher)
