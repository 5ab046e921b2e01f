"""The real vLLM, installed once and started once a session, with KV events on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from simulators.ports import free_port
from tests.real_engine.server import RealEngine, install

if TYPE_CHECKING:
    from collections.abc import Iterator

# Few blocks, so that some requests push others out; the CPU's blocks are multiples of 32.
BLOCK_SIZE = 32
BLOCKS = 60


class EventfulEngine(RealEngine):
    """A vLLM that publishes its KV events, and whose two endpoints are known."""

    events: str
    replays: str


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventfulEngine]:
    """Return a running vLLM 0.32 with a tiny model."""
    install()
    events, replays = free_port(), free_port()
    config = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "topic": "kv-events",
        "endpoint": f"tcp://*:{events}",
        "replay_endpoint": f"tcp://*:{replays}",
    }
    arguments = ["--kv-events-config", json.dumps(config), "--block-size", str(BLOCK_SIZE)]
    arguments += ["--num-gpu-blocks-override", str(BLOCKS)]
    with EventfulEngine(tmp_path_factory.mktemp("vllm"), *arguments) as engine:
        engine.events, engine.replays = f"tcp://127.0.0.1:{events}", f"tcp://127.0.0.1:{replays}"
        yield engine
