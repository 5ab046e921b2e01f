"""Waiting on conditions instead of sleeping."""

from __future__ import annotations

from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["wait_until"]

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, *, seconds: float = 30.0, every: float = 0.02) -> T:
    """Return the first true value of `condition`; fail when there is none in time."""
    deadline = monotonic() + seconds
    pause = Event()
    while not (value := condition()):
        if monotonic() > deadline:
            message = f"waited {seconds:g} s in vain until {what}"
            raise TimeoutError(message)
        pause.wait(every)
    return value
