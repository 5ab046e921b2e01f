"""Fixtures that every test may use."""

from __future__ import annotations

import gc
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, settings

from simulators.files import CAPTURES
from simulators.hub.server import Hub
from simulators.misbehaving.proxy import BadProxy
from simulators.s3 import S3Server
from tests.harness.downloader import Downloader
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path


# Deadlines are for the bench. `dev` is for the quick tests, `ci` for all of them, `thorough` for a release.
settings.register_profile("ci", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", parent=settings.get_profile("ci"), max_examples=30)
settings.register_profile("thorough", parent=settings.get_profile("ci"), max_examples=5_000)

_LAST: Final = 2


@pytest.fixture
def start_runtime() -> Iterator[Callable[..., Runtime]]:
    """Start runtimes that end with the test, each cleanly or the test fails."""
    with ExitStack() as running:
        yield lambda *arguments, **options: running.enter_context(Runtime(*arguments, **options))


@pytest.fixture(scope="session")
def captures() -> dict[str, bytes]:
    """Pages of a real vLLM 0.32, by name."""
    return {path.stem: path.read_bytes() for path in sorted(CAPTURES.glob("*.prom"))}


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server; each test takes a bucket of its own."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def downloader(tmp_path: Path) -> Downloader:
    """The downloader, in a home of its own."""
    return Downloader(tmp_path)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder for a model, which is not there yet."""
    return tmp_path / "models" / "target"


@pytest.fixture
def s3_proxy(s3: S3Server) -> Iterator[BadProxy]:
    """A proxy before the S3 server."""
    with BadProxy(s3.netloc) as proxy:
        yield proxy


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hugging Face hub."""
    with Hub() as hub:
        yield hub


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
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


def pytest_configure() -> None:
    """Choose how many examples Hypothesis tries: HYPOTHESIS_PROFILE is dev, ci or thorough."""
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(scope="session")
def thorough() -> bool:
    """Whether each property and each fault is tried many times."""
    return os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slow files and end with the unit tests: no worker has a long file left over at the end."""
    order = {"slow": 0, "unit": _LAST}
    items.sort(key=lambda item: next((order[mark.name] for mark in item.iter_markers() if mark.name in order), 1))
