r"""Makes text from other parties safe for a terminal or a log: it stays on its line and cannot control the terminal.

printable("a\n\x1b[31mb")    a\n\x1b[31mb, as visible characters
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["CONTROLS", "printable"]

# Control characters (0x9b begins an escape sequence, too), line separators, bidirectional controls, and surrogates.
CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text with control characters escaped as in a Python literal."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
