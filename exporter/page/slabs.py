"""Split a large text into slabs of whole lines.

Python's lists and match objects cost about fifty bytes for each line or match.
For a page of short lines, that is ten times the page. Working slab by slab
bounds this overhead, however large the page is (docs/adr/0018).
"""

from __future__ import annotations

from typing import Final

__all__ = ["SLAB", "slabs"]

SLAB: Final = 1 << 18


def slabs(text: bytes, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """Return the start and end of each slab of whole lines; a line longer than `SLAB` is a slab of its own."""
    end = len(text) if end is None else end
    found = []
    while start < end:
        stop = end
        if end - start > SLAB:
            stop = text.rfind(b"\n", start, start + SLAB) + 1 or text.find(b"\n", start + SLAB, end) + 1 or end
        found.append((start, stop))
        start = stop
    return found
