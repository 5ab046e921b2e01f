"""The runtime started as deploy/sidecar.yaml starts it: its probes, its scrape, its health check, its end."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from simulators.ports import free_port
from simulators.waiting import wait_until
from tests.deploy.image import health_check
from tests.deploy.manifests import POD_MONITOR, PROMETHEUS, PROMETHEUS_STATIC, RUNTIME
from tests.deploy.published import tool

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST: Final = "127.0.0.1"
# What the kubelet and the Secret would bring.
CLUSTER: Final = {"POD_NAME": "test-model-0", "NAMESPACE": "models"}

PROBES: Final = [RUNTIME[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")]
SCRAPES: Final = [
    POD_MONITOR["spec"]["podMetricsEndpoints"][0]["path"],
    PROMETHEUS["scrape_configs"][0]["metrics_path"],
    PROMETHEUS_STATIC["scrape_configs"][0]["metrics_path"],
]


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A runtime that serves at a port of this machine."""

    process: subprocess.Popen[str]
    port: int

    def status(self, path: str) -> int:
        connection = http.client.HTTPConnection(HOST, self.port)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()


def arguments(port: int, engine_port: int) -> list[str]:
    """Return the manifest's args as the kubelet expands them, but on ports that are free here."""
    expanded = [re.sub(r"\$\((\w+)\)", lambda name: CLUSTER[name[1]], word) for word in RUNTIME["args"]]
    moved = {"8900": str(port), "http://localhost:8000": f"http://localhost:{engine_port}"}
    return [moved.get(word, word) for word in expanded]


def serves(process: subprocess.Popen[str], port: int) -> bool:
    assert process.stderr is not None
    assert process.poll() is None, process.stderr.read()
    with suppress(OSError):
        socket.create_connection((HOST, port)).close()
        return True
    return False


@pytest.fixture
def sidecar() -> Iterator[Sidecar]:
    port = free_port()
    variables = {variable["name"]: variable.get("value", "") for variable in RUNTIME["env"]} | CLUSTER
    command = [tool("kthena-runtime", "pip install --editable ."), *arguments(port, free_port())]
    with subprocess.Popen(command, env=os.environ | variables, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: serves(process, port), "the runtime serves")
            yield Sidecar(process, port)
        finally:
            process.kill()


@pytest.mark.parametrize("path", sorted({*PROBES, *SCRAPES}))
def test_what_is_probed_and_scraped_answers(sidecar: Sidecar, path: str) -> None:
    """Probes and scrapes get their 200 even while the engine is away, as it is here."""
    assert sidecar.status(path) == 200


def test_ready_is_no_probe(sidecar: Sidecar) -> None:
    """It would fail here, for an engine that is away; the manifest does not ask it."""
    assert sidecar.status("/ready") == 503
    assert "/ready" not in PROBES


def test_the_health_check_follows_the_flag(sidecar: Sidecar) -> None:
    """It reads the port off the runtime's true command line, against a variable that says another."""
    command_line = f"/proc/{sidecar.process.pid}/cmdline"

    assert health_check({"RUNTIME_PORT": str(free_port())}, command_line=command_line) == 0


def test_it_ends_as_kubernetes_asks(sidecar: Sidecar) -> None:
    """SIGTERM ends it with code 0, well within the grace period."""
    sidecar.process.send_signal(signal.SIGTERM)

    assert sidecar.process.wait(timeout=10) == 0
