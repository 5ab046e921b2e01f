"""Copies that are named by their content: a directory never changes once it is published (docs/adr/0015).

    BASE/
    ├── .kthena/
    │   ├── generations.json      which contents each source has had, the newest last
    │   ├── refs/<pod>            which generations a runtime needs (lora.files.references)
    │   └── work/                 the lock, and the files while they grow (storage.disk.layout)
    ├── 3f1c…/                    a generation: the copy of one content
    │   ├── .kthena/manifest.json
    │   └── adapter_model.safetensors
    └── a90b…/

    generations.json
    {"version": 1, "sources": {"s3://adapters/sql": [{"content": "3f1c…", "revision": ""}, …]}, "spared": ["a90b…", …]}

`spared` are directories that are older than the record. They may belong to a record that
was lost or damaged, so they are never removed. A damaged record is kept as
`generations.damaged`.

A generation's name is `content_of` its files: a SHA-256 over sorted paths and SHA-256
digests. New content never appears under the name of old content, so a reader that caches
by path never mixes the two. Unchanged files are hard links to those of the former
generation, or copies if the volume has no links.

Version 0.1 kept an adapter's files in BASE itself. Such a copy counts as the first
generation of its source, and stays as it is.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from storage.disk.digests import hash_file
from storage.disk.layout import Layout
from storage.disk.listing import Digest
from storage.disk.manifest import Manifest, read_manifest, write_manifest
from storage.disk.names import make_parents
from storage.disk.publication import staged
from storage.disk.regular import read_record
from storage.request.reserved import OWN_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from storage.disk.changes import Changes
    from storage.disk.listing import RemoteFile
    from storage.disk.manifest import Entry

__all__ = ["Generation", "Generations", "GenerationsLayout", "content_at", "content_of", "is_content"]

logger: Final = logging.getLogger(__name__)

RECORD: Final = f"{OWN_DIRECTORY}/generations.json"
VERSION: Final = 1
# Hex digits of a SHA-256 in a directory's name.
NAME_LENGTH: Final = 32

_NAME: Final = re.compile(f"[0-9a-f]{{{NAME_LENGTH}}}")
_SHA256: Final = Digest("sha256", "")
# Enough for 10,000 contents. The runtime reads the record, too, and decoded it takes up to twenty times as much memory.
_MAX_BYTES: Final = 1 << 20


def content_of(digests: Mapping[str, str]) -> str:
    """Return the name of a content: 32 hex digits.

    Args:
        digests: SHA-256 of each file in lower-case hex, by its path with slashes.
    """
    lines = (f"{digest}  {path}\n" for path, digest in sorted(digests.items()))
    return sha256("".join(lines).encode()).hexdigest()[:NAME_LENGTH]


def is_content(name: str) -> bool:
    """Tell whether a name has the form of `content_of`. The MD5 names of Kthena's controller have it, too."""
    return _NAME.fullmatch(name) is not None


def content_at(path: Path) -> str | None:
    """Return the content of a generation's directory; `None` for any other directory."""
    return path.name if is_content(path.name) and path.name in Generations(path.parent).contents() else None


@dataclass(frozen=True, slots=True)
class Generation:
    """One content that a source has had.

    Attributes:
        content: The name of its directory; empty for a copy of version 0.1 in the base directory itself.
        revision: The revision that the source was resolved to.
    """

    content: str
    revision: str


@dataclass(frozen=True, slots=True)
class _Record:
    sources: Mapping[str, Sequence[Generation]] = field(default_factory=dict)
    spared: AbstractSet[str] = frozenset()


class _UnreadableError(Exception):
    """The record is damaged, has a later version, or cannot be read."""


class Generations:
    """The record of a base directory. Only a worker that holds the base's lock writes it; anyone may read it."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def path(self, generation: Generation) -> Path:
        return self._base / generation.content

    def of(self, source: str) -> list[Generation]:
        """Return a source's generations that are on disk, the newest last."""
        known = [one for one in self._read().sources.get(source, ()) if (self._base / one.content).is_dir()]
        manifest = read_manifest(self._base)
        if manifest and manifest.source == source:
            known.insert(0, Generation("", manifest.revision))
        return known

    def current(self, source: str) -> Path | None:
        """Return the directory of a source's newest generation; `None` if it has none."""
        found = self.of(source)
        return self.path(found[-1]) if found else None

    def kept(self) -> set[str] | None:
        """Return the contents that are always kept: the newest two of each source.

        `None` if there is no readable record: nothing is known then, so nothing may be removed.
        """
        record = self._read()
        return {one.content for source in record.sources for one in self.of(source)[-2:]} if record.sources else None

    def contents(self) -> set[str]:
        """Return all contents that downloads have published here. Only these may be removed.

        Other directories may have names of the same form (docs/adr/0015).
        """
        record = self._read()
        return {one.content for generations in record.sources.values() for one in generations} - record.spared

    def add(self, source: str, generation: Generation) -> None:
        """Record a generation as the newest of its source. Its directory may appear later."""
        try:
            record = self._load()
        except _UnreadableError:
            self._put_aside()
            record = None
        # Without a record, directories of this form may be from a lost record: they are spared.
        spared = record.spared if record else {path.name for path in self._base.iterdir() if is_content(path.name)}
        sources = {other: self.of(other) for other in (record.sources if record else ())}
        others = [one for one in self.of(source) if one.content and one.content != generation.content]
        sources[source] = [*others, generation]
        self._write(_Record(sources, {name for name in spared if (self._base / name).is_dir()}))

    def _read(self) -> _Record:
        """Return the record; an empty one if there is no readable one."""
        try:
            return self._load() or _Record()
        except _UnreadableError:
            return _Record()

    def _load(self) -> _Record | None:
        """Return the record; `None` when there is none.

        Raises:
            _UnreadableError: There is a record, but it cannot be read.
        """
        try:
            data: Any = json.loads(read_record(self._base / RECORD, _MAX_BYTES))
            if data["version"] != VERSION:
                raise _UnreadableError
            sources = {
                str(source): [Generation(_checked(row["content"]), str(row["revision"])) for row in rows]
                for source, rows in data["sources"].items()
            }
            return _Record(sources, {_checked(name) for name in data.get("spared", ())})
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _UnreadableError from error

    def _put_aside(self) -> None:
        path = self._base / RECORD
        names = (path.with_suffix(f".damaged{f'-{number}' if number > 1 else ''}") for number in count(1))
        aside = next(name for name in names if not name.exists())
        path.replace(aside)
        logger.warning(
            "%s is damaged, and is kept as %s: the directories of contents that are in %s now are never removed, "
            "because it may have listed them; remove by hand those that no engine needs",
            path, aside.name, self._base,
        )  # fmt: skip

    def _write(self, record: _Record) -> None:
        rows = {
            source: [{"content": one.content, "revision": one.revision} for one in generations if one.content]
            for source, generations in record.sources.items()
        }
        path = self._base / RECORD
        draft = path.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        with draft.open("x") as file:
            json.dump({"version": VERSION, "sources": rows, "spared": sorted(record.spared)}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)


