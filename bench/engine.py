"""The engine of the benchmarks: pages from memory, in a process of its own.

`GET /medium` answers with the next version of the medium page, so that no two
scrapes on a connection see the same text. Raw sockets: an engine that took a
part of the machine worth mentioning would be measured along with the rest.

    python -m bench.engine PORT small medium large
"""

from __future__ import annotations

import socket
import sys
from itertools import cycle
from threading import Thread
from typing import TYPE_CHECKING, Final

from bench.pages import SIZES, rotation
from bench.process import HOST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["main"]

_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_MAX_REQUEST: Final = 1 << 16


def main(arguments: Sequence[str]) -> None:
    """Serve the sizes named after the port, until the process is ended."""
    port, *sizes = arguments
    answers = {f"/{size}": [_answer("200 OK", page) for page in rotation(SIZES[size])] for size in sizes}
    answers["/health"] = [_answer("200 OK", b"")]
    with socket.create_server((HOST, int(port)), backlog=128) as listener:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Thread(target=_serve, args=(connection, answers), daemon=True).start()


def _serve(connection: socket.socket, answers: Mapping[str, list[bytes]]) -> None:
    rotations = {path: cycle(versions) for path, versions in answers.items()}
    with connection:
        while request := _request(connection):
            path = request.split(b" ", 2)[1].decode()
            connection.sendall(next(rotations[path]) if path in rotations else _answer("404 Not Found", b""))


def _request(connection: socket.socket) -> bytes:
    """Return the head of the next request, or nothing when there is none."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and len(head) < _MAX_REQUEST:
        try:
            part = connection.recv(_MAX_REQUEST)
        except ConnectionResetError:
            return b""
        if not part:
            return b""
        head += part
    return head


def _answer(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {_CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


if __name__ == "__main__":
    main(sys.argv[1:])
