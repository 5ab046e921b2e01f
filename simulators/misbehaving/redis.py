r"""A server that speaks Redis's protocol until a certain command, and answers that as it should not.

with BadRedis(lambda send: send(b"$2000000000\r\n")) as server:
    connect(server.url)
"""

from __future__ import annotations

import contextlib
import socket
from threading import Event, Thread
from typing import TYPE_CHECKING, BinaryIO, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["BadRedis", "Misbehaviour"]

Misbehaviour: TypeAlias = "Callable[[Callable[[bytes], None]], None]"

_GOOD: Final = {b"SSCAN": b"*2\r\n$1\r\n0\r\n*0\r\n", b"SISMEMBER": b":1\r\n", b"INFO": b"$13\r\nrun_id:abcdef\r\n"}
_NUMBERS: Final = frozenset({b"SADD", b"SREM", b"HSET", b"HDEL", b"EXPIRE", b"UNLINK"})


class BadRedis:
    """Listens while its ``with`` block runs.

    Attributes:
        url: How the runtime reaches it.
        stopping: Set at the end; a misbehaviour that waits looks at it.
    """

    def __init__(self, misbehaviour: Misbehaviour, *, command: bytes = b"INFO") -> None:
        """Answer `command`, and what comes behind it, with `misbehaviour`, which gets what sends."""
        self._misbehaviour = misbehaviour
        self._command = command
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[Thread] = []
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self.stopping = Event()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), client, client.makefile("rb") as reader:
            while words := _command(reader):
                if words[0] == self._command:
                    self._misbehaviour(client.sendall)
                else:
                    client.sendall(_GOOD.get(words[0], b":1\r\n" if words[0] in _NUMBERS else b"+OK\r\n"))


def _command(reader: BinaryIO) -> list[bytes]:
    """Read a command: an array of bulk strings; nothing at the end."""
    line = reader.readline()
    return [reader.read(int(reader.readline()[1:]) + 2)[:-2] for _ in range(int(line[1:] or 0))]
