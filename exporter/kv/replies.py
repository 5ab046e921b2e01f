"""Parse Redis replies (RESP 2) within limits (docs/adr/0019).

redis-py's parsers trust the sizes that a server announces. hiredis allocates an
array of a billion elements when its header arrives, and needs nine seconds to free
it. Both parsers collect a string of any length, and wait for a server that sends a
byte now and then. This parser refuses replies that none of the runtime's commands can
have. https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import select
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from redis._parsers import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

if TYPE_CHECKING:
    import socket

    from redis.connection import Connection

__all__ = ["BoundedParser"]

# The largest reply is that of SSCAN: usually 100 kB for a thousand members, and some thousand members while Redis
# resizes the set.
MOST_BYTES: Final = 4 * 1024 * 1024
MOST_ELEMENTS: Final = 65_536
DEEPEST: Final = 4
_READ: Final = 65_536
# The time for one reply, and for all replies of a pipeline together, in multiples of the timeout of one read.
_PATIENCE: Final = 2
_PIPELINE_PATIENCE: Final = 3
_LONGEST_NUMBER: Final = 20
_NIL: Final = b"-1"


class BoundedParser(BaseParser):
    """A `parser_class` for redis-py's connections. Not thread-safe, like the connections.

    `read_response` and `read_errors` raise redis-py's exceptions:
        InvalidResponse: A reply is too large, or is not RESP 2.
        TimeoutError: A reply is incomplete after twice the timeout of a read.
        ConnectionError: The server closed the connection, or it broke.
    """

    def __init__(self, socket_read_size: int) -> None:  # noqa: ARG002 - redis-py's signature
        self._sock: socket.socket | None = None
        self._seconds: float | None = None
        self._deadline: float | None = None
        self._data = b""  # received bytes; those from `_at` on are not parsed yet
        self._at = 0
        self._bytes = 0
        self._elements = 0

    def on_connect(self, connection: Connection) -> None:
        """Start to read from a new connection; redis-py calls this."""
        self._sock = connection._sock  # noqa: SLF001 - as redis-py's own parsers do
        self._seconds = connection.socket_timeout
        self._data, self._at = b"", 0

    def on_disconnect(self) -> None:
        """Drop the connection and its unread bytes; redis-py calls this."""
        self._sock = None
        self._data, self._at = b"", 0

    def can_read(self, timeout: float = 0) -> bool:
        """Tell whether there is something to read, or the connection has ended; waits `timeout` seconds at most."""
        if self._sock is None or self._at < len(self._data):
            return self._sock is not None
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        return bool(poller.poll(1000 * timeout))

    def read_response(self, disable_decoding: bool = False, **_: object) -> Any:  # noqa: ARG002, FBT001, FBT002 - redis-py's signature
        """Return the next reply: bytes, an integer, a list, `None`, or a ResponseError as a value."""
        self._begin(_PATIENCE)
        return self._reply(0)

    def read_errors(self, count: int) -> list[ResponseError]:
        """Read `count` replies, each an integer or an error, and return the errors.

        It splits the received bytes into lines, which is many times faster than parsing replies one by one.
        """
        errors: list[ResponseError] = []
        self._begin(_PIPELINE_PATIENCE)
        while count:
            end = self._data.rfind(b"\r\n")
            if end < self._at:
                self._fill()
                continue
            lines = self._data[self._at : end].split(b"\r\n")[:count]
            self._at += sum(map(len, lines)) + 2 * len(lines)
            self._bytes = 0
            count -= len(lines)
            errors += [self._error(line) for line in lines if not line.startswith(b":")]
        return errors

    def _begin(self, patience: int) -> None:
        self._bytes = 0
        self._elements = 0
        self._deadline = None if self._seconds is None else monotonic() + patience * self._seconds

    def _error(self, line: bytes) -> ResponseError:
        if not line.startswith(b"-"):
            raise InvalidResponse("not a number and no error")
        try:
            error = self.parse_error(line[1:].decode(errors="replace"))  # type: ignore[no-untyped-call]
        except ValueError:  # redis-py parses the text after MOVED and ASK, which may be malformed
            raise InvalidResponse("an error that Redis does not have") from None
        if isinstance(error, RedisConnectionError):
            raise error
        found: ResponseError = error
        return found

    def _reply(self, depth: int) -> Any:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b":":
            return _number(rest)
        if kind == b"+":
            return rest
        if kind == b"-":
            return self._error(line)
        if kind not in (b"$", b"*"):
            raise InvalidResponse("not a reply of Redis")
        if rest == _NIL:
            return None
        length = _number(rest)
        if kind == b"$":
            return self._string(length)
        self._elements += length
        if length < 0 or self._elements > MOST_ELEMENTS or depth >= DEEPEST:
            raise InvalidResponse("a reply with too many elements")
        return [self._reply(depth + 1) for _ in range(length)]

    def _line(self) -> bytes:
        searched = self._at
        while (end := self._data.find(b"\r\n", searched)) < 0:
            kept = len(self._data) - self._at
            self._fill()
            # The last byte may have been the carriage return.
            searched = self._at + max(kept - 1, 0)
        line = self._data[self._at : end]
        self._at = end + 2
        return line

    def _string(self, length: int) -> bytes:
        if not 0 <= length <= MOST_BYTES:
            raise InvalidResponse("a reply that is too long")
        pieces = [self._data[self._at : self._at + length + 2]]
        missing = length + 2 - len(pieces[0])
        self._at += len(pieces[0])
        while missing:
            self._fill()
            pieces.append(self._data[:missing])
            missing -= len(pieces[-1])
            self._at = len(pieces[-1])
        return b"".join(pieces)[:length]

    def _fill(self) -> None:
        """Receive more bytes, and drop those that are already parsed."""
        data = self._receive()
        self._bytes += len(data)
        if self._bytes > MOST_BYTES:
            raise InvalidResponse("a reply that is too long")
        self._data = self._data[self._at :] + data
        self._at = 0

    def _receive(self) -> bytes:
        if self._sock is None:
            raise RedisConnectionError("not connected")
        try:
            data = self._within_time(self._sock)
        except TimeoutError:
            raise RedisTimeoutError("no reply in time") from None
        except OSError as error:
            raise RedisConnectionError(f"the connection broke: {type(error).__name__}") from None
        if not data:
            raise RedisConnectionError("the server closed the connection")
        return data

    def _within_time(self, sock: socket.socket) -> bytes:
        """Receive within the rest of the deadline: the socket's own timeout applies to each read."""
        left = inf if self._deadline is None else self._deadline - monotonic()
        if self._seconds is None or left >= self._seconds:
            return sock.recv(_READ)
        if left <= 0:
            raise TimeoutError
        sock.settimeout(left)
        try:
            return sock.recv(_READ)
        finally:
            sock.settimeout(self._seconds)


def _number(text: bytes) -> int:
    if len(text) > _LONGEST_NUMBER or not text.removeprefix(b"-").isdigit():
        raise InvalidResponse("not a number")
    return int(text)
