"""JSON as it goes out: in ASCII, and a line, so that a shell's prompt does not stand behind it."""

from __future__ import annotations

import json

__all__ = ["json_text"]


def json_text(value: object) -> str:
    """Return a value as a line of JSON."""
    return json.dumps(value) + "\n"
