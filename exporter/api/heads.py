"""Limits for the heads of requests (docs/adr/0014).

The server's loop parses all heads in one thread, so a head that takes long delays all other clients.
"""

from __future__ import annotations

from typing import Final

from waitress.parser import HTTPRequestParser
from waitress.utilities import RequestHeaderFieldsTooLarge

__all__ = ["MAX_HEAD_BYTES", "MAX_HEAD_LINES", "RequestParser"]

MAX_HEAD_BYTES: Final = 32 * 1024
MAX_HEAD_LINES: Final = 100
# The head that Waitress itself parses in place of one that it refuses.
_REFUSED: Final = b"GET / HTTP/1.0\r\n"


class RequestParser(HTTPRequestParser):
    """Waitress's parser with a limit for the number of lines; Waitress limits only the bytes."""

    def parse_header(self, header_plus: bytes) -> None:
        """Parse a head, or set `error` (431) if it has too many lines."""
        lines = header_plus.rstrip().count(b"\n") + 1
        super().parse_header(header_plus if lines <= MAX_HEAD_LINES else _REFUSED)
        if lines > MAX_HEAD_LINES:
            self.error = RequestHeaderFieldsTooLarge(f"more than {MAX_HEAD_LINES} lines")
