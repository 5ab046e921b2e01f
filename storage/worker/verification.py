"""Verifies that a copy is still what was published, and still what the source has."""

from __future__ import annotations

import os
from stat import S_ISREG
from typing import TYPE_CHECKING

from storage.disk.digests import matches
from storage.disk.listing import select
from storage.disk.manifest import read_manifest
from storage.disk.names import is_real
from storage.errors import ChangedError, CorruptError, NotFoundError, listed
from storage.request.patterns import selected
from storage.request.source import same_source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from storage.disk.listing import RemoteFile
    from storage.disk.manifest import Entry, Manifest
    from storage.request.download import DownloadRequest
    from storage.request.source import Source
    from storage.worker.events import Reporter
    from storage.worker.fetcher import Fetcher

__all__ = ["Verification"]


class Verification:
    """Reads every file of a copy, and compares it with manifest and source."""

    def __init__(self, target: Path, source: Source, reporter: Reporter) -> None:
        self._target = target
        self._source = source
        self._reporter = reporter

    def run(self, fetcher: Fetcher | None, request: DownloadRequest) -> None:
        """Check all files, then raise one error that names all problems.

        Raises:
            NotFoundError: There is no published copy.
            CorruptError: Files are missing or differ.
            ChangedError: The copy is intact, but the source has other files or content by now.
        """
        manifest = read_manifest(self._target)
        if manifest is None:
            raise NotFoundError(f"{self._target} has no manifest: there is no finished download to verify")
        entries = [each for each in manifest.entries if selected(each.file.path, request.include, request.exclude)]
        if not entries:
            raise NotFoundError(f"none of the {len(manifest.entries)} files of {self._target} matches the patterns")
        total = sum(entry.file.size for entry in entries)
        self._reporter.planned(
            action=request.action, source=manifest.source, revision=manifest.revision, files=len(entries), total=total,
            kept_files=len(entries), kept=total, fetch_files=0, fetch_bytes=0, resumed=0, free_bytes=0,
        )  # fmt: skip
        current = self._current(manifest, fetcher, request)
        wrong = [found for entry in entries if (found := self._check(entry, _peer(fetcher, entry, current)))]
        if wrong:
            raise CorruptError(f"{self._target}: {listed(wrong)}")
        changes = _changes(entries, current) if current is not None else []
        if changes:
            raise ChangedError(f"{manifest.source} is not what {self._target} was made of: {listed(changes)}")
        self._reporter.done(files=len(entries), revision=manifest.revision)

    def _current(
        self, manifest: Manifest, fetcher: Fetcher | None, request: DownloadRequest
    ) -> Mapping[str, RemoteFile] | None:
        """Return the source's current files by path; `None` when verifying offline."""
        if fetcher is None:
            return None
        if not same_source(manifest.source, self._source.uri):
            raise ChangedError(f"{self._target} is a copy of {manifest.source}, not of {self._source.uri}")
        return {file.path: file for file in select(fetcher.listing(), request.include, request.exclude).files}

    def _check(self, entry: Entry, fetcher: Fetcher | None) -> str | None:
        file, path = entry.file, self._target / entry.file.path
        if not is_real(self._target, file.path.rpartition("/")[0]):
            return f"{file.path} lies behind a link"
        try:
            status = os.lstat(path)
        except OSError:
            return f"{file.path} is missing"
        if not S_ISREG(status.st_mode) or status.st_size != file.size:
            return f"{file.path} has {status.st_size} bytes instead of {file.size}"
        if not self._has_content(file, path, fetcher):
            return f"{file.path} has other content"
        self._reporter.on_verified(file)
        return None

    def _has_content(self, file: RemoteFile, path: Path, fetcher: Fetcher | None) -> bool:
        if file.digest:
            return matches(path, file.digest, self._reporter.on_hashed)
        # A volume gives no digests: its files are compared byte for byte. Other sources leave nothing to compare but
        # the size.
        same = getattr(fetcher, "same_content", None)
        return same is None or bool(same(file, path, self._reporter.on_hashed))


def _peer(fetcher: Fetcher | None, entry: Entry, current: Mapping[str, RemoteFile] | None) -> Fetcher | None:
    """Return the fetcher if the source still has the same file. A changed one says nothing about the copy."""
    return fetcher if current and _is_same(current.get(entry.file.path), entry.file) else None


def _is_same(now: RemoteFile | None, then: RemoteFile) -> bool:
    return now is not None and (now.size, now.validator) == (then.size, then.validator)


def _changes(entries: Sequence[Entry], current: Mapping[str, RemoteFile]) -> list[str]:
    known = {entry.file.path: entry.file for entry in entries}
    gone = [f"{path} is gone" for path in known if path not in current]
    new = [f"{path} is new" for path in current if path not in known]
    changed = [f"{path} has changed" for path in known if path in current and not _is_same(current[path], known[path])]
    return [*gone, *changed, *new]
