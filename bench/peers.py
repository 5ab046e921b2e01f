"""Who is measured: how each peer is started, and how it is asked."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.request import urlopen

from bench.client import Scraper
from bench.process import HOST, Process, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "DIRECT",
    "GZIP",
    "NAMES",
    "OBVIOUS",
    "PASS_THROUGH",
    "RUNTIME",
    "Peer",
    "engine",
    "environment",
    "program",
    "ready",
]

DIRECT: Final = "engine, direct"
PASS_THROUGH: Final = "pass-through"
RUNTIME: Final = "runtime"
GZIP: Final = "runtime, gzip"
OBVIOUS: Final = "obvious"
NAMES: Final = (DIRECT, PASS_THROUGH, RUNTIME, GZIP, OBVIOUS)

_ROOT: Final = Path(__file__).parent.parent
_SCRIPT: Final = Path(sys.executable).with_name("kthena-runtime")
# What the runtime and the obvious collector must have made of the page.
_STANDARD: Final = (
    b"\nkthena:generation_tokens_total{",
    b"\nkthena:num_requests_waiting{",
    b"\nkthena:time_to_first_token_seconds_bucket{",
    b"\nkthena:time_per_output_token_seconds_bucket{",
    b"\nkthena:e2e_request_latency_seconds_bucket{",
)


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to scrape.

    Attributes:
        name: One of `NAMES`.
        process: The process whose CPU it costs.
        path: What is scraped.
        least: Bytes that its answer must have.
        headers: What a scraper sends.
    """

    name: str
    process: Process
    path: str = "/metrics"
    least: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)

    def scraper(self) -> Scraper:
        """Return a new connection to it."""
        return Scraper(self.process.port, self.path, self.headers, least=self.least)

    def check(self) -> None:
        """Scrape once and see that it does its work: who fails is fast."""
        with urlopen(f"http://{HOST}:{self.process.port}{self.path}", timeout=60) as answer:
            page = answer.read()
        absent = [name.decode().strip() for name in _STANDARD if name not in page]
        if self.name in (RUNTIME, OBVIOUS) and absent:
            message = f"{self.name} did not make {', '.join(absent)}"
            raise RuntimeError(message)


def engine(sizes: Sequence[str]) -> Process:
    """Return the engine that all peers share, with pages of these sizes."""
    port = free_port()
    return Process([sys.executable, "-m", "bench.engine", str(port), *sizes], port, environment())


def program(
    name: str,
    engine_port: int,
    path: str,
    variables: Mapping[str, str] | None = None,
    more: Mapping[str, str] | None = None,
) -> Process:
    """Return the process of a peer that scrapes the engine's `path`.

    Args:
        name: `PASS_THROUGH`, `RUNTIME` or `OBVIOUS`.
        engine_port: Where the engine listens.
        path: The page on the engine.
        variables: For the process's environment.
        more: Further flags of the runtime.
    """
    port, base = free_port(), f"http://{HOST}:{engine_port}"
    flags = {"engine": "vllm", "engine-base-url": base, "engine-metrics-path": path, "host": HOST, "port": str(port)}
    flags |= {"pod": "pod-0.default", "model": "bench"} | dict(more or {})
    commands = {
        PASS_THROUGH: [sys.executable, "-m", "bench.passthrough", str(port), base + path],
        RUNTIME: [str(_SCRIPT), *(word for flag, value in flags.items() for word in (f"--{flag}", value))],
        OBVIOUS: [sys.executable, "-m", "bench.obvious", str(port), base + path],
    }
    return Process(commands[name], port, environment() | dict(variables or {}))


def ready(processes: Mapping[str, Process], engine_process: Process, path: str) -> list[Peer]:
    """Return the peers, in the order of `NAMES`, once all of them answer."""
    with Scraper(engine_process.port, path) as scraper:
        scraper.scrape()
    for process in processes.values():
        process.wait_for("/health")
    peers = [
        Peer(DIRECT, engine_process, path),
        *(Peer(name, process, least=scraper.size * 9 // 10) for name, process in processes.items()),
        Peer(GZIP, processes[RUNTIME], headers={"Accept-Encoding": "gzip"}),
    ]
    for peer in peers:
        peer.check()
    return sorted(peers, key=lambda peer: NAMES.index(peer.name))


def environment() -> dict[str, str]:
    """Return an environment without this machine's own settings for the runtime, and where `bench` is found."""
    keep = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in keep if name in os.environ} | {"PYTHONPATH": str(_ROOT)}
