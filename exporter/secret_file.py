"""A secret in a file, as Kubernetes mounts it: read again when it changes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SecretFile"]

_log: Final = logging.getLogger(__name__)


class SecretFile:
    """One line of text; safe for threads."""

    def __init__(self, path: Path) -> None:
        """Read it once.

        Raises:
            OSError: It cannot be read.
            ValueError: There is nothing in it.
        """
        self._path = path
        self._seen, self._text = self._load()

    def __repr__(self) -> str:
        return f"SecretFile({str(self._path)!r})"

    def read(self) -> str:
        """Return the secret as the file has it now, or the last one while it has none."""
        try:
            status = self._path.stat()
            if (status.st_mtime_ns, status.st_ino, status.st_size) != self._seen:
                self._seen, self._text = self._load()
        except (OSError, ValueError) as error:
            _log.warning("%s cannot be read again, its last content is used: %s", self._path, type(error).__name__)
        return self._text

    def _load(self) -> tuple[tuple[int, int, int], str]:
        status = self._path.stat()
        text = self._path.read_text().strip()
        if not text:
            message = "the file is empty"
            raise ValueError(message)
        return (status.st_mtime_ns, status.st_ino, status.st_size), text
