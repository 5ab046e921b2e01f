"""Clients over plain sockets: many at a time, with any bytes, that read or do not.

with Crowd(runtime.url) as crowd:
    crowd.join(1_000, b"GET /metr")
    assert seconds_of_health(runtime.url) < 1
"""

from __future__ import annotations

import json
import resource
import socket
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

__all__ = ["CLOSING", "Crowd", "connect", "is_open", "many_descriptors", "request", "seconds_of_health", "status_of"]

CLOSING: Final = "Connection: close\r\n"
_TIMEOUT: Final = 30.0


def connect(url: str) -> socket.socket:
    """Connect to the host and port of a URL."""
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=_TIMEOUT)


def request(method: str, target: str, body: object = None, *, headers: str = "") -> bytes:
    """Return a request's bytes, with a body of JSON if there is one."""
    data = b"" if body is None else json.dumps(body).encode()
    length = f"Content-Length: {len(data)}\r\n" if data else ""
    return f"{method} {target} HTTP/1.1\r\nHost: r\r\n{length}{headers}\r\n".encode() + data


def status_of(url: str, raw: bytes) -> int:
    """Send bytes, and return the status of what comes back."""
    with connect(url) as client:
        client.sendall(raw)
        return int(client.makefile("rb").readline().split()[1])


def seconds_of_health(url: str) -> float:
    """Return how long GET /health takes, on a connection of its own."""
    started = monotonic()
    assert status_of(url, request("GET", "/health", headers=CLOSING)) == 200
    return monotonic() - started


class Crowd:
    """Connections that are held until the block ends."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.members: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for member in self.members:
            member.close()

    def join(self, count: int, raw: bytes) -> list[socket.socket]:
        """Add `count` connections that each send `raw`; return them."""
        joined = [connect(self._url) for _ in range(count)]
        self.members += joined
        for member in joined:
            member.sendall(raw)
        return joined

    def say(self, raw: bytes) -> int:
        """Have each member send `raw`; return how many of them are still connected."""
        return sum([is_open(member, raw) for member in self.members])


@contextmanager
def many_descriptors(count: int) -> Iterator[None]:
    """Let this process have `count` descriptors, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def is_open(member: socket.socket, raw: bytes) -> bool:
    """Send, and see whether the other side has closed."""
    try:
        member.sendall(raw)
        member.settimeout(0)
        return member.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        member.settimeout(_TIMEOUT)
