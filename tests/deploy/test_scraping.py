"""The Prometheus configurations of deploy/, judged by Prometheus's own tool."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
import yaml

from simulators.waiting import wait_until
from tests.deploy.manifests import ENGINE, POD, PROMETHEUS, PROMETHEUS_STATIC, RUNTIME, Document
from tests.deploy.published import tool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The labels that the dashboards and alerts select by, and the two examples.
LABELS: Final = {
    "job": "kthena-runtime",
    "namespace": "models",
    "pod": "test-model-0",
    "node": "node-1",
    "app": "test-model",
}


@pytest.fixture(scope="module")
def promtool() -> str:
    return tool("promtool", "apt-get install prometheus")


def aimed_at(targets: list[Document]) -> Document:
    """Return prometheus.yml with given targets in place of those it would discover in a cluster."""
    config = deepcopy(PROMETHEUS)
    del config["scrape_configs"][0]["kubernetes_sd_configs"]
    config["scrape_configs"][0]["static_configs"] = targets
    return config


def container(**changes: str) -> Document:
    """Return a target as Prometheus discovers it for the sidecar's port, or one that differs in places."""
    meta = {
        "namespace": "models",
        "pod_name": "test-model-0",
        "pod_phase": "Running",
        "pod_node_name": "node-1",
        "pod_container_image": RUNTIME["image"],
        "pod_container_port_name": RUNTIME["ports"][0]["name"],
        "pod_container_port_number": str(RUNTIME["ports"][0]["containerPort"]),
    }
    meta |= {f"pod_label_{re.sub('[^a-z]', '_', name)}": value for name, value in POD["metadata"]["labels"].items()}
    labels = {f"__meta_kubernetes_{name}": value for name, value in (meta | changes).items()}
    return {"targets": ["10.0.0.1:8900"], "labels": labels}


def unnamed(**changes: str) -> Document:
    return container(pod_container_port_name="", **changes)


# Debian builds promtool without Kubernetes discovery: that block is left out here, and judged in test_operator.py.
@pytest.mark.parametrize("config", [aimed_at([container()]), PROMETHEUS_STATIC], ids=["discovered", "static"])
def test_prometheus_accepts_the_configuration(config: Document, promtool: str, tmp_path: Path) -> None:
    """Prometheus's own checker finds nothing wrong."""
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))

    checked = subprocess.run([promtool, "check", "config", file], capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def discovered(promtool: str, file: Path, seconds: Iterator[int]) -> list[Document]:
    """Return what promtool finds in some tenths of a second, each time in more of them: it always takes them all."""
    limit = f"--timeout={300 * next(seconds)}ms"
    command: list[str | Path] = [promtool, "check", "service-discovery", limit, file, "kthena-runtime"]
    found: list[Document] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


@pytest.mark.parametrize(
    ("target", "labels"),
    [
        pytest.param(container(), LABELS, id="the sidecar"),
        pytest.param(container(pod_container_image="elsewhere/x:1"), LABELS, id="a mirrored image, by the port's name"),
        pytest.param(unnamed(), LABELS, id="a port without a name, by the image"),
        pytest.param(unnamed(pod_container_image="hub:5000/kthena/runtime@sha256:0"), LABELS, id="by a digest"),
        pytest.param(unnamed(pod_container_image="kthena/runtime-x:1"), {}, id="a like-named image"),
        pytest.param(unnamed(pod_container_port_number=""), {}, id="a runtime that declares no port"),
        pytest.param(container(pod_phase="Succeeded"), {}, id="a pod that is done"),
        pytest.param(container(pod_phase="Pending"), {}, id="a pod whose init container fetches the model"),
        pytest.param(
            container(pod_container_port_name="http", pod_container_image=ENGINE["image"]),
            {},
            id="the engine beside it",
        ),
    ],
)
def test_prometheus_keeps_the_runtimes(target: Document, labels: Document, promtool: str, tmp_path: Path) -> None:
    """Of all ports in a cluster the job scrapes the runtimes', under the labels that the dashboards need."""
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(aimed_at([target])))

    (found,) = wait_until(partial(discovered, promtool, file, itertools.count(1)), "promtool discovers something")

    assert {name: value for name, value in found["labels"].items() if name in LABELS} == labels
