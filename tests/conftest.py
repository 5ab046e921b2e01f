"""Fixtures that every test may use."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, settings

from tests.peers.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA: Final = Path(__file__).parent / "data"

# Reproducible in CI: the same examples for the same code; deadlines are for the bench.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=5_000)


@pytest.fixture
def start_runtime() -> Iterator[Callable[..., Runtime]]:
    """Start runtimes that end with the test, each cleanly or the test fails."""
    with ExitStack() as running:
        yield lambda *arguments, **options: running.enter_context(Runtime(*arguments, **options))


@pytest.fixture(scope="session")
def captures() -> dict[str, bytes]:
    """Pages of a real vLLM 0.32, by name."""
    return {path.stem: path.read_bytes() for path in sorted((DATA / "captures").glob("*.prom"))}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Let the garbage collector pass over the thousands of collected tests, which stay until the end.

    It would stop the process for half a second each time, and with it the engines and servers that run in there: longer
    than a runtime waits for an engine that Prometheus scrapes each second.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--thorough`, which tries each law with many more examples."""
    parser.addoption("--thorough", action="store_true", help="try each law with 5,000 examples")


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many examples Hypothesis tries."""
    settings.load_profile("thorough" if config.getoption("--thorough") else "default")