def _checked(content: str) -> str:
    if not is_content(content):
        message = "not the name of a content"
        raise ValueError(message)
    return content


class GenerationsLayout(Layout):
    """The layout of a download that is published under the name of its content.

    Attributes:
        target: The newest generation of the source. The listing is compared with it; it is never changed.
    """

    def __init__(self, base: Path, source: str, write_roots: Sequence[str] = ()) -> None:
        """Publish `source`, a URI, in a subdirectory of `base`."""
        super().__init__(base, write_roots, work=base / OWN_DIRECTORY / "work")
        self._base = base
        self._source = source
        self._generations = Generations(base)
        self._choose_target()

    def _choose_target(self) -> None:
        self.target = self._generations.current(self._source) or self._base / OWN_DIRECTORY / "none"

    def prepare(self) -> None:
        """Create the work directories, and look up the newest generation again."""
        self.target = self._base
        super().prepare()
        self._choose_target()

    def _places(self) -> Sequence[Path]:
        return (self.work,)

    def sweep(self, wanted: Iterable[RemoteFile]) -> None:
        """Also remove hard links that a killed worker left: writing to them would change a published file."""
        super().sweep(wanted)
        for directory, _, files in os.walk(self.tree):
            for path in (Path(directory, name) for name in files):
                if path.lstat().st_nlink > 1:
                    path.unlink()

    def publish(self, changes: Changes, fetched: Iterable[RemoteFile]) -> Manifest:
        """Publish the staged and the unchanged files as the source's newest generation."""
        manifest = self._gather(changes, fetched)
        content = content_of({entry.file.path: self._sha256(entry) for entry in manifest.entries})
        place = self._base / content
        is_new = not place.is_dir()
        if is_new:
            write_manifest(self.tree, manifest)
        else:
            self._repair(place, manifest)
        # ADR 15: recorded before it appears, as only recorded directories are ever removed. A recorded directory that
        # does not exist yet is ignored.
        self._generations.add(self._source, Generation(content, manifest.revision))
        if is_new:
            self.tree.rename(place)
        self.target = place
        return manifest

    def _gather(self, changes: Changes, fetched: Iterable[RemoteFile]) -> Manifest:
        """Complete the tree: link the unchanged files into it."""
        for entry in changes.kept:
            path = make_parents(self.tree, entry.file.path)
            # A killed worker may have left a link or a copy here.
            path.unlink(missing_ok=True)
            _link(self.target / entry.file.path, path)
        files = sorted([*(entry.file for entry in changes.kept), *fetched], key=lambda file: file.path)
        return Manifest(changes.listing.source, changes.listing.revision, tuple(staged(self.tree, files)))

    def _sha256(self, entry: Entry) -> str:
        digest = entry.file.digest
        if digest and digest.certain and digest.algorithm == _SHA256.algorithm:
            return digest.value
        return hash_file(self.tree / entry.file.path, _SHA256)

    def _repair(self, place: Path, manifest: Manifest) -> None:
        """Replace files of a generation that were damaged since it was published. Intact files stay untouched.

        The engine may have the generation loaded. Files are renamed into place, so it keeps what it has read.
        """
        known = {entry.file.path: entry for entry in (read_manifest(place) or Manifest("", "", ())).entries}
        names = [entry.file.path for entry in manifest.entries]
        damaged = [name for name in names if name not in known or not known[name].is_untouched(place)]
        for name in damaged:
            (self.tree / name).replace(make_parents(place, name))
        if damaged:
            files = [entry.file for entry in manifest.entries]
            write_manifest(place, replace(manifest, entries=tuple(staged(place, files))))


def _link(source: Path, target: Path) -> None:
    """Make a hard link, or a plain copy if the file system has no links. Such systems often refuse chmod, too."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copyfile(source, target, follow_symlinks=False)
