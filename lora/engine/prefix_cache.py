"""Protects adapters from stale blocks in the engine's prefix cache (docs/adr/0015).

The cache finds blocks by an adapter's name, or by its name and directory
(`lora.engine.cache_key`), never by its content. After new content was loaded under an old
key, requests would be answered from KV blocks of the old weights.

So this module remembers which contents were loaded under which name and directory. An
adapter is suspect while the cache may hold blocks of other content under its key. Only a
reset of the cache, or a restart of the engine, ends that.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from itertools import chain
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from lora.engine.cache_key import CacheKey
from lora.errors import LoraError, WithdrawnError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from threading import Event

    from lora.adapter import Installed

__all__ = ["RESETS", "CacheEngine", "CacheObserver", "PrefixCache", "Reset", "Served"]

logger: Final = logging.getLogger(__name__)

# Seconds for which a load retries the reset while requests run. After that the adapter is loaded, and marked as
# possibly stale.
PATIENCE_SECONDS: Final = 30.0
# Seconds between two attempts of one load.
PAUSE_SECONDS: Final = 0.5
# Seconds between two attempts after such a load.
RETRY_SECONDS: Final = 10.0
# The number of names that are remembered, and of loads per name: both bound memory.
MOST_NAMES: Final = 1000
MOST_LOADS: Final = 32
# All loads together: the state file has a row for each, and a limit of 32 MiB (`lora.state_file`).
MOST_ROWS: Final = 8000

# The content of a directory that another client loaded. It differs from every digest, so a later load is suspect.
UNKNOWN: Final = "unknown"
WARNING: Final = (
    "answers may come from the weights that had this name before: the engine did not reset its prefix cache; "
    "the runtime keeps trying"
)


class Reset(StrEnum):
    """The outcome of a reset of the prefix cache."""

    DONE = "done"
    REFUSED = "refused"
    UNSUPPORTED = "unsupported"
    FAILED = "failed"


RESETS: Final = tuple(Reset)


class CacheEngine(Protocol):
    """The requests to an engine's prefix cache."""

    def cache_key(self) -> CacheKey:
        """Return the key of the cache; raises LoraError."""

    def reset_prefix_cache(self) -> Reset:
        """Empty the cache if the engine allows it now; raises LoraError."""


class CacheObserver(Protocol):
    """Receives resets, for metrics. Implementations must not block or raise."""

    def cache_reset(self, *, outcome: Reset) -> None:
        """A reset was attempted."""


class Served(NamedTuple):
    """One load whose blocks may still be in the cache."""

    name: str
    path: str
    content: str


