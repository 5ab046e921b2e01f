"""The real vLLM, installed once and started once a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.real_engine import RealEngine, install

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    """Return a running vLLM 0.32 with a tiny model."""
    install()
    with RealEngine(tmp_path_factory.mktemp("vllm")) as engine:
        yield engine
