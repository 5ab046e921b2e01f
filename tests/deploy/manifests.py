"""The files of deploy/ and the objects of docs/deployment.md, as their readers load them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

Document: TypeAlias = dict[str, Any]

ROOT: Final = Path(__file__).parents[2]
GUIDE: Final = (ROOT / "docs/deployment.md").read_text()


def load(name: str) -> Document:
    document: Document = yaml.safe_load((ROOT / "deploy" / name).read_text())
    return document


SIDECAR: Final = load("sidecar.yaml")
POD: Final[Document] = SIDECAR["spec"]["template"]
ENGINE, RUNTIME = POD["spec"]["containers"]
POD_MONITOR: Final = load("podmonitor.yaml")
COMPOSE: Final = load("compose.yaml")
PROMETHEUS: Final = load("prometheus.yml")
PROMETHEUS_STATIC: Final = load("prometheus.static.yml")
(NETWORK_POLICY,) = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL))


def real_engine_instead() -> Document:
    """Return compose.yaml with the entries of the embedded engine swapped for those in its comments."""
    text = (ROOT / "deploy/compose.yaml").read_text()
    head, marker, tail = text.partition("    # A real engine:")
    uncommented = re.sub(r"(?m)^    # (?=[a-z]+: )", "    ", tail)
    document: Document = yaml.safe_load(head[: head.index("    build:")] + marker + uncommented)
    return document


def flags_of(words: list[str]) -> dict[str, str]:
    """Return the values of a command line on which every flag has one."""
    return dict(zip(words[::2], words[1::2], strict=True))
