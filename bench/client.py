"""Scrapers: keep-alive connections that ask, read and time, and look at little.

One thread drives any number of them, so the client takes as small a part of the
machine as it can.
"""

from __future__ import annotations

import re
import socket
from selectors import EVENT_READ, DefaultSelector
from time import perf_counter
from typing import TYPE_CHECKING, Final

from bench.process import HOST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

__all__ = ["Scraper", "scrape_together"]

_BUFFER: Final = 1 << 20
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_OK: Final = b"HTTP/1.1 200 "


class Scraper:
    """A scraper with a connection of its own; a context manager.

    Attributes:
        size: Bytes of the last body.
    """

    def __init__(self, port: int, path: str, headers: Mapping[str, str] | None = None, *, least: int = 0) -> None:
        """Prepare a GET of `path`.

        Args:
            port: Of this machine.
            path: What is scraped.
            headers: Sent besides Host.
            least: Bytes that a body must have: whoever answers less, because
                the engine could not be read, would look fast.
        """
        lines = [f"GET {path} HTTP/1.1", f"Host: {HOST}:{port}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self._request = "\r\n".join([*lines, "", ""]).encode()
        self._least = least
        self._buffer = memoryview(bytearray(_BUFFER))
        self._socket = socket.create_connection((HOST, port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._started = 0.0
        self._head = 0  # bytes of the head, while it is being read
        self._left: int | None = None  # bytes of the body still to come, once known
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Return what a selector wants to know."""
        return self._socket.fileno()

    def scrape(self) -> float:
        """Scrape once; return the seconds it took."""
        self.begin()
        while (seconds := self.advance()) is None:
            pass
        return seconds

    def begin(self) -> None:
        """Send the request."""
        self._head, self._left = 0, None
        self._started = perf_counter()
        self._socket.sendall(self._request)

    def advance(self) -> float | None:
        """Read what is there; return the seconds since `begin` when that was the last of it.

        Raises:
            RuntimeError: The answer is not a 200 with a body that is large enough.
        """
        if self._left is None:
            self._read_head()
        else:
            self._left -= self._received(self._socket.recv_into(self._buffer))
        return perf_counter() - self._started if self._left == 0 else None

    def _read_head(self) -> None:
        self._head += self._received(self._socket.recv_into(self._buffer[self._head :]))
        text = bytes(self._buffer[: min(self._head, 4096)])
        end = text.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(text, 0, end)
        if not text.startswith(_OK) or length is None or int(length[1]) < self._least:
            message = f"not a page of {self._least} bytes or more: {text[:end].decode(errors='replace')}"
            raise RuntimeError(message)
        self.size = int(length[1])
        self._left = self.size - (self._head - end - 4)

    @staticmethod
    def _received(size: int) -> int:
        if not size:
            message = "the connection was closed in the middle of an answer"
            raise RuntimeError(message)
        return size


def scrape_together(scrapers: Sequence[Scraper], times: int) -> tuple[list[float], float]:
    """Keep all scrapers busy until each has scraped `times` over.

    Returns the seconds that each scrape took, and all of them together.
    """
    latencies: list[float] = []
    left = dict.fromkeys(scrapers, times)
    started = perf_counter()
    with DefaultSelector() as selector:
        for scraper in scrapers:
            selector.register(scraper, EVENT_READ, scraper)
            scraper.begin()
        while selector.get_map():
            for key, _ in selector.select():
                seconds = key.data.advance()
                if seconds is None:
                    continue
                latencies.append(seconds)
                left[key.data] -= 1
                if left[key.data]:
                    key.data.begin()
                else:
                    selector.unregister(key.data)
    return latencies, perf_counter() - started
