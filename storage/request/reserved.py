"""Names of the directories in which downloads keep their records and their work."""

from __future__ import annotations

from typing import Final

__all__ = ["OWN_DIRECTORY", "is_own"]

OWN_DIRECTORY: Final = ".kthena"


def is_own(name: str) -> bool:
    """Whether a name is reserved for a download's records or work: `.kthena` or `.NAME.kthena`.

    Case-insensitive, because some volumes are.
    """
    return name.startswith(".") and name.casefold().endswith(OWN_DIRECTORY)
