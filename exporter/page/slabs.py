"""Work on a large text slab by slab.

Python's lists and match objects cost some fifty bytes for each line or match:
for a page of short lines that is ten times the page. Whole lines of a slab at a
time cost the same however large the page is.
"""

from __future__ import annotations

from typing import Final

__all__ = ["SLAB", "slabs"]

SLAB: Final = 1 << 18


def slabs(text: bytes, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """Return where each slab of whole lines begins and ends; a line that is longer than `SLAB` is one by itself."""
    end = len(text) if end is None else end
    found = []
    while start < end:
        stop = end
        if end - start > SLAB:
            stop = text.rfind(b"\n", start, start + SLAB) + 1 or text.find(b"\n", start + SLAB, end) + 1 or end
        found.append((start, stop))
        start = stop
    return found
