"""The manifest: what a published copy consists of. It is written last.

    .kthena/manifest.json
    {
      "version": 1,
      "source": "hf://org/model", "revision": "<commit>", "published": "2026-11-25T17:00:00Z",
      "files": [
        {"path": "config.json", "size": 672, "validator": "...", "mtime_ns": ...,
         "digest": {"algorithm": "sha256", "value": "..."}}
      ]
    }

`digest` is `null` if the source gives none.

While a copy is being replaced it has no manifest, and without one it does not count as a
model. The former manifest, in `.kthena/work`, then also names files that arrived in
earlier interrupted replacements. "others" lists the further sources of these files.

An unreadable manifest, damaged or of a later version, is not the same as none: the content
of the directory is unknown then (docs/adr/0016).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, Final

from storage.disk.listing import Digest, RemoteFile
from storage.disk.names import check_name, make_directory
from storage.disk.regular import read_record
from storage.errors import TooLargeError, UnsafeNameError
from storage.request.reserved import OWN_DIRECTORY

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["NAME", "Entry", "Manifest", "UnreadableError", "load_manifest", "read_manifest", "write_manifest"]

VERSION: Final = 1
NAME: Final = f"{OWN_DIRECTORY}/manifest.json"
# Enough for 20,000 files with names of 1,000 bytes.
_MAX_BYTES: Final = 32 << 20


class UnreadableError(Exception):
    """There is a manifest, but it cannot be read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One published file: what the source said about it, and its mtime in the copy."""

    file: RemoteFile
    mtime_ns: int

    def is_untouched(self, root: Path) -> bool:
        """Whether the file on disk still has the size and mtime of its publication."""
        try:
            status = os.lstat(root / self.file.path)
        except OSError:
            return False
        return S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns) == (self.file.size, self.mtime_ns)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a published copy consists of.

    Attributes:
        source: The source's URI.
        revision: The revision that the source was resolved to.
        entries: The files.
        others: Further sources of the files, after an interrupted replacement.
    """

    source: str
    revision: str
    entries: tuple[Entry, ...]
    others: tuple[str, ...] = ()


def read_manifest(root: Path) -> Manifest | None:
    """Return the manifest of a copy; `None` if there is no readable one."""
    try:
        return load_manifest(root)
    except UnreadableError:
        return None


def load_manifest(root: Path) -> Manifest | None:
    """Return the manifest of a copy; `None` if there is none.

    Raises:
        UnreadableError: There is a manifest, but it cannot be read.
    """
    try:
        # Each row is converted as soon as it is decoded: thousands of rows as dicts take five times the memory.
        data: Any = json.loads(read_record(root / NAME, _MAX_BYTES), object_hook=_value)
        if data["version"] != VERSION or not all(isinstance(row, Entry) for row in data["files"]):
            raise UnreadableError(str(root / NAME))
        others = tuple(str(other) for other in data.get("others", ()))
        return Manifest(str(data["source"]), str(data["revision"]), tuple(data["files"]), others)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, UnsafeNameError) as error:
        raise UnreadableError(str(root / NAME)) from error


def _value(row: dict[str, Any]) -> object:
    """Convert a JSON object of a manifest to a digest or an entry; return the manifest itself as it is."""
    if "algorithm" in row:
        return Digest.from_wire(row)
    if "path" in row:
        return _entry(row)
    return row


def _entry(row: dict[str, Any]) -> Entry:
    digest = row["digest"]
    if digest is not None and not isinstance(digest, Digest):
        raise ValueError("not a digest")
    # Anyone who can write to the volume can write a manifest, and its paths are removed or overwritten.
    path = check_name(row["path"])
    return Entry(RemoteFile(path, int(row["size"]), str(row["validator"]), path, digest), int(row["mtime_ns"]))


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write a manifest below `root` atomically.

    Raises:
        TooLargeError: It would be larger than a manifest that can be read.
    """
    path = root / NAME
    make_directory(path.parent)
    head = {
        "version": VERSION,
        "source": manifest.source,
        "revision": manifest.revision,
        **({"others": list(manifest.others)} if manifest.others else {}),
        "published": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with draft.open("x") as file:  # never through a link that someone left there
        file.write(json.dumps(head, indent=1).removesuffix("\n}") + ',\n "files": [')
        # Row by row: the JSON of 20,000 files in one string would take too much of the worker's memory (ADR 17).
        for number, entry in enumerate(manifest.entries):
            file.write(("," if number else "") + "\n  " + json.dumps(_row(entry)))
        file.write("\n ]\n}\n")
        file.flush()
        os.fsync(file.fileno())
    if draft.stat().st_size > _MAX_BYTES:
        draft.unlink()
        raise TooLargeError(f"{manifest.source}: the names of its files need more than {_MAX_BYTES} bytes")
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
