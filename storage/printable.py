r"""Texts of others on a terminal or in a log: each stays on its line, and gives the terminal no orders.

printable("a\n\x1b[31mb")    a\n\x1b[31mb, in letters that can be seen
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["CONTROLS", "printable"]

# Control characters (0x9b begins an order, too), ends of lines, changes of direction, and halves of characters.
CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text with its control characters escaped as in Python."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
