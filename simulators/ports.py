"""Ports for servers, each given to one process of this machine at a time.

The kernel's own choice (port 0) is no port to come back to: once its server is closed, the next connection of any
process may get it. These ports lie below those that the kernel gives away. A process locks a block of them, by the
name of a Unix socket that the kernel frees when the process ends, and gives them in turn.
"""

from __future__ import annotations

import itertools
import random
import socket
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["free_port", "free_ports"]

_FIRST: Final = 10_000
_BLOCK: Final = 400
_KERNELS_OWN: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """Return a port that nobody listens on, and that nobody else gets for a while."""
    return free_ports(1)[0]


def free_ports(count: int) -> range:
    """Return so many ports in a row."""
    with _lock:
        return _block.take(count)


class _Block:
    """The ports of this process; locked at the first use."""

    def __init__(self) -> None:
        self._ports = range(0)
        self._place = 0

    def take(self, count: int) -> range:
        self._ports = self._ports or self._claim()
        for _ in range(_BLOCK):
            if self._place + count > len(self._ports):
                self._place = 0
            found = self._ports[self._place : self._place + count]
            self._place += count
            if all(map(_is_free, found)):
                return found
        message = f"no {count} ports in a row are free among {self._ports}"
        raise OSError(message)

    def _claim(self) -> range:
        """Lock the first block that no other process has, from a random one on."""
        last = int(_KERNELS_OWN.read_text().split()[0]) if _KERNELS_OWN.exists() else 32_768
        starts = range(_FIRST, last - _BLOCK, _BLOCK)
        lock = socket.socket(socket.AF_UNIX)
        for start in _from(random.SystemRandom().randrange(len(starts)), starts):
            with suppress(OSError):
                lock.bind(f"\0kthena-ports-{start}")
                lock.detach()  # open until the process ends
                return range(start, start + _BLOCK)
        message = "every block of ports is taken"
        raise OSError(message)


def _from(place: int, values: range) -> Iterator[int]:
    return itertools.chain(values[place:], values[:place])


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("", port)).close()
    except OSError:
        return False
    return True


_lock: Final = Lock()
_block: Final = _Block()
