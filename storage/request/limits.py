"""How long the texts of a request may be: requests are remembered and shown, so each byte costs memory until they end."""

from __future__ import annotations

from typing import Final

__all__ = ["MOST_BYTES", "MOST_VALUE_BYTES", "NAMED", "excess"]

# Of a source or directory: twice the longest object key, half of the longest path that a system takes.
MOST_BYTES: Final = 2048
# Of a credential or another value of a configuration: as much as web servers take in a header.
MOST_VALUE_BYTES: Final = 8192
# How many removed files one message names; each also has an event of its own.
NAMED: Final = 20


def excess(text: str, most: int = MOST_BYTES) -> str | None:
    """Return why a text is not taken, as the end of a sentence that begins with its name; `None` if it is."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    return f"has {size:,} bytes; the limit is {most:,}" if size > most else None
