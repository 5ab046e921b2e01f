"""Whether a copy is still what was published, and still what the source has."""

from __future__ import annotations

import os
from stat import S_ISREG
from typing import TYPE_CHECKING, Final

from storage.digests import matches
from storage.errors import ChangedError, CorruptError, NotFoundError
from storage.manifest import read_manifest
from storage.plan import select

if TYPE_CHECKING:
    from pathlib import Path

    from storage.download import Fetcher
    from storage.manifest import Entry, Manifest
    from storage.plan import RemoteFile
    from storage.reporter import Reporter
    from storage.request import DownloadRequest
    from storage.source import Source

__all__ = ["Verification"]

_SHOWN: Final = 10


class Verification:
    """Reads every file of a copy."""

    def __init__(self, target: Path, source: Source, reporter: Reporter) -> None:
        self._target = target
        self._source = source
        self._reporter = reporter

    def run(self, fetcher: Fetcher | None, request: DownloadRequest) -> None:
        """Check all, then say what is wrong.

        Raises:
            NotFoundError: There is no published copy.
            CorruptError: Files are missing or differ.
            ChangedError: The source has others by now.
        """
        manifest = read_manifest(self._target)
        if manifest is None:
            raise NotFoundError(f"{self._target} has no manifest: there is no finished download to verify")
        total = sum(entry.file.size for entry in manifest.entries)
        self._reporter.planned(
            source=manifest.source, revision=manifest.revision, files=len(manifest.entries), total=total,
            kept_files=len(manifest.entries), kept=total, fetch_files=0, fetch_bytes=0, resumed=0, free_bytes=0,
        )  # fmt: skip
        wrong = [found for entry in manifest.entries if (found := self._check(entry, fetcher))]
        if wrong:
            raise CorruptError(_listed(f"{self._target}", wrong))
        changes = self._changes(manifest, fetcher, request) if fetcher else []
        if changes:
            raise ChangedError(_listed(f"{manifest.source} is not what {self._target} was made of", changes))
        self._reporter.done(files=len(manifest.entries), revision=manifest.revision)

    def _check(self, entry: Entry, fetcher: Fetcher | None) -> str | None:
        file, path = entry.file, self._target / entry.file.path
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
        same = getattr(fetcher, "same_content", None)
        return same is None or bool(same(file, path, self._reporter.on_hashed))

    def _changes(self, manifest: Manifest, fetcher: Fetcher, request: DownloadRequest) -> list[str]:
        if manifest.source != self._source_uri():
            return [f"the copy is of {manifest.source}"]
        known = {entry.file.path: entry.file for entry in manifest.entries}
        current = {file.path: file for file in select(fetcher.listing(), request.include, request.exclude).files}
        gone = [f"{path} is gone" for path in known if path not in current]
        new = [f"{path} is new" for path in current if path not in known]
        changed = [
            f"{path} has changed"
            for path in known
            if path in current
            and (current[path].size, current[path].validator) != (known[path].size, known[path].validator)
        ]
        return [*gone, *changed, *new]

    def _source_uri(self) -> str:
        # A revision is no part of whose copy it is.
        return self._source.uri.partition("@")[0] if self._source.scheme == "hf" else self._source.uri


def _listed(what: str, findings: list[str]) -> str:
    more = f" and {len(findings) - _SHOWN} more" if len(findings) > _SHOWN else ""
    return f"{what}: {', '.join(findings[:_SHOWN])}{more}"
