"""The Dockerfile as its builder reads it, and the image's health check as this machine can run it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.deploy.manifests import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

DOCKERFILE: Final = ROOT / "Dockerfile"
PYTHON: Final = "/opt/kthena/bin/python"


@dataclass(frozen=True, slots=True)
class Stage:
    """One image on the way: what it starts from, and its instructions in order."""

    name: str
    base: str
    instructions: tuple[tuple[str, str], ...]

    def all(self, keyword: str) -> list[str]:
        return [value for found, value in self.instructions if found == keyword]

    def last(self, keyword: str) -> list[str]:
        """Return the words of the last such instruction, the one that counts, whether in JSON or plain."""
        value = self.all(keyword)[-1]
        words: list[str] = json.loads(value[value.index("[") :]) if "[" in value else value.split()
        return words


def parse(text: str) -> list[Stage]:
    """Return the stages in order; what stands before the first FROM belongs to none."""
    stages: list[Stage] = []
    for keyword, value in _instructions(text):
        if keyword == "FROM":
            base, name = re.split(r"\s+AS\s+", value, maxsplit=1)
            stages.append(Stage(name, base, ()))
        elif stages:
            last = stages.pop()
            stages.append(Stage(last.name, last.base, (*last.instructions, (keyword, value))))
    return stages


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    uncommented = re.sub(r"(?m)^\s*#.*\n", "", text)
    for line in re.sub(r"\\\n\s*", "", uncommented).splitlines():
        keyword, _, value = line.strip().partition(" ")
        if keyword:
            yield keyword.upper(), value.strip()


STAGES: Final = {stage.name: stage for stage in parse(DOCKERFILE.read_text())}
IMAGE: Final = STAGES["runtime"]


def health_check_source() -> Path:
    """Return the file that the image copies to where its health check runs it."""
    script = IMAGE.last("HEALTHCHECK")[-1]
    (source,) = (copy.split()[0] for copy in IMAGE.all("COPY") if copy.split()[1] == script)
    return ROOT / source


def health_check(variables: Mapping[str, str], *, command_line: str = "/dev/null") -> int:
    """Run the image's own command with this Python, told which file is the command line of process 1."""
    python, *options, _script = IMAGE.last("HEALTHCHECK")
    assert python == PYTHON
    command: list[str | Path] = [sys.executable, *options, health_check_source(), command_line]
    inherited = {name: value for name, value in os.environ.items() if name != "RUNTIME_PORT"}
    return subprocess.run(command, env=inherited | dict(variables), timeout=30, check=False).returncode
