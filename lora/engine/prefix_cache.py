"""The engine's prefix cache as a danger: blocks computed with weights that an adapter no longer has.

The cache finds blocks by an adapter's name, or by its name and directory
(`lora.engine.cache_key`), never by its content. So this module remembers which contents
were loaded under which name and directory. An adapter is suspect while blocks of
another content may be found for it. Only a reset of the cache ends that, or a
restart of the engine.
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

# How long a reset is tried while requests run, before the new weights are loaded all the same.
PATIENCE_SECONDS: Final = 30.0
PAUSE_SECONDS: Final = 0.5
# Seconds between two later tries.
RETRY_SECONDS: Final = 10.0
# Names that are remembered, and loads of one name.
MOST_NAMES: Final = 1000
MOST_LOADS: Final = 32

UNKNOWN: Final = "unknown"
WARNING: Final = (
    "answers may come from the weights that had this name before: the engine did not reset its prefix cache; "
    "the runtime keeps trying"
)


class Reset(StrEnum):
    """How a reset of the prefix cache ended."""

    DONE = "done"
    REFUSED = "refused"
    UNSUPPORTED = "unsupported"
    FAILED = "failed"


RESETS: Final = tuple(Reset)


class CacheEngine(Protocol):
    """An engine that has a prefix cache."""

    def cache_key(self) -> CacheKey:
        """Return what its blocks are found by; raises LoraError."""

    def reset_prefix_cache(self) -> Reset:
        """Try to empty the cache; raises LoraError."""


class CacheObserver(Protocol):
    """Told of resets, for metrics; must not block or raise."""

    def cache_reset(self, *, outcome: Reset) -> None:
        """A reset was tried."""


class Served(NamedTuple):
    """One load whose blocks the cache may still hold."""

    name: str
    path: str
    content: str


class PrefixCache:
    """Remembers what was loaded, and resets the cache where names or directories got new content; safe for threads."""

    def __init__(
        self,
        engine: CacheEngine,
        observer: CacheObserver,
        *,
        patience: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Begin with a cache that holds nothing of adapters."""
        self._engine = engine
        self._observer = observer
        self._patience = patience
        self._clock = clock
        self._lock = Lock()
        self._served: dict[str, list[Served]] = {}  # by name, the newest last
        self._held: dict[str, Served] = {}
        self._key = CacheKey.NAME
        self._tried = -RETRY_SECONDS

    def restore(self, served: Iterable[Served]) -> None:
        """Remember what an earlier process did."""
        with self._lock:
            for one in served:
                self._remember(one)

    def remembered(self) -> tuple[Served, ...]:
        """Return what is remembered, the oldest first."""
        with self._lock:
            return tuple(self._all())

    def _all(self) -> Iterable[Served]:
        return chain.from_iterable(self._served.values())

    def learn(self) -> None:
        """Find out what the engine as it runs now knows blocks by; before an adapter is loaded or adopted.

        Raises:
            EngineUnavailableError: The engine does not answer.
        """
        self._key = self._engine.cache_key()

    def forget(self, listed: Mapping[str, str]) -> None:
        """Begin again: the engine restarted with an empty cache, and has these adapters, by name with their directory."""
        with self._lock:
            self._held = {name: one for name, one in self._held.items() if listed.get(name) == one.path}
            self._served = {name: [served] for name, served in self._held.items()}

    def last_content(self, name: str, path: Path) -> str | None:
        """Return the content that was last loaded under a name from a directory."""
        with self._lock:
            found = [one.content for one in self._served.get(name, ()) if one.path == str(path)]
        return found[-1] if found else None

    def loaded(self, name: str, installed: Installed) -> None:
        """Take note that the engine has this content under this name from now on."""
        served = Served(name, str(installed.path), installed.content)
        with self._lock:
            self._held[name] = served
            self._remember(served)

    def unloaded(self, name: str, former: Installed | None = None) -> None:
        """Take note that no new requests reach a name; `former` is what the engine had, as far as it is known."""
        with self._lock:
            self._held.pop(name, None)
            if former and not any(one.path == str(former.path) for one in self._served.get(name, ())):
                self._remember(Served(name, str(former.path), former.content))

    def _remember(self, served: Served) -> None:
        """Keep a load, and forget the oldest where there are too many; called with the lock held."""
        others = [one for one in self._served.pop(served.name, ()) if one != served]
        self._served[served.name] = [*others, served][-MOST_LOADS:]
        if len(self._served) > MOST_NAMES:
            oldest = next((name for name in self._served if name not in self._held), served.name)
            del self._served[oldest]

    def is_suspect(self, name: str) -> bool:
        """Tell whether answers of a loaded adapter may come from other weights than its own."""
        with self._lock:
            held = self._held.get(name)
            return held is not None and self._has_others(held)

    def _has_others(self, mine: Served) -> bool:
        """Tell whether the cache may hold blocks of other content that `mine` would find; called with the lock held."""
        if self._key is CacheKey.LOAD:
            return False
        others = (one for one in self._served.get(mine.name, ()) if one.content != mine.content)
        return any(self._key is CacheKey.NAME or one.path == mine.path for one in others)

    def make_way(self, name: str, installed: Installed, withdrawn: Event) -> None:
        """Get rid of blocks of other content before a load, or give up after some time.

        Raises:
            WithdrawnError: `withdrawn` was set before the cache was reset: nothing may be loaded.
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
            if withdrawn.wait(0.0 if gives_up else PAUSE_SECONDS):
                raise WithdrawnError
            if gives_up:
                logger.warning("adapter %s: %s", name, WARNING)
                return

    def retry(self) -> bool:
        """Try again for adapters that are still suspect; return whether none is any more."""
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
                # What was loaded meanwhile, or still is, may have left blocks since.
                left = [one for one in self._all() if one not in before or one in held]
                self._served = {}
                for one in left:
                    self._remember(one)
        return outcome
