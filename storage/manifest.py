"""The manifest: what a published copy is, written last.

    .kthena/manifest.json
    {
      "version": 1,
      "source": "hf://org/model", "revision": "<commit>", "published": "2026-11-25T17:00:00Z",
      "files": [
        {"path": "config.json", "size": 672, "validator": "...", "mtime_ns": ...,
         "digest": {"algorithm": "sha256", "value": "..."}}
      ]
    }

While a copy is being replaced there is no manifest; without one nothing is
taken for a model. `digest` is `null` where the source gives none.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, Final

from storage.errors import UnsafeNameError
from storage.names import OWN_DIRECTORY, check_name, make_directory
from storage.plan import Digest, RemoteFile

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Entry", "Manifest", "read_manifest", "write_manifest"]

VERSION: Final = 1
NAME: Final = f"{OWN_DIRECTORY}/manifest.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """One published file: what the source said, and when it was last written here."""

    file: RemoteFile
    mtime_ns: int

    def is_untouched(self, root: Path) -> bool:
        """Whether the file on disk has the length and time it was published with."""
        try:
            status = os.lstat(root / self.file.path)
        except OSError:
            return False
        return S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns) == (self.file.size, self.mtime_ns)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a published copy is made of."""

    source: str
    revision: str
    entries: tuple[Entry, ...]


def read_manifest(root: Path) -> Manifest | None:
    """Return the manifest of a copy; `None` when there is none that can be read."""
    try:
        data: Any = json.loads((root / NAME).read_text())
        if data["version"] != VERSION:
            return None
        return Manifest(str(data["source"]), str(data["revision"]), tuple(_entry(row) for row in data["files"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, UnsafeNameError):
        return None


def _entry(row: dict[str, Any]) -> Entry:
    digest = Digest.from_wire(row["digest"]) if row["digest"] else None
    path = check_name(row["path"])
    return Entry(RemoteFile(path, int(row["size"]), str(row["validator"]), path, digest), int(row["mtime_ns"]))


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Put a manifest below `root`, whole or not at all."""
    path = root / NAME
    make_directory(path.parent)
    data = {
        "version": VERSION,
        "source": manifest.source,
        "revision": manifest.revision,
        "published": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "files": [_row(entry) for entry in manifest.entries],
    }
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with draft.open("x") as file:  # not through a link that somebody left there
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _row(entry: Entry) -> dict[str, Any]:
    file = entry.file
    return {
        "path": file.path,
        "size": file.size,
        "validator": file.validator,
        "mtime_ns": entry.mtime_ns,
        "digest": file.digest.to_wire() if file.digest else None,
    }
