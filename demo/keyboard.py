"""Keys one by one and unseen, as long as the demo draws on a terminal."""

from __future__ import annotations

import os
import termios
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["keyboard"]


@contextmanager
def keyboard(source: TextIO, *, wanted: bool) -> Iterator[int | None]:
    """Take keys one by one and unseen, Ctrl-C too; yield their file descriptor, None where there is none.

    Ctrl-C as a key ends only the demo, and `make` with it as after any success.
    """
    if not (wanted and _is_ours(source)):
        yield None
        return
    descriptor = source.fileno()
    former = termios.tcgetattr(descriptor)
    changed = termios.tcgetattr(descriptor)
    changed[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG)
    termios.tcsetattr(descriptor, termios.TCSADRAIN, changed)
    try:
        yield descriptor
    finally:
        with suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, former)


def _is_ours(source: TextIO) -> bool:
    try:
        return source.isatty() and os.tcgetpgrp(source.fileno()) == os.getpgrp()
    except OSError:
        return False
