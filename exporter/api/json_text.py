"""JSON for answers: ASCII, and with a final newline, so that a shell's prompt starts on a new line after curl."""

from __future__ import annotations

import json

__all__ = ["json_text"]


def json_text(value: object) -> str:
    """Return a value as one line of ASCII JSON, with its newline."""
    return json.dumps(value) + "\n"
