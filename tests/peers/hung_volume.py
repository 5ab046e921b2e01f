"""A volume whose server is gone: a program that opens a file on it waits without end.

It is a FUSE file system that no process serves. Only root may mount one, and not in
every container.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["hung_volume"]

_MNT_DETACH: Final = 2


@contextmanager
def hung_volume(folder: Path) -> Iterator[bool]:
    """Mount one at `folder`; yield whether that can be done here. What waits for it gets an error when the block ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError:
        yield False
        return
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}".encode()
    is_mounted = libc.mount(b"hung", bytes(folder), b"fuse", 0, options) == 0
    try:
        yield is_mounted
    finally:
        os.close(device)
        if is_mounted:
            libc.umount2(bytes(folder), _MNT_DETACH)
