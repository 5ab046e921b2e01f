"""The cost of a page in memory, which is more than its bytes (docs/adr/0018).

    cost = bytes of text + LINE * lines + FAMILY * families  <=  --max-scrape-bytes

Each line and each family needs memory of its own: 40 MB of very short lines
once took 2 GB.

A line also has a limit of its own. Python runs no other thread while a pattern
searches a line, and the search time follows the line's length. Without the
limit, one long line would delay `/health`.
"""

from __future__ import annotations

from typing import Final

from exporter.page.errors import Reason, ScrapeError
from exporter.page.slabs import slabs

__all__ = ["FAMILY", "LINE", "LONGEST_LINE", "check_cost", "check_lines", "families_within", "too_large"]

LINE: Final = 64
FAMILY: Final = 1024
LONGEST_LINE: Final = 1 << 20


def check_lines(text: bytes) -> None:
    """Refuse a page with a line that is longer than `LONGEST_LINE` bytes.

    Raises:
        ScrapeError: The page has such a line (`Reason.TOO_LARGE`).
    """
    for start, end in slabs(text):
        # LONGEST_LINE is larger than SLAB, and only a single line makes a slab larger than SLAB.
        if end - start > LONGEST_LINE:
            number = text.count(b"\n", 0, start) + 1
            problem = f"line {number} of the page has {end - start} bytes, and a line may have {LONGEST_LINE}"
            raise ScrapeError(Reason.TOO_LARGE, problem)


def check_cost(limit: int, text: bytes, *, lines: int, families: int) -> None:
    """Refuse a page whose lines and families are known.

    Raises:
        ScrapeError: It costs more than `limit`.
    """
    if len(text) + LINE * lines + FAMILY * families > limit:
        raise too_large(limit, text)


def families_within(limit: int, text: bytes) -> int:
    """Return how many families a page with this text may have within a cost of `limit` bytes.

    Raises:
        ScrapeError: The text and its lines alone cost more than `limit`.
    """
    left = limit - len(text) - LINE * text.count(b"\n")
    if left < 0:
        raise too_large(limit, text)
    return left // FAMILY


def too_large(limit: int, text: bytes) -> ScrapeError:
    """Return the error that explains how the cost of `text` exceeds `limit`."""
    lines = text.count(b"\n")
    return ScrapeError(
        Reason.TOO_LARGE,
        f"the page costs more than {limit} bytes (--max-scrape-bytes): it has {len(text)} bytes of text, and each of its "
        f"{lines} lines counts as {LINE} more, each family as {FAMILY} more",
    )
