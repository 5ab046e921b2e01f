"""A real Prometheus, and promtool."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

from simulators.ports import free_port
from simulators.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Self

__all__ = ["Prometheus", "Target", "promtool_check"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where to scrape, and the labels that all series from there get."""

    url: str
    labels: Mapping[str, str] = field(default_factory=dict)


def binary(name: str) -> str:
    """Return the path of a Debian binary, or fail with what to install."""
    path = shutil.which(name)
    assert path, f"{name} is not on this machine: run `make apt` as root, or apt-get install prometheus"
    return path


def promtool_check(text: bytes) -> tuple[int, str]:
    """Run `promtool check metrics`: 0 clean, 3 advice only, 1 not parsable; and what it says."""
    done = subprocess.run([binary("promtool"), "check", "metrics"], input=text, capture_output=True, check=False)
    return done.returncode, (done.stdout + done.stderr).decode()


def _target(target: str | Target) -> dict[str, Any]:
    """Return a target; of a URL with a path, one of that path, and with the URL as its `instance`."""
    target = Target(target) if isinstance(target, str) else target
    parts = urlsplit(target.url)
    labels = {"__metrics_path__": parts.path, "instance": target.url} if parts.path else {}
    return {"targets": [parts.netloc], "labels": labels | dict(target.labels)}


class Prometheus:
    """Debian's Prometheus with some jobs, each of some targets; a context manager."""

    def __init__(
        self,
        folder: Path,
        jobs: Mapping[str, Iterable[str | Target]],
        *,
        interval: str = "1s",
        path: str = "/metrics",
        honor_labels: bool = True,
        rule_files: Iterable[Path] = (),
    ) -> None:
        self._folder = folder
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        config = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": [str(path) for path in rule_files],
            "scrape_configs": [
                {
                    "job_name": name,
                    "honor_labels": honor_labels,
                    "metrics_path": path,
                    "static_configs": [_target(target) for target in targets],
                }
                for name, targets in jobs.items()
            ],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))

    def __enter__(self) -> Self:
        self._log = (self._folder / "prometheus.log").open("wb")
        self.process = subprocess.Popen(
            [
                binary("prometheus"),
                f"--config.file={self._folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            stdout=self._log,
            stderr=self._log,
        )
        self.session = requests.Session()
        self.session.trust_env = False
        wait_until(self._is_ready, "Prometheus is ready")
        return self

    def __exit__(self, *exception: object) -> None:
        self.session.close()
        self.process.terminate()
        self.process.wait(timeout=PATIENCE)
        self._log.close()

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """Evaluate an expression, now or at a moment in Unix seconds."""
        parameters = {"query": expression} | ({} if at is None else {"time": f"{at:.3f}"})
        answer = self.session.get(f"{self.url}/api/v1/query", params=parameters, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def targets(self) -> list[dict[str, Any]]:
        answer = self.session.get(f"{self.url}/api/v1/targets", timeout=PATIENCE)
        found: list[dict[str, Any]] = answer.json()["data"]["activeTargets"]
        return found

    def verdicts(self) -> dict[str, str]:
        """Return what Prometheus has against each page that it has read, by instance: nothing for most.

        A scrape that took longer than it may is none: the machine was busy, and the next one will do.
        """
        read = [target for target in self.targets() if not target["lastScrape"].startswith("0001-")]
        errors = {target["labels"]["instance"]: target["lastError"] for target in read}
        return {instance: error for instance, error in errors.items() if "context deadline" not in error}

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, (self._folder / "prometheus.log").read_text()
        try:
            return self.session.get(f"{self.url}/-/ready", timeout=PATIENCE).status_code == 200
        except requests.ConnectionError:
            return False
