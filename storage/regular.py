"""Read a file that a user names: a pipe or a device in its place is an error, and not a wait without end."""

from __future__ import annotations

import os
import stat
from errno import EFBIG, EINVAL, EISDIR
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_regular", "read_regular"]

_CHUNK: Final = 1 << 20


def read_regular(path: Path, limit: int) -> bytes:
    """Return what a regular file holds; links to it are followed.

    Raises:
        OSError: It is something else, cannot be read, or has more than `limit` bytes.
    """
    # Opening a pipe waits for a writer without O_NONBLOCK.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(os.fstat(descriptor).st_mode)
        content = b""
        while len(content) <= limit and (more := os.read(descriptor, min(limit + 1 - len(content), _CHUNK))):
            content += more
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise OSError(EFBIG, f"it has more than {limit} bytes")
    return content


def check_regular(path: Path) -> None:
    """Check that a path, if there is something there, is a regular file or a link to one.

    Raises:
        OSError: It is something else, or cannot be looked at.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    _check(mode)


def _check(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(EINVAL, "it is not a regular file")
