"""The downloader as users start it: the program in a process of its own, in a home of its own.

::

    run = downloader.run("s3://bucket/model", target, variables=pod(server.url, OWNER))
    assert run.code == 0, run.stderr
    assert contents(target) == {"config.json": b"{}"}

After every run it insists that no secret has been told and that nothing lies where nobody asked for it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from simulators.waiting import PATIENCE, wait_until
from tests.harness.memory import family
from tests.harness.runtime import environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from simulators.s3 import Keys

__all__ = ["Downloader", "Ended", "Running", "contents", "pod"]

# As the console script does, without the folder that it is started in among the places to import from.
COMMAND: Final = (str(Path(sys.executable).with_name("kthena-downloader")),)
OWN: Final = ".kthena"  # what the downloader keeps in a target for itself begins so
SECRETS: Final = re.compile(r"secret|token|access_key", re.IGNORECASE)


def pod(endpoint: str, keys: Keys | None = None, **more: str) -> dict[str, str]:
    """Return the variables of a pod with an object store."""
    signed = {"ACCESS_KEY": keys.access, "SECRET_KEY": keys.secret} if keys else {}
    return {"ENDPOINT": endpoint} | signed | more


def contents(folder: Path) -> dict[str, bytes]:
    """Return what a reader finds in a folder, every path with its bytes."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    found = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(OWN)}


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """What `--progress json` printed."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def said(self) -> str:
        """All that it printed."""
        return self.stdout + self.stderr


@dataclass(slots=True)
class Running:
    """A run under way; it is killed when its ``with`` block ends before it does."""

    process: subprocess.Popen[str]
    _secrets: frozenset[str]
    _lines: dict[str, list[str]] = field(default_factory=lambda: {"stdout": [], "stderr": []})
    _readers: list[Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        for name, lines in self._lines.items():
            reader = Thread(target=lines.extend, args=(getattr(self.process, name),))
            reader.start()
            self._readers.append(reader)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        self.end()

    @property
    def said(self) -> str:
        """All that it printed so far."""
        return "".join(self._lines["stdout"] + self._lines["stderr"])

    def kill(self) -> None:
        """End it and its children as the kernel does when memory is short: no farewell."""
        for pid in reversed(self.family()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=PATIENCE)

    def interrupt(self, number: int = signal.SIGTERM) -> None:
        """Ask it to end."""
        self.process.send_signal(number)

    def family(self) -> list[int]:
        """Return the process and all its descendants."""
        return family(self.process.pid)

    def wait_to_say(self, pattern: str) -> re.Match[str]:
        """Wait until something printed matches `pattern`."""
        return wait_until(lambda: re.search(pattern, self.said), f"{pattern!r} is said")

    def end(self, *, seconds: float = PATIENCE) -> Ended:
        """Wait for its end; insist that it told no secret and raised nothing that it did not expect."""
        code = self.process.wait(timeout=seconds)
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        told = [secret for secret in self._secrets if secret in self.said]
        assert not told, f"a secret was told: {self.said}"
        assert "Traceback" not in self.said, self.said
        return Ended(code, "".join(self._lines["stdout"]), "".join(self._lines["stderr"]))


class Downloader:
    """Starts downloads in a home and a temporary folder of their own, below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.temporary = folder / "tmp"
        self.config = folder / "config.json"
        self.home.mkdir()
        self.temporary.mkdir()

    def start(
        self,
        source: str,
        target: Path,
        *arguments: str,
        variables: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Running:
        """Start a download; `variables` are the pod's environment, `config` is what `--config` gets."""
        own = {"HOME": str(self.home), "TMPDIR": str(self.temporary), "AWS_EC2_METADATA_DISABLED": "true"}
        if config:
            self.config.write_text(json.dumps(config))
        options = ["--config", str(self.config)] if config else []
        process = subprocess.Popen(
            [*COMMAND, "--source", source, "--output-dir", str(target), *options, *arguments],
            cwd=self.home,
            env=environment(own | dict(variables or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return Running(process, _secrets(variables or {}) | _secrets(config or {}))

    def run(self, source: str, target: Path, *arguments: str, **options: Any) -> Ended:
        """Download to the end."""
        with self.start(source, target, *arguments, **options) as running:
            ended = running.end()
        left = [path for folder in (self.home, self.temporary) for path in folder.rglob("*") if path.is_file()]
        assert not left, f"left behind: {left}"
        return ended


def _secrets(values: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(str(value) for name, value in values.items() if SECRETS.search(name) and value)
