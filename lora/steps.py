"""The steps from a goal to the engine: fetch, inspect, load, replace, take out.

    stage (download beside what is loaded) -> inspect -> unload the former -> load -> or load the former again

The files of a loaded adapter are never touched, and `load_inplace` is never
used: an engine dies of both (observed on vLLM 0.32).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Final, Protocol

from lora.adapter import State
from lora.errors import DownloadFailedError, EngineRefusedError, InvalidAdapterError, LoraError
from lora.preflight import inspect
from storage.errors import StorageError
from storage.manifest import read_manifest
from storage.request import DownloadRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from lora.adapter import Facts, Wanted
    from lora.engine import EngineClient
    from lora.slot import Slot
    from storage.config import Config
    from storage.manifest import Manifest
    from storage.snapshot import Snapshot

__all__ = ["Downloads", "Extras", "RolledBackError", "Steps"]

_POLL_SECONDS: Final = 3600.0


class Downloads(Protocol):
    """What brings files: `storage.jobs.Supervisor`."""

    def submit(self, request: DownloadRequest) -> Snapshot:
        """Take a download on."""

    def wait(self, job_id: str, timeout: float | None = None) -> Snapshot:
        """Return a download when it has ended."""


@dataclass(frozen=True, slots=True)
class Extras:
    """What a call may bring for its download; never kept.

    Attributes:
        config: Credentials and endpoints.
        max_workers: Requests at once.
    """

    config: Config
    max_workers: int = 8


class RolledBackError(LoraError):
    """The engine refused an adapter, and has the former one again."""


class Steps:
    """Carries goals out, for the thread that works for a slot. Holds no lock while it waits.

    Attributes:
        engine_lists: Whether the engine's list of models has its adapters;
            SGLang before 0.5.6 leaves them out.
    """

    def __init__(
        self,
        engine: EngineClient,
        downloads: Downloads,
        config: Config,
        *,
        note: Callable[[Slot, State], None],
        holder: Callable[[Wanted], Wanted | None],
    ) -> None:
        """Work with `engine` and `downloads`.

        Args:
            engine: Where adapters are loaded.
            downloads: What brings their files.
            config: The pod's own credentials and endpoints.
            note: Told of each change of a slot's state.
            holder: Returns the loaded adapter whose files a download would overwrite.
        """
        self._engine = engine
        self._downloads = downloads
        self._config = config
        self._note = note
        self._holder = holder
        self.engine_lists = True

    def load(self, slot: Slot, wanted: Wanted, extras: Extras | None, job: Callable[[str | None], None]) -> Wanted:
        """Make the engine have `wanted`; return it with the path it came from.

        Args:
            slot: The adapter's place; its `loaded` is kept up to date.
            wanted: What is to be loaded.
            extras: What the caller brought for the download; with `None`
                files that are there are taken as they are.
            job: Told of the download while it runs.

        Raises:
            LoraError: It could not be done; RolledBackError when the former one is back.
        """
        opened = self._opened() if wanted.source else frozenset()
        wanted = self._place(slot, wanted, opened)
        in_use = str(wanted.path) in opened or wanted.is_same(slot.loaded)
        facts = self._prepare(slot, wanted, extras, job, in_use=in_use)
        self._note(slot, State.LOADING)
        models = self._engine.models()
        if wanted.name in models.bases:
            raise InvalidAdapterError("name_taken", f"{wanted.name!r} is the name of a base model: choose another")
        present = models.adapters.get(wanted.name) or (str(slot.loaded.path) if slot.loaded else None)
        if present is not None and present != str(wanted.path):
            self._replace(slot, wanted, Path(present))
        elif wanted.name not in models.adapters:
            self._load(slot, wanted)
        elif slot.loaded:
            return wanted  # as it was
        slot.loaded, slot.facts, slot.loaded_since = wanted, facts, time()
        return wanted

    def unload(self, slot: Slot) -> None:
        """Make the engine not have the adapter.

        Raises:
            LoraError: It could not be done.
        """
        self._note(slot, State.UNLOADING)
        self._engine.unload(slot.name)
        slot.loaded = None

    def _opened(self) -> frozenset[str]:
        """Return the directories that the engine has adapters from; none while it is away."""
        try:
            return frozenset(self._engine.models().adapters.values())
        except LoraError:
            return frozenset()

    def _place(self, slot: Slot, wanted: Wanted, opened: frozenset[str]) -> Wanted:
        """Return a path of its own for other files than those that the engine has open there."""
        if wanted.source is None:
            return wanted
        aside = _beside(wanted, wanted.source)
        if aside.is_same(slot.loaded):
            return aside
        holder = self._holder(wanted)
        if holder:
            return wanted if wanted.has_files_of(holder) else aside
        return aside if str(wanted.path) in opened and _copy_of(wanted) is None else wanted

    def _prepare(
        self, slot: Slot, wanted: Wanted, extras: Extras | None, job: Callable[[str | None], None], *, in_use: bool
    ) -> Facts:
        copy = _copy_of(wanted)
        may_fetch = wanted.source is not None and not in_use
        if not may_fetch or (copy and extras is None):
            slot.revision = copy.revision if copy else None
            try:
                return inspect(wanted.path, allow_pickle=wanted.allow_pickle)
            except InvalidAdapterError:
                if not may_fetch:
                    raise
                # damaged since: fetched again
        self._note(slot, State.DOWNLOADING)
        slot.revision = self._download(wanted, extras, job)
        return inspect(wanted.path, allow_pickle=wanted.allow_pickle)

    def _download(self, wanted: Wanted, extras: Extras | None, job: Callable[[str | None], None]) -> str:
        extras = extras or Extras(self._config)
        request = DownloadRequest(
            str(wanted.source), str(wanted.path), config=extras.config, max_workers=extras.max_workers
        )
        try:
            snapshot = self._downloads.submit(request)
            job(snapshot.id)
            while not snapshot.is_final:
                snapshot = self._downloads.wait(snapshot.id, _POLL_SECONDS)
        except StorageError as error:
            raise DownloadFailedError(error.code, error.message) from error
        finally:
            job(None)
        if snapshot.error:
            raise DownloadFailedError(snapshot.error.code, snapshot.error.message)
        return snapshot.revision

    def _load(self, slot: Slot, wanted: Wanted) -> None:
        if not self._engine.load(wanted.name, wanted.path):
            return
        # It was there already: loaded by somebody since it was listed, or by a SGLang that does not list it.
        present = self._engine.models().adapters.get(wanted.name)
        self.engine_lists = present is not None
        if present is not None and present != str(wanted.path):
            self._replace(slot, wanted, Path(present))

    def _replace(self, slot: Slot, wanted: Wanted, former: Path) -> None:
        loaded, slot.loaded = slot.loaded, None
        if loaded is None or loaded.path != former:
            loaded = replace(wanted, path=former, source=None)
        self._engine.unload(wanted.name)
        try:
            self._engine.load(wanted.name, wanted.path)
        except EngineRefusedError as error:
            self._engine.load(wanted.name, former)
            slot.loaded = loaded
            raise RolledBackError(error.code, f"{error.message}; the former adapter is loaded again") from error


def _copy_of(wanted: Wanted) -> Manifest | None:
    """Return the manifest of the files in its directory if they are from its source."""
    manifest = read_manifest(wanted.path) if wanted.source else None
    return manifest if manifest and manifest.source == wanted.origin_uri else None


def _beside(wanted: Wanted, source: str) -> Wanted:
    digest = sha256(source.encode()).hexdigest()[:8]
    return replace(wanted, path=wanted.path.with_name(f"{wanted.path.name}-{digest}"))
