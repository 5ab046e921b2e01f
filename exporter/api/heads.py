"""The heads of requests: how long they may be.

The server's loop parses them, for all clients: each head that takes long holds up the others.
"""

from __future__ import annotations

from typing import Final

from waitress.parser import HTTPRequestParser
from waitress.utilities import RequestHeaderFieldsTooLarge

__all__ = ["MAX_HEAD_BYTES", "MAX_HEAD_LINES", "RequestParser"]

MAX_HEAD_BYTES: Final = 32 * 1024
MAX_HEAD_LINES: Final = 100
# What Waitress itself takes for the head of a request that it refuses.
_REFUSED: Final = b"GET / HTTP/1.0\r\n"


class RequestParser(HTTPRequestParser):
    """Waitress's parser, which also limits the number of lines."""

    def parse_header(self, header_plus: bytes) -> None:
        """Parse a head, or set `error` where it has too many lines."""
        lines = header_plus.rstrip().count(b"\n") + 1
        super().parse_header(header_plus if lines <= MAX_HEAD_LINES else _REFUSED)
        if lines > MAX_HEAD_LINES:
            self.error = RequestHeaderFieldsTooLarge(f"more than {MAX_HEAD_LINES} lines")
