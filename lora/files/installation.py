"""An adapter's files before the engine is asked: found on disk, or fetched into a directory of their own.

With a source, each content gets a directory below the adapter's base
(`storage.disk.generations`). So files that an engine has open are never touched, and
the engine's prefix cache never finds old blocks under the path of new content.
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

_POLL_SECONDS: Final = 3600.0


class Downloads(Protocol):
    """What brings files: `storage.supervisor.supervisor.Supervisor`."""

    def submit(self, request: DownloadRequest) -> JobStatus:
        """Take a download on."""

    def wait(self, job_id: str, timeout: float | None = None) -> JobStatus:
        """Return a download when it has ended."""

    def cancel(self, job_id: str) -> JobStatus:
        """Ask a download to end."""


@dataclass(frozen=True, slots=True)
class Extras:
    """What a call may bring for its download; never kept.

    Attributes:
        config: Credentials and endpoints.
        max_workers: Concurrent requests.
    """

    config: Config
    max_workers: int = 8


class Installation:
    """Finds or fetches files; safe for threads."""

    def __init__(self, downloads: Downloads, config: Config, contents: Contents, references: References) -> None:
        """Fetch with `downloads`, by default with the pod's own `config`."""
        self._downloads = downloads
        self._config = config
        self._contents = contents
        self._references = references

    def loaded(self, wanted: Wanted, loaded: Wanted | None) -> tuple[Installed, Facts] | None:
        """Return the files that the engine has already, where they are what is wanted.

        Raises:
            InvalidAdapterError: They were damaged since.
        """
        if wanted.source is None or wanted.refresh or loaded is None or not loaded.has_files_of(wanted):
            return None
        installed = loaded.installed
        return (installed, inspect(installed.path, allow_pickle=wanted.allow_pickle)) if installed else None

    def on_disk(self, wanted: Wanted, extras: Extras | None) -> tuple[Installed, Facts] | None:
        """Return the files that need no download; `None` where there are none that are whole.

        Raises:
            InvalidAdapterError: There is no source, and the directory does not hold an adapter.
        """
        if wanted.source is None:
            return self._inspected(wanted, Installed(wanted.path, ""))
        if wanted.refresh or extras is not None:  # a call wants the source as it is now
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
        for one in reversed(generations.of(str(wanted.origin_uri))[-1:]):
            yield Installed(generations.path(one), one.content, one.revision)

    def _inspected(self, wanted: Wanted, installed: Installed) -> tuple[Installed, Facts]:
        if wanted.source is not None and installed.is_by_content:
            self._references.hold(installed.path)
        facts = inspect(installed.path, allow_pickle=wanted.allow_pickle)
        return Installed(installed.path, installed.content or self.content(installed.path), installed.revision), facts

    def content(self, path: Path) -> str:
        """Return the content of a directory.

        Raises:
            InvalidAdapterError: It cannot be read.
        """
        try:
            return self._contents.of(path)
        except OSError as error:
            raise InvalidAdapterError(
                codes.INVALID_ADAPTER, f"{error.filename or path} cannot be read: {error.strerror}"
            ) from None

    def is_same_copy(self, path: Path, wanted: Wanted, installed: Installed) -> bool:
        """Tell whether a directory that we filled earlier has the same content; version 0.1 named directories otherwise."""
        manifest = read_manifest(path)
        if manifest is None or not same_source(manifest.source, str(wanted.origin_uri)):
            return False
        try:
            return self._contents.of(path) == installed.content
        except OSError:
            return False

    def request(self, wanted: Wanted, extras: Extras | None) -> str:
        """Ask for the newest content of the source; return the download's id.

        Raises:
            DownloadFailedError: It cannot be asked for.
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
        """Wait for a download and return its files; `None` when another runtime has removed them already.

        Raises:
            DownloadFailedError: It failed.
            InvalidAdapterError: Its files are no adapter.
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
