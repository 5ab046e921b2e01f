"""Programs of the KV benchmark that do as they are told: a line of JSON for each order, one for each answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.peers import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

__all__ = ["Worker", "answer", "orders"]

_ROOT: Final = Path(__file__).parent.parent


class Worker:
    """A module that runs as a process while its ``with`` block does."""

    def __init__(self, module: str, *arguments: object) -> None:
        self._command = [sys.executable, "-m", module, *map(str, arguments)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, cwd=_ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()

    def ask(self, do: str, **what: object) -> dict[str, Any]:
        """Give an order and wait for the answer."""
        self.tell(do, **what)
        return self.hear()

    def tell(self, do: str, **what: object) -> None:
        """Give an order; `hear` has the answer."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"do": do, **what}).encode() + b"\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Wait for an answer.

        Raises:
            RuntimeError: The program ended.
        """
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            message = f"{self._command[2]} ended"
            raise RuntimeError(message)
        answer: dict[str, Any] = json.loads(line)
        return answer


def orders() -> Iterator[dict[str, Any]]:
    """Yield what the program is told, until nobody is there to tell."""
    return map(json.loads, iter(sys.stdin.buffer.readline, b""))


def answer(**facts: object) -> None:
    """Say that an order is carried out."""
    print(json.dumps(facts), flush=True)
