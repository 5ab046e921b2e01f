"""What a page costs: more than its bytes.

Memory follows the bytes of a page, and its lines and families too. A line
therefore counts as `LINE` bytes more than it has, a family as `FAMILY` more, and
the sum has the limit that the user sets (`--max-scrape-bytes`, docs/adr/0018).

A line has a limit of its own. Python runs no other thread while it searches a
line, and the time follows the line's length: /health would wait.
"""

from __future__ import annotations

from typing import Final

from exporter.page.errors import Reason, ScrapeError
from exporter.page.slabs import slabs

__all__ = ["FAMILY", "LINE", "LONGEST_LINE", "check_lines", "families_within", "too_large"]

LINE: Final = 64
FAMILY: Final = 1024
LONGEST_LINE: Final = 1 << 20


def check_lines(text: bytes) -> None:
    """Refuse a page with a line that is longer than `LONGEST_LINE`.

    Raises:
        ScrapeError: It has one.
    """
    for start, end in slabs(text):
        # A slab that is longer than `SLAB` is one line.
        if end - start > LONGEST_LINE:
            number = text.count(b"\n", 0, start) + 1
            problem = f"line {number} of the page has {end - start} bytes, and a line may have {LONGEST_LINE}"
            raise ScrapeError(Reason.TOO_LARGE, problem)


def families_within(limit: int, text: bytes) -> int:
    """Return how many families a page of this text may have.

    Raises:
        ScrapeError: The text and its lines alone cost more than `limit`.
    """
    left = limit - len(text) - LINE * text.count(b"\n")
    if left < 0:
        raise too_large(limit, text)
    return left // FAMILY


def too_large(limit: int, text: bytes) -> ScrapeError:
    """Return the error that says what a page counts as."""
    lines = text.count(b"\n")
    return ScrapeError(
        Reason.TOO_LARGE,
        f"the page costs more than {limit} bytes (--max-scrape-bytes): it has {len(text)} bytes of text, and each of its "
        f"{lines} lines counts as {LINE} more, each family as {FAMILY} more",
    )
