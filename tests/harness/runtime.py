"""The runtime as users start it: the console script in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

import requests

from simulators.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO, Self

    Parameters = Mapping[str, str | Sequence[str]]

__all__ = ["SCRIPT", "Runtime", "run_to_end"]

SCRIPT: Final = Path(sys.executable).with_name("kthena-runtime")

_SERVES: Final = re.compile(r"serves http://(\S+?):(\d+) for")
_IDENTITY: Final = ("--pod", "pod-0.default", "--model", "test-model")
# Tests keep every core busy, and downloads that step back for all of them would hardly get on.
_NICE: Final = ("--worker-nice", "0")


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment without this machine's own settings for the runtime."""
    keep = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")
    return {name: os.environ[name] for name in keep if name in os.environ} | dict(variables or {})


def run_to_end(
    *arguments: str, variables: Mapping[str, str] | None = None, group: Confinement | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the console script with exactly these arguments until it ends."""
    command = [str(SCRIPT), *arguments]
    return subprocess.run(
        group.confine(command) if group else command,
        env=environment(variables), capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


class Confinement(Protocol):
    """Where programs are started: a group with a memory limit, or with a volume that hangs."""

    def confine(self, command: list[str]) -> list[str]:
        """Return the command that runs `command` there."""


class Runtime:
    """A running runtime; a context manager that insists on a clean end."""

    def __init__(
        self,
        engine_url: str,
        *arguments: str,
        engine: str = "vllm",
        variables: Mapping[str, str] | None = None,
        group: Confinement | None = None,
    ) -> None:
        base = (
            "--engine",
            engine,
            "--engine-base-url",
            engine_url,
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            *_IDENTITY,
            *_NICE,
        )
        self.command = [str(SCRIPT), *base, *arguments]
        self._variables = variables
        self._group = group
        self._lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._group.confine(self.command) if self._group else self.command,
            env=environment(self._variables),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self._reader = Thread(target=self._read_log, daemon=True)
        self._reader.start()
        try:
            wait_until(lambda: self.url or self.process.poll() is not None, "the runtime says where it serves")
            assert self.url, f"the runtime does not start: {self.log}"
        except BaseException:
            self._kill()
            raise
        self.session = requests.Session()
        self.session.trust_env = False
        return self

    def __exit__(self, *exception: object) -> None:
        self.session.close()
        if self.process.poll() is None:
            code, seconds = self.stop()
            assert code == 0, f"exit code {code}: {self.log}"
            assert seconds < 10, f"took {seconds:.1f} s to end"
        self._stderr.close()
        assert "Traceback" not in self.log, self.log

    def get(
        self,
        path: str = "/metrics",
        *,
        headers: Mapping[str, str | None] | None = None,
        params: Parameters | None = None,
        allow_redirects: bool = True,
        stream: bool = False,
    ) -> requests.Response:
        return self.session.get(
            self.url + path,
            timeout=PATIENCE,
            headers=headers,
            params=params,
            allow_redirects=allow_redirects,
            stream=stream,
        )

    def page(
        self, path: str = "/metrics", *, headers: Mapping[str, str] | None = None, params: Parameters | None = None
    ) -> str:
        response = self.get(path, headers=headers, params=params)
        assert response.status_code == 200, response.text
        return response.content.decode()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal; return the exit code and the seconds it took."""
        started = monotonic()
        self.process.send_signal(number)
        code = self.process.wait(timeout=PATIENCE)
        seconds = monotonic() - started
        self._reader.join(timeout=PATIENCE)
        return code, seconds

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None, "the runtime was not started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return "".join(self._lines)

    @property
    def _stderr(self) -> IO[str]:
        assert self.process.stderr is not None
        return self.process.stderr

    def _kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self._stderr.close()

    def _read_log(self) -> None:
        for line in self._stderr:
            self._lines.append(line)
            if not self.url and (found := _SERVES.search(line)):
                self.url = f"http://{found[1]}:{found[2]}"
