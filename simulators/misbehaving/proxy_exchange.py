"""One request that passes a bad proxy: what was asked, what came of it, and the means to do it badly."""

from __future__ import annotations

import re
import select
import socket
import struct
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import TYPE_CHECKING, BinaryIO, Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Mapping

__all__ = ["Answer", "Exchange", "Request"]

BLOCK: Final = 64 * 1024
DRIP_SECONDS: Final = 0.05
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
# Between two hops only; the proxy frames bodies itself.
HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "proxy-connection"})


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came.

    Attributes:
        target: Path and query, undecoded.
        headers: Names in small letters.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        """The path, decoded."""
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        """The parameters, each its last value."""
        return {
            name: values[-1] for name, values in parse_qs(urlsplit(self.target).query, keep_blank_values=True).items()
        }

    @property
    def range(self) -> tuple[int, int | None] | None:
        """First and last byte that were asked for."""
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        return (int(found[1]), int(found[2]) if found[2] else None) if found else None

    @classmethod
    def read(cls, reader: BinaryIO) -> Self | None:
        """Return the next request of a connection, or None when there is none."""
        first = reader.readline().split()
        if len(first) != 3:
            return None
        headers = {}
        for line in iter(reader.readline, b"\r\n"):
            if not line:
                return None
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        body = reader.read(int(headers.get("content-length", "0")))
        return cls(first[0].decode(), first[1].decode(), headers, body)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: its status, its headers, and its body in pieces."""

    status: int
    headers: Mapping[str, str]
    length: int
    body: Iterable[bytes] = field(default=(), repr=False)

    @classmethod
    def of(cls, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Self:
        """Return an answer of one piece."""
        return cls(status, headers or {}, len(body), (body,))


@dataclass(slots=True)
class Exchange:
    """A request on a connection, and what the proxy may do about it.

    Attributes:
        status: What was answered; 0 when nothing was.
        sent: Bytes of body that were handed to the connection.
        whole: Whether all that was promised has been sent.
    """

    request: Request
    _connection: socket.socket = field(repr=False)
    _stopping: threading.Event = field(repr=False)
    _upstream: str | None = field(repr=False)
    status: int = 0
    sent: int = 0
    whole: bool = False
    _asked: list[HTTPResponse] = field(default_factory=list, repr=False)

    def ask(self, request: Request | None = None) -> Answer:
        """Return what the real server answers to `request`; by default, to the one that came."""
        request = request or self.request
        if self._upstream is None:
            return Answer.of(404)
        upstream = HTTPConnection(self._upstream, timeout=60)
        try:
            upstream.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name not in HOP or name == "content-length":
                    upstream.putheader(name, value)
            upstream.putheader("Connection", "close")
            upstream.endheaders(request.body or None)
            response = upstream.getresponse()
        except (OSError, HTTPException):
            upstream.close()
            return Answer.of(502)
        self._asked.append(response)
        return _answer(request, response)

    def begin(self, answer: Answer) -> None:
        """Send status line and headers."""
        self.status = answer.status
        headers = {"Content-Length": str(answer.length)} | dict(answer.headers)
        lines = [f"HTTP/1.1 {answer.status} Whatever", *(f"{name}: {value}" for name, value in headers.items())]
        self._send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def send(self, data: bytes) -> None:
        """Send a piece of the body."""
        # Counted first: a client that has read it may look immediately.
        self.sent += len(data)
        try:
            self._send(data)
        except OSError:
            self.sent -= len(data)
            raise

    def reply(self, answer: Answer) -> None:
        """Send a whole answer."""
        self.begin(answer)
        for piece in self.pieces(answer):
            self.send(piece)
        self.whole = True

    def pieces(self, answer: Answer) -> Iterable[bytes]:
        """Yield what is to be sent of an answer's body; nothing for HEAD."""
        if self.request.method != "HEAD":
            yield from answer.body

    def close(self) -> None:
        """Let go of the real server's answers, read to their end or not."""
        for response in self._asked:
            response.close()

    def wait(self, gate: threading.Event) -> None:
        """Do nothing until `gate` is set or the proxy ends."""
        while not gate.wait(DRIP_SECONDS) and not self._stopping.is_set():
            pass

    def stall(self) -> None:
        """Do nothing until the client goes away or the proxy ends."""
        while not self._stopping.is_set():
            readable, _, _ = select.select([self._connection], [], [], DRIP_SECONDS)
            if readable:
                return

    def drip(self, data: bytes) -> None:
        """Send byte after byte, slowly, until the client goes away or the proxy ends."""
        for byte in data:
            self.send(bytes([byte]))
            if self._stopping.wait(DRIP_SECONDS):
                return

    def slowly(self, pieces: Iterable[bytes], seconds: float) -> Iterable[bytes]:
        """Yield pieces with a pause before each."""
        for piece in pieces:
            self._stopping.wait(seconds)
            yield piece

    def reset(self) -> None:
        """Make the coming close a reset, without the farewell of TCP."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)

    def _send(self, data: bytes) -> None:
        self._connection.sendall(data)


def _answer(request: Request, response: HTTPResponse) -> Answer:
    headers = {name: value for name, value in response.getheaders() if name.lower() not in HOP}
    if request.method == "HEAD":
        return Answer(response.status, headers, int(response.getheader("Content-Length", "0")))
    if response.length is None:
        return Answer.of(response.status, response.read(), headers)
    return Answer(response.status, headers, response.length, _blocks(response))


def _blocks(response: HTTPResponse) -> Iterable[bytes]:
    while block := response.read(BLOCK):
        yield block
