"""Waiting on conditions instead of sleeping.

A deadline here ends a test that hangs. It is no measure of anything: it is far longer than any condition takes, also
on a machine that is busy with other things.
"""

from __future__ import annotations

from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PATIENCE", "wait_until"]

# Seconds.
PATIENCE: Final = 120.0

T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], what: str, *, seconds: float = PATIENCE, every: float = 0.02) -> T:
    """Return the first true value of `condition`; fail when there is none in time."""
    deadline = monotonic() + seconds
    pause = Event()
    while not (value := condition()):
        if monotonic() > deadline:
            message = f"waited {seconds:g} s without success until {what}"
            raise TimeoutError(message)
        pause.wait(every)
    return value
