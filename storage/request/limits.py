"""Limits for the strings of a request. The runtime remembers and shows requests, so each byte costs memory."""

from __future__ import annotations

from typing import Final

__all__ = ["MOST_BYTES", "MOST_VALUE_BYTES", "NAMED", "excess"]

# Bytes of a source or directory: twice the longest S3 key (1024), and half of Linux's PATH_MAX.
MOST_BYTES: Final = 2048
# Bytes of a credential or another configuration value: web servers accept headers of about this size.
MOST_VALUE_BYTES: Final = 8192
# Removed files that one message names. Each removed file also has its own event.
NAMED: Final = 20


def excess(text: str, most: int = MOST_BYTES) -> str | None:
    """Return why a text is refused, as the end of a sentence about it; `None` if it is accepted."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    return f"has {size:,} bytes; the limit is {most:,}" if size > most else None
