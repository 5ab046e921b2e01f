"""The content of a directory: one digest that changes when the weights change (docs/adr/0015).

All files that a download installed count, according to its manifest. Of other files, only
those count that decide an engine's answers: training runs also keep logs and optimizer
states there, which change all the time.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Final

from storage.disk.digests import hash_file
from storage.disk.generations import content_of
from storage.disk.listing import Digest
from storage.disk.manifest import read_manifest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Contents"]

# Beginnings of the names that engines read: adapter_config.json, adapter_model.*, new_embeddings.*.
_DECISIVE: Final = ("adapter_", "new_embeddings")
_SHA256: Final = Digest("sha256", "")
# Files whose digests are remembered; more than that, and all are forgotten.
_MOST: Final = 4096


class Contents:
    """Computes contents. A file with the same size, times and inode is not hashed again. Safe for threads."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, ...], str]] = {}
        self._lock = Lock()

    def of(self, folder: Path) -> str:
        """Return the content of a directory, in the form that `storage.disk.generations` uses as a name.

        Raises:
            OSError: A file cannot be read.
        """
        return content_of({name: self._digest(folder / name) for name in _names(folder)})

    def _digest(self, path: Path) -> str:
        # ctime too: a tool can restore mtime after a change, but not ctime.
        path = path.resolve()
        status = path.stat()
        seen = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        with self._lock:
            known = self._known.get(path)
        if known and known[0] == seen:
            return known[1]
        # Not under the lock: hashing takes seconds, and two threads at one file do no harm.
        digest = hash_file(path, _SHA256)
        with self._lock:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[path] = (seen, digest)
        return digest


def _names(folder: Path) -> set[str]:
    manifest = read_manifest(folder)
    installed = {entry.file.path for entry in manifest.entries} if manifest else set()
    decisive = {path.name for path in folder.iterdir() if path.name.startswith(_DECISIVE)}
    return {name for name in installed | decisive if (folder / name).is_file()}
