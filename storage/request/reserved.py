"""The names of directories that downloads keep their records and their work in."""

from __future__ import annotations

from typing import Final

__all__ = ["OWN_DIRECTORY", "is_own"]

OWN_DIRECTORY: Final = ".kthena"


def is_own(name: str) -> bool:
    """Whether a directory of this name is one that downloads keep their records or their work in.

    Case does not matter: some volumes ignore it.
    """
    return name.startswith(".") and name.casefold().endswith(OWN_DIRECTORY)
