"""Look at a file or directory with a time limit: a system call on a volume that hangs may never return."""

from __future__ import annotations

from errno import ETIMEDOUT
from threading import Thread
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["in_time"]

_Result = TypeVar("_Result")

_START_SECONDS: Final = 5.0


def in_time(look: Callable[[], _Result], seconds: float = _START_SECONDS) -> _Result:
    """Call `look` in a thread, and return its result or raise its `OSError`.

    Raises:
        OSError: From `look`, or a TimeoutError after `seconds`. After a timeout, the thread stays blocked in `look`.
    """
    results: list[_Result] = []
    errors: list[OSError] = []

    def run() -> None:
        try:
            results.append(look())
        except OSError as error:
            errors.append(error)

    thread = Thread(target=run, name="look", daemon=True)
    thread.start()
    thread.join(seconds)
    for error in errors:
        raise error
    if not results:
        raise TimeoutError(ETIMEDOUT, f"no answer within {seconds:g} s: is it on a volume that hangs?")
    return results[0]
