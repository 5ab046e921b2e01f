"""The engine's HTTP: a keep-alive server, and the calls and answers that cross it."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from simulators.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it arrived. Header names are lower-case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        """The Content-Type without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Answer:
    """One response. Without a content type, none is sent."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, status: int, value: Any, **headers: str) -> Answer:
        """Return `value` as JSON without spaces, as both engines write it."""
        body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
        return cls(status, body, "application/json", headers)

    @classmethod
    def text(cls, status: int, body: str) -> Answer:
        """Return plain text that does not say what it is."""
        return cls(status, body.encode())


class Exchange(NamedTuple):
    """A request and its answer, as an access log would have them. Sizes are in bytes."""

    method: str
    handler: str
    status: int
    seconds: float
    received: int
    sent: int


class Application(Protocol):
    """What the server serves."""

    def answer(self, call: Call) -> Answer:
        """Return the response to `call`."""

    def on_answered(self, exchange: Exchange) -> None:
        """Note that an answer is about to leave."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 -- the names are http.server's

    def version_string(self) -> str:
        return "uvicorn"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        started = time.perf_counter()
        path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))
        answer = self.server.application.answer(Call(self.command, path, query, headers, body))
        seconds = time.perf_counter() - started
        self.server.application.on_answered(
            Exchange(self.command, path, answer.status, seconds, len(body), len(answer.body))
        )
        self.send_response(answer.status)
        if answer.content_type:
            self.send_header("Content-Type", answer.content_type)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], application: Application) -> None:
        self.application = application
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, peer = super().get_request()
        with self._lock:
            self._open.add(connection)
        return connection, peer

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that went away; anything else is a fault of this module."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def hang_up(self) -> None:
        """End the keep-alive connections, whose threads would else wait for a next request."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class HttpServer:
    """Serves an application from threads of its own, and leaves none behind when closed."""

    def __init__(self, application: Application, host: str, port: int) -> None:
        """Listen at once; port 0 takes one that nobody else gets when this server ends."""
        self._server = _Server((host, port or free_port()), application)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="engine-http")
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the server listens."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def close(self) -> None:
        """Stop listening, end all connections, and wait for all threads."""
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()
