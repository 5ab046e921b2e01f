"""Reads files that a user names or others can write: a pipe or a device in their place is an error, not a wait."""

from __future__ import annotations

import os
import stat
from errno import EFBIG, EINVAL, EISDIR
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_regular", "open_regular", "read_record", "read_regular"]

_PIECE: Final = 1 << 16


def open_regular(path: Path, *, follow: bool = True) -> BinaryIO:
    """Open a regular file for reading.

    Args:
        path: The file.
        follow: Whether it may be a link.

    Raises:
        OSError: It is not a regular file, or cannot be opened.
    """
    # Without O_NONBLOCK, opening a pipe waits for a writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    try:
        _check(os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    return open(descriptor, "rb")  # noqa: PTH123 - the flags need a descriptor


def read_regular(path: Path, limit: int, *, follow: bool = True) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: It is not a regular file, cannot be read, or has more than `limit` bytes.
    """
    content = bytearray()
    with open_regular(path, follow=follow) as file:
        # In pieces: `read` allocates memory for all bytes that it is asked for.
        while len(content) <= limit and (piece := file.read(_PIECE)):
            content += piece
    if len(content) > limit:
        raise OSError(EFBIG, f"it has more than {limit} bytes")
    return bytes(content)


def read_record(path: Path, limit: int) -> bytes:
    """Return the content of one of our own records on a volume; a link is refused.

    Raises:
        OSError: It is not a regular file, cannot be read, or has more than `limit` bytes.
    """
    return read_regular(path, limit, follow=False)


def check_regular(path: Path) -> None:
    """Check that a path, if it exists, is a regular file or a link to one.

    Raises:
        OSError: It is something else, or its type cannot be read.
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
