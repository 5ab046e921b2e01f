"""An adapter's files before a load: found on disk, or downloaded into a directory of their own.

With a source, each content has its own directory below the adapter's base directory
(`storage.disk.generations`). So a download never touches files that the engine has open,
and the engine's prefix cache never finds old blocks under the path of new content.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from lora import codes
from lora.adapter import Installed
from lora.errors import DownloadFailedError, InvalidAdapterError
from lora.files.preflight import inspect
from storage.disk.generations import Generations
from storage.disk.manifest import read_manifest
from storage.errors import StorageError
from storage.request.download import DownloadRequest
from storage.request.source import same_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lora.adapter import Facts, Wanted
    from lora.files.contents import Contents
    from lora.files.references import References
    from storage.request.config import Config
    from storage.supervisor.status import JobStatus

__all__ = ["Downloads", "Extras", "Installation"]

# A download may take longer than any timeout; the loop around this wait does not end before it does.
_POLL_SECONDS: Final = 3600.0


class Downloads(Protocol):
    """The downloads of this runtime: `storage.supervisor.supervisor.Supervisor`."""

    def submit(self, request: DownloadRequest) -> JobStatus:
        """Start a download, or join one that does the same; raises StorageError."""

    def wait(self, job_id: str, timeout: float | None = None) -> JobStatus:
        """Wait until a download has ended, for `timeout` seconds at most, and return its status."""

    def cancel(self, job_id: str) -> JobStatus:
        """Cancel a download."""


@dataclass(frozen=True, slots=True)
class Extras:
    """A call's settings for its download. They hold credentials, so they are never written to disk.

    Attributes:
        config: Credentials and endpoints.
        max_workers: Concurrent requests of the download.
    """

    config: Config
    max_workers: int = 8


class Installation:
    """Finds or downloads adapters' files; safe for threads."""

    def __init__(self, downloads: Downloads, config: Config, contents: Contents, references: References) -> None:
        """Without a call's own settings, downloads use the pod's `config`."""
        self._downloads = downloads
        self._config = config
        self._contents = contents
        self._references = references

    def loaded(self, wanted: Wanted, loaded: Wanted | None) -> tuple[Installed, Facts] | None:
        """Return the files that the engine has already, if they come from the wanted source.

        Raises:
            InvalidAdapterError: The files were damaged since they were loaded.
        """
        if wanted.source is None or wanted.refresh or loaded is None or not loaded.has_files_of(wanted):
            return None
        installed = loaded.installed
        return (installed, inspect(installed.path, allow_pickle=wanted.allow_pickle)) if installed else None

    def on_disk(self, wanted: Wanted, extras: Extras | None) -> tuple[Installed, Facts] | None:
        """Return complete files that need no download; `None` if there are none.

        Raises:
            InvalidAdapterError: Without a source, the directory does not hold an adapter.
        """
        if wanted.source is None:
            return self._inspected(wanted, Installed(wanted.path, ""))
        if wanted.refresh or extras is not None:  # a call wants the current content of the source
            return None
        for installed in self._candidates(wanted):
            try:
                return self._inspected(wanted, installed)
            except InvalidAdapterError:
                continue  # damaged or removed since
        return None

    def _candidates(self, wanted: Wanted) -> Iterator[Installed]:
        if wanted.installed:
            yield wanted.installed
        generations = Generations(wanted.path)
        for one in generations.of(str(wanted.origin_uri))[-1:]:
            yield Installed(generations.path(one), one.content, one.revision)

    def _inspected(self, wanted: Wanted, installed: Installed) -> tuple[Installed, Facts]:
        if wanted.source is not None and installed.is_by_content:
            # Refer first, then look: otherwise another runtime could remove the directory in between (ADR 15).
            self._references.hold(installed.path)
        facts = inspect(installed.path, allow_pickle=wanted.allow_pickle)
        return Installed(installed.path, installed.content or self.content(installed.path), installed.revision), facts

    def content(self, path: Path) -> str:
        """Return the content of a directory, as a digest.

        Raises:
            InvalidAdapterError: A file in the directory cannot be read.
        """
        try:
            return self._contents.of(path)
        except OSError as error:
            raise InvalidAdapterError(
                codes.INVALID_ADAPTER, f"{error.filename or path} cannot be read: {error.strerror}"
            ) from None

    def is_same_copy(self, path: Path, wanted: Wanted, installed: Installed) -> bool:
        """Tell whether a directory of an earlier download has the content of `installed`.

        Version 0.1 named directories by their source. Such a copy needs no replacement if the content is the same.
        """
        manifest = read_manifest(path)
        if manifest is None or not same_source(manifest.source, str(wanted.origin_uri)):
            return False
        try:
            return self._contents.of(path) == installed.content
        except OSError:
            return False

    def request(self, wanted: Wanted, extras: Extras | None) -> str:
        """Start a download of the source's newest content; return the download's id.

        Raises:
            DownloadFailedError: The download was refused.
        """
        extras = extras or Extras(self._config)
        request = DownloadRequest(
            str(wanted.source), str(wanted.path), config=extras.config, max_workers=extras.max_workers,
            by_content=True, fresh=wanted.refresh,
        )  # fmt: skip
        try:
            return self._downloads.submit(request).id
        except StorageError as error:
            raise DownloadFailedError(error.row, error.message) from error

    def fetched(self, wanted: Wanted, download: str) -> tuple[Installed, Facts] | None:
        """Wait for a download and return its files; `None` if another runtime has removed them already.

        Raises:
            DownloadFailedError: The download failed.
            InvalidAdapterError: The files are not an adapter.
        """
        status = self._wait(download)
        path = Path(status.path)
        try:
            return self._inspected(wanted, Installed(path, path.name, status.revision))
        except InvalidAdapterError:
            if path.is_dir():
                raise
            return None

    def _wait(self, download: str) -> JobStatus:
        try:
            while not (status := self._downloads.wait(download, _POLL_SECONDS)).is_final:
                pass
        except StorageError as error:
            raise DownloadFailedError(error.row, error.message) from error
        if status.error:
            raise DownloadFailedError(status.error.row, status.error.message)
        return status
