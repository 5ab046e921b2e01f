"""Our own records on a volume that others write to as well: none of them is trusted to be small, or a file."""

from __future__ import annotations

import errno
import os
from stat import S_ISREG
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["open_record", "read_record"]


def open_record(path: Path, *, follow: bool = False) -> BinaryIO:
    """Open a file for reading, without waiting for a pipe.

    Args:
        path: The file.
        follow: Whether it may be a link.

    Raises:
        OSError: It cannot be opened, or is not a file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    if not S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return open(descriptor, "rb")  # noqa: PTH123 - the flags need a descriptor


def read_record(path: Path, limit: int) -> bytes:
    """Return what a file holds.

    Raises:
        OSError: It cannot be read.
        ValueError: It has more than `limit` bytes.
    """
    with open_record(path) as file:
        data = file.read(min(os.fstat(file.fileno()).st_size, limit) + 1)  # room for all that is asked for is taken
    if len(data) > limit:
        raise ValueError(f"{path} has more than {limit} bytes")
    return data
