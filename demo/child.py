"""A program that runs while a ``with`` block does, and whose end before that is an error."""

from __future__ import annotations

import ctypes
import signal
import subprocess
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    from demo.signals import Pauses

__all__ = ["Child", "DemoError", "wait_for"]

_START_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.05
_END_SECONDS: Final = 10.0
_LAST_LINES: Final = 8
_LIBC: Final = ctypes.CDLL(None)
_PR_SET_PDEATHSIG: Final = 1

T = TypeVar("T")


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class Child:
    """A program with its output in a file; terminated and waited for in the end."""

    def __init__(
        self, name: str, command: Sequence[str], *, log: Path, folder: Path, variables: Mapping[str, str]
    ) -> None:
        self.name = name
        self._command = command
        self._log = log
        self._folder = folder
        self._variables = variables

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            try:
                # A session of its own: Ctrl-C is for the demo, which ends its children in order. When it
                # cannot, because it was killed itself, the kernel does.
                self._process = subprocess.Popen(
                    self._command,
                    cwd=self._folder,
                    env=self._variables,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=_end_with_parent,  # noqa: PLW1509 -- the demo has no other threads
                )
            except OSError as error:
                raise DemoError(f"the {self.name} does not start: {self._command[0]}: {error.strerror}") from None
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """Raise DemoError, with the end of its log, unless it runs."""
        code = self._process.poll()
        if code is None:
            return
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended by itself with exit code {code}"
        raise DemoError(f"the {self.name} {how}; {self.last_words()}")

    def said(self, pattern: re.Pattern[str]) -> str | None:
        """Return the first group of a pattern that its output holds by now."""
        found = pattern.search(self._output())
        return found[1] if found else None

    def last_words(self) -> str:
        """Return the end of its log, as the rest of a sentence."""
        lines = self._output().splitlines()[-_LAST_LINES:]
        return "its last words:" + "".join(f"\n  {line}" for line in lines) if lines else "it said nothing"

    def _output(self) -> str:
        return self._log.read_text(errors="replace")


def _end_with_parent() -> None:
    """Let the kernel send SIGTERM to this process when the one that started it dies; see prctl(2)."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def wait_for(condition: Callable[[], T | None], child: Child, pauses: Pauses) -> T:
    """Return the first true value of `condition`.

    Raises:
        DemoError: The child ended, or time is up.
        StopDemo: Somebody asked for the end.
    """
    deadline = monotonic() + _START_SECONDS
    while not (value := condition()):
        child.check()
        if monotonic() > deadline:
            raise DemoError(f"the {child.name} is not ready after {_START_SECONDS:.0f} s; {child.last_words()}")
        pauses.pause(_LOOK_SECONDS)
    return value
