"""Requests that hang, of every kind and more of them than there are threads: /health is answered."""

from __future__ import annotations

import os
from statistics import median
from typing import TYPE_CHECKING, Final

import pytest

from simulators.adapters import make_adapter
from simulators.misbehaving.clients import Crowd, request, seconds_of_health, status_of
from simulators.misbehaving.gated_engine import GatedEngine
from simulators.waiting import wait_until
from tests.harness.memory import MIB, Watch
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.faults, pytest.mark.slow]

PROBES: Final = 15
# Seconds that one probe of many may take on a busy machine.
SLACK: Final = 5.0
LOAD: Final = "/v1/load_lora_adapter"
UNLOAD: Final = "/v1/unload_lora_adapter"
DOWNLOAD: Final = "/v1/download_model"
ADAPTERS: Final = "/v1/lora_adapters"


def loads(folder: Path, count: int, **options: object) -> list[bytes]:
    """Return loads of adapters with different names."""
    return [
        request("POST", LOAD, {"lora_name": f"a{number}", "lora_path": str(folder), **options})
        for number in range(count)
    ]


def unloads(count: int) -> list[bytes]:
    return [request("POST", UNLOAD, {"lora_name": f"unknown-{number}"}) for number in range(count)]


def downloads(folder: Path, engine: str, count: int) -> list[bytes]:
    """Return downloads from a store that hangs."""
    config = {"endpoint": engine, "access_key": "a", "secret_key": "b"}
    return [
        request(
            "POST",
            DOWNLOAD,
            {"source": "s3://bucket/model", "output_dir": str(folder / f"m{number}"), "config": config},
        )
        for number in range(count)
    ]


def is_health_quick(url: str) -> bool:
    """Probe often: a busy machine may hold up one of them."""
    times = [seconds_of_health(url) for _ in range(PROBES)]
    return median(times) < 1 and max(times) < SLACK


@pytest.mark.parametrize("mix", ["scrapes and loads", "looks", "calls", "everything"])
def test_health_while_the_engine_hangs(mix: str, tmp_path: Path) -> None:
    """Scrapes, probes, people, loads, unloads, downloads and lists all wait for it; afterwards all is well."""
    adapter = make_adapter(tmp_path / "adapter")
    with (
        GatedEngine() as engine,
        Runtime(engine.url) as runtime,
        Watch(runtime.pid) as watch,
        Crowd(runtime.url) as crowd,
    ):
        scrapes, looks = [request("GET", "/metrics")] * 30, [request("GET", "/ready"), request("GET", "/")] * 20
        calls = [
            request("GET", ADAPTERS),
            request("GET", f"{ADAPTERS}/none"),
            request("DELETE", "/v1/downloads/x"),
        ] * 15
        waits = [*downloads(tmp_path, engine.url, 3), *loads(adapter, 12), *unloads(12)]
        everything = [*scrapes, *looks, *calls, *waits, *loads(adapter, 12, async_download=True)]
        mixes = {
            "scrapes and loads": [*scrapes[:20], *loads(adapter, 8)],
            "looks": looks,
            "calls": calls,
            "everything": everything,
        }
        for raw in mixes[mix]:
            crowd.join(1, raw)
        assert engine.wait_for_requests(1)
        try:
            assert is_health_quick(runtime.url)
        finally:
            engine.gate.set()

        wait_until(lambda: runtime.get("/ready").status_code == 200, "it is ready")
    assert watch.peaks[runtime.pid] < 80 * MIB
    assert watch.proportional < 256 * MIB


def test_health_while_a_disk_hangs(tmp_path: Path) -> None:
    """Calls that wait for the state directory have a bounded number of places; one more is refused."""
    state, adapter = tmp_path / "state", make_adapter(tmp_path / "adapter")
    state.mkdir()
    # What opens a pipe to write waits until another program reads from it.
    os.mkfifo(state / "lora-adapters.new")
    with (
        GatedEngine() as engine,
        Runtime(engine.url, "--state-dir", str(state)) as runtime,
        Crowd(runtime.url) as crowd,
    ):
        engine.gate.set()
        for raw in (*loads(adapter, 30, async_download=True), *[request("GET", ADAPTERS)] * 30, *unloads(30)):
            crowd.join(1, raw)
        try:
            wait_until(lambda: status_of(runtime.url, request("GET", ADAPTERS)) == 503, "all places are taken")
            assert is_health_quick(runtime.url)
            assert "kthena_runtime_engine_up 1.0" in runtime.page()
        finally:
            reader = os.open(state / "lora-adapters.new", os.O_RDONLY | os.O_NONBLOCK)

        wait_until(lambda: status_of(runtime.url, request("GET", ADAPTERS)) == 200, "places are free again")
        os.close(reader)


def test_the_end_while_everything_hangs(tmp_path: Path) -> None:
    """SIGTERM ends the runtime in time, with code 0, while the engine and the state directory hang."""
    state, adapter = tmp_path / "state", make_adapter(tmp_path / "adapter")
    state.mkdir()
    os.mkfifo(state / "lora-adapters.new")
    with (
        GatedEngine() as engine,
        Runtime(engine.url, "--state-dir", str(state)) as runtime,
        Crowd(runtime.url) as crowd,
    ):
        for raw in (*[request("GET", "/metrics")] * 20, *loads(adapter, 8), *loads(adapter, 4, async_download=True)):
            crowd.join(1, raw)
        assert engine.wait_for_requests(1)
        assert seconds_of_health(runtime.url) < SLACK

        code, seconds = runtime.stop()
    assert code == 0
    assert seconds < 10
