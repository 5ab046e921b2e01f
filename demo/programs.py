"""The three programs of the demo: how each is started, and how it is known to be there."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from demo.child import Child, wait_for
from demo.scrape import final_url, is_ready
from exporter.options import OPTIONS
from simulators.ports import free_port

if TYPE_CHECKING:
    from contextlib import ExitStack

    from demo.signals import Pauses

__all__ = ["HOST", "MODEL", "Programs"]

HOST: Final = "127.0.0.1"
MODEL: Final = "demo-model"
RUNTIME_PORT: Final = 9000
PROMETHEUS_PORT: Final = 9090

_ROOT: Final = Path(__file__).parents[1]
_ENGINE_LISTENS: Final = re.compile(r"listening on (http://\S+)\n")
_RUNTIME_SERVES: Final = re.compile(r"serves (http://\S+) for")


class Programs:
    """Starts programs that all end with `cleanup`.

    Attributes:
        children: Those that were started.
    """

    def __init__(self, folder: Path, cleanup: ExitStack, pauses: Pauses) -> None:
        self._folder = folder
        self._cleanup = cleanup
        self._pauses = pauses
        self.children: list[Child] = []

    def start_engine(self, flavour: str, load: float) -> str:
        """Start the embedded engine; return its URL."""
        arguments = ("--engine", flavour, "--load", str(load), "--host", HOST, "--port", "0", "--model", MODEL)
        child = self._start("engine", sys.executable, "-m", "simulators.engine", *arguments)
        return wait_for(lambda: child.said(_ENGINE_LISTENS), child, self._pauses)

    def start_runtime(self, flavour: str, engine_url: str, port: int | None) -> str:
        """Start the runtime as users do, at its usual port if it is free; return its URL."""
        port = _free_or_0(RUNTIME_PORT) if port is None else port
        arguments = ("--engine", flavour, "--engine-base-url", engine_url, "--host", HOST, "--port", str(port))
        script = str(Path(sys.executable).with_name("kthena-runtime"))
        child = self._start("runtime", script, *arguments, "--pod", "demo-0.default", "--model", MODEL)
        return wait_for(lambda: child.said(_RUNTIME_SERVES), child, self._pauses)

    def start_prometheus(self, runtime_url: str, port: int | None) -> str | None:
        """Start a Prometheus that scrapes the runtime; return where it draws graphs, None when there is none."""
        binary = shutil.which("prometheus")
        if not binary:
            return None
        config = self._folder / "prometheus.yml"
        config.write_text(_prometheus_config(runtime_url))
        port = (_free_or_0(PROMETHEUS_PORT) if port is None else port) or free_port()
        storage = f"--storage.tsdb.path={self._folder / 'prometheus'}"
        listen = f"--web.listen-address={HOST}:{port}"
        child = self._start("prometheus", binary, f"--config.file={config}", storage, listen)
        url = f"http://{HOST}:{port}/"
        wait_for(lambda: is_ready(f"{url}-/ready"), child, self._pauses)
        # /graph, /query or /classic/graph, as versions and packagers have it.
        return final_url(url)

    def _start(self, name: str, *command: str) -> Child:
        child = Child(name, command, log=self._folder / f"{name}.log", folder=_ROOT, variables=_variables())
        self._cleanup.enter_context(child)
        self.children.append(child)
        return child


def _variables() -> dict[str, str]:
    """Return the environment without what this machine may have set for a runtime."""
    own = {option.variable for option in OPTIONS}
    return {name: value for name, value in os.environ.items() if name not in own}


def _free_or_0(port: int) -> int:
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return 0
    return port


def _prometheus_config(runtime_url: str) -> str:
    job = {
        "job_name": "kthena-runtime",
        "static_configs": [{"targets": [runtime_url.removeprefix("http://")]}],
    }
    # JSON is YAML.
    return json.dumps({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]})