class PrefixCache:
    """Remembers loads, and resets the cache when a name or directory gets new content; safe for threads.

    The lock is not held during a request to the engine.
    """

    def __init__(
        self,
        engine: CacheEngine,
        observer: CacheObserver,
        *,
        patience: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Start with a cache that holds no blocks of adapters."""
        self._engine = engine
        self._observer = observer
        self._patience = patience
        self._clock = clock
        self._lock = Lock()
        self._served: dict[str, list[Served]] = {}  # by name, the newest last
        # What is loaded now, by name.
        self._held: dict[str, Served] = {}
        # The most cautious key until the engine's version is known.
        self._key = CacheKey.NAME
        self._tried = -RETRY_SECONDS

    def restore(self, served: Iterable[Served]) -> None:
        """Restore the loads that an earlier process remembered."""
        with self._lock:
            for one in served:
                self._remember(one)

    def remembered(self) -> tuple[Served, ...]:
        """Return all remembered loads, for the state file."""
        with self._lock:
            return tuple(self._all())

    def _all(self) -> Iterable[Served]:
        return chain.from_iterable(self._served.values())

    def learn(self) -> None:
        """Ask the engine for its key. Called before each load or adoption: the engine may have been upgraded.

        Raises:
            EngineUnavailableError: The engine does not answer.
        """
        self._key = self._engine.cache_key()

    def forget(self, listed: Mapping[str, str]) -> None:
        """Forget former loads, because the engine restarted with an empty cache.

        Args:
            listed: The directories of the adapters that the new engine has already loaded, by name.
        """
        with self._lock:
            self._held = {name: one for name, one in self._held.items() if listed.get(name) == one.path}
            self._served = {name: [served] for name, served in self._held.items()}

    def last_content(self, name: str, path: Path) -> str | None:
        """Return the content that was last loaded under a name from a directory; `None` if unknown."""
        with self._lock:
            found = [one.content for one in self._served.get(name, ()) if one.path == str(path)]
        return found[-1] if found else None

    def loaded(self, name: str, installed: Installed) -> None:
        """Note that the engine has this content under this name now."""
        served = Served(name, str(installed.path), installed.content)
        with self._lock:
            self._held[name] = served
            self._remember(served)

    def unloaded(self, name: str, former: Installed | None = None) -> None:
        """Note that the engine no longer has a name. `former` is what it had, as far as it is known."""
        with self._lock:
            self._held.pop(name, None)
            # Another client loaded it: its blocks may be in the cache, too.
            if former and not any(one.path == str(former.path) for one in self._served.get(name, ())):
                self._remember(Served(name, str(former.path), former.content))

    def _remember(self, served: Served) -> None:
        """Remember a load as the newest, and forget the oldest if there are too many; called with the lock held."""
        others = [one for one in self._served.pop(served.name, ()) if one != served]
        self._served[served.name] = [*others, served][-MOST_LOADS:]
        while len(self._served) > MOST_NAMES or sum(map(len, self._served.values())) > MOST_ROWS:
            # A loaded adapter is not forgotten: `is_suspect` needs its former contents.
            oldest = next((name for name in self._served if name not in self._held), served.name)
            del self._served[oldest]

    def is_suspect(self, name: str) -> bool:
        """Tell whether a loaded adapter may answer from former weights."""
        with self._lock:
            held = self._held.get(name)
            return held is not None and self._has_others(held)

    def _has_others(self, mine: Served) -> bool:
        """Tell whether the cache may hold blocks of other content under `mine`'s key; called with the lock held."""
        if self._key is CacheKey.LOAD:
            return False
        others = (one for one in self._served.get(mine.name, ()) if one.content != mine.content)
        return any(self._key is CacheKey.NAME or one.path == mine.path for one in others)

    def make_way(self, name: str, installed: Installed, withdrawn: Event) -> None:
        """Reset the cache before a load if it may hold blocks of other content; give up after the patience.

        Raises:
            WithdrawnError: `withdrawn` was set before the cache was reset: the adapter must not be loaded.
        """
        mine = Served(name, str(installed.path), installed.content)
        end = self._clock() + self._patience
        while True:
            with self._lock:
                if not self._has_others(mine):
                    return
            outcome = self._reset()
            if outcome is Reset.DONE:
                return
            gives_up = outcome is Reset.UNSUPPORTED or self._clock() > end
            # ADR 15: a load without a reset is a decision for a call that still stands. A withdrawn one must not load,
            # even when the patience has just ended.
            if withdrawn.wait(0.0 if gives_up else PAUSE_SECONDS):
                raise WithdrawnError
            if gives_up:
                logger.warning("adapter %s: %s", name, WARNING)
                return

    def retry(self) -> bool:
        """Retry the reset if loaded adapters are suspect; return whether a reset succeeded."""
        with self._lock:
            suspects = [name for name, held in self._held.items() if self._has_others(held)]
        if not suspects:
            return False
        now = self._clock()
        if now - self._tried < RETRY_SECONDS or self._reset() is not Reset.DONE:
            return False
        logger.info("the prefix cache is reset: adapters %s answer from their own weights again", ", ".join(suspects))
        return True

    def _reset(self) -> Reset:
        self._tried = self._clock()
        with self._lock:
            before, held = set(self._all()), set(self._held.values())
        try:
            outcome = self._engine.reset_prefix_cache()
        except LoraError:
            outcome = Reset.FAILED
        self._observer.cache_reset(outcome=outcome)
        if outcome is Reset.DONE:
            with self._lock:
                # What is still loaded, or was loaded during the reset, may have written new blocks since.
                left = [one for one in self._all() if one not in before or one in held]
                self._served = {}
                for one in left:
                    self._remember(one)
        return outcome
