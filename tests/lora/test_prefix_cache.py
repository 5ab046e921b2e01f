"""The memory of what the engine's prefix cache may hold: no load ever passes for clean that is not."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lora.adapter import Installed
from lora.engine.cache_key import CacheKey
from lora.engine.prefix_cache import MOST_LOADS, MOST_ROWS, PrefixCache, Reset

pytestmark = pytest.mark.unit

NAMES, PATHS, CONTENTS = ("a", "b"), ("/one", "/two"), ("x", "y")


class CachedEngine:
    """An engine whose cache keeps what was computed, by name or by name and path."""

    def __init__(self) -> None:
        self.key = CacheKey.NAME
        self.busy = False
        self.blocks: dict[tuple[str, str], str] = {}
        self.loaded: dict[str, tuple[str, str]] = {}

    def cache_key(self) -> CacheKey:
        return self.key

    def reset_prefix_cache(self) -> Reset:
        if self.busy:
            return Reset.REFUSED
        self.blocks.clear()
        return Reset.DONE

    def answer(self, name: str) -> str:
        """Return the content that an answer comes from."""
        path, content = self.loaded[name]
        return self.blocks.setdefault((name, path if self.key is CacheKey.NAME_AND_PATH else ""), content)


class Ignored:
    def cache_reset(self, *, outcome: Reset) -> None:
        """Do nothing."""


class Loads(RuleBasedStateMachine):
    """Adapters come and go under few names, from few directories, with few contents, while the engine is busy or not."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = CachedEngine()
        self.cache = PrefixCache(self.engine, Ignored(), patience=0.0, clock=self.tick)
        self.now = 0.0

    def tick(self) -> float:
        self.now = getattr(self, "now", 0.0) + 100.0
        return self.now

    @rule(key=st.sampled_from([CacheKey.NAME, CacheKey.NAME_AND_PATH]))
    def restart(self, key: CacheKey) -> None:
        """Another version may run afterwards; its adapters are gone."""
        for name in list(self.engine.loaded):
            self.unload(name)
        self.engine.key, self.engine.blocks = key, {}
        self.cache.forget({})

    @rule(busy=st.booleans())
    def work(self, busy: bool) -> None:
        self.engine.busy = busy

    @rule(name=st.sampled_from(NAMES), content=st.sampled_from(CONTENTS))
    def change(self, name: str, content: str) -> None:
        """New content in the same directory, and a question before and after."""
        self.load(name, PATHS[0], content)
        self.engine.answer(name)

    @rule(name=st.sampled_from(NAMES), path=st.sampled_from(PATHS), content=st.sampled_from(CONTENTS))
    def load(self, name: str, path: str, content: str) -> None:
        self.unload(name)
        installed = Installed(Path(path), content)
        self.cache.learn()
        self.cache.make_way(name, installed, Event())
        self.engine.loaded[name] = (path, content)
        self.cache.loaded(name, installed)

    @rule(name=st.sampled_from(NAMES))
    def unload(self, name: str) -> None:
        if self.engine.loaded.pop(name, None):
            self.cache.unloaded(name)

    @rule(name=st.sampled_from(NAMES))
    def ask(self, name: str) -> None:
        if name in self.engine.loaded:
            self.engine.answer(name)

    @rule()
    def retry(self) -> None:
        self.cache.retry()

    @rule()
    def restart_the_runtime(self) -> None:
        """The state file brings the memory back; what the engine has is adopted."""
        remembered = self.cache.remembered()
        self.cache = PrefixCache(self.engine, Ignored(), patience=0.0, clock=self.tick)
        self.cache.restore(remembered)
        self.cache.learn()
        for name, (path, content) in self.engine.loaded.items():
            self.cache.loaded(name, Installed(Path(path), content))

    @invariant()
    def a_wrong_answer_is_suspected(self) -> None:
        for name, (_, content) in self.engine.loaded.items():
            key = (name, self.engine.loaded[name][0] if self.engine.key is CacheKey.NAME_AND_PATH else "")
            is_wrong = self.engine.blocks.get(key, content) != content
            assert not is_wrong or self.cache.is_suspect(name)


TestLoads = Loads.TestCase
TestLoads.settings = settings(stateful_step_count=60, max_examples=100, deadline=None)


def test_what_is_remembered_has_a_limit() -> None:
    """As a state file of it can be read again; what is loaded is not forgotten."""
    cache = PrefixCache(CachedEngine(), Ignored(), patience=0.0)
    cache.loaded("held", Installed(Path("/held"), "x"))
    for name in range(MOST_ROWS // MOST_LOADS + 1):
        for path in range(MOST_LOADS):
            cache.loaded(f"a{name}", Installed(Path(f"/{path}"), "x"))
        cache.unloaded(f"a{name}")

    kept = cache.remembered()

    assert MOST_ROWS - MOST_LOADS <= len(kept) <= MOST_ROWS
    assert kept[0].name == "held"
    assert not any(one.name == "a0" for one in kept)
