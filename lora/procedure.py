"""The steps of one attempt to load, replace or unload an adapter.

    install (without touching loaded files) -> preflight -> unload the former -> reset the prefix cache -> load
    the engine refuses the new adapter      -> load the former one again (roll back)

The files of a loaded adapter are never touched, and `load_inplace` is never used: both have killed the engine
(observed on vLLM 0.32).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lora import codes
from lora.adapter import Installed
from lora.engine.prefix_cache import UNKNOWN
from lora.errors import DownloadFailedError, EngineRefusedError, InvalidAdapterError, RolledBackError
from lora.transitions import Event
from storage.disk.generations import content_at

if TYPE_CHECKING:
    from lora.adapter import Facts, Wanted
    from lora.engine.client import EngineClient
    from lora.engine.prefix_cache import PrefixCache
    from lora.files.installation import Installation
    from lora.record import Goal, Record
    from lora.transitions import Records

__all__ = ["Procedure"]

# Downloads per attempt. Another runtime on the volume may remove a directory between the end of the download and this
# runtime's reference to it (`lora.files.references`).
_DOWNLOADS: Final = 3


class Procedure:
    """Carries out goals, for the worker that holds the record. It holds no lock while it waits.

    Attributes:
        engine_lists: Whether the engine's list of models includes its adapters. SGLang before 0.5.6 leaves them out;
            the first load of an adapter that is loaded already finds that out.
    """

    def __init__(self, engine: EngineClient, installation: Installation, cache: PrefixCache, records: Records) -> None:
        """Use `engine` and its `cache`; note each step in `records`."""
        self._engine = engine
        self._installation = installation
        self._cache = cache
        self._records = records
        self.engine_lists = True

    def load(self, record: Record, goal: Goal, wanted: Wanted) -> Wanted:
        """Make the engine serve `wanted`; return it with the files that the engine has.

        Raises:
            LoraError: The adapter is not loaded; with RolledBackError the former one is loaded again.
        """
        installed, facts = self._install(record, goal, wanted)
        wanted = replace(wanted, installed=installed)
        self._records.note(record, Event.LOADING)
        models = self._engine.models()
        self.engine_lists |= bool(models.adapters)
        if wanted.name in models.bases:
            raise InvalidAdapterError(codes.NAME_TAKEN, f"{wanted.name!r} is the name of a base model: choose another")
        # Asked at each load: the engine may have been upgraded since the last one, and the key depends on the version.
        self._cache.learn()
        listed = models.adapters.get(wanted.name)
        # SGLang before 0.5.6 does not list its adapters. Then the record says what the engine has.
        present = listed or (str(record.loaded.engine_path) if record.loaded else None)
        found = self._adopted(record, wanted, Path(present)) if present else None
        if present and found is None:
            found = self._replace(record, goal, wanted, Path(present))
        elif listed is None:
            found = self._load(record, goal, wanted)
        return self._settle(record, replace(found or wanted, refresh=False), facts)

    def unload(self, record: Record) -> None:
        """Unload the adapter; success if the engine does not have it.

        Raises:
            LoraError: The engine does not answer, or refuses.
        """
        self._records.note(record, Event.UNLOADING)
        # Its path is read first: blocks of this content stay in the prefix cache after the unload.
        path = self._engine.models().adapters.get(record.name)
        self._engine.unload(record.name)
        self._cache.unloaded(record.name, _found_at(Path(path)) if path else None)
        self._records.engine_has(record, None)

    def _install(self, record: Record, goal: Goal, wanted: Wanted) -> tuple[Installed, Facts]:
        damage = ""
        try:
            found = self._installation.loaded(wanted, record.loaded) or self._installation.on_disk(wanted, goal.extras)
        except InvalidAdapterError as error:
            # ADR 15: a plain load downloads a loaded adapter again if its directory is damaged.
            found, damage = None, _damage(error, record.loaded, wanted)
        if found:
            return found
        try:
            return self._fetch(record, goal, wanted)
        except DownloadFailedError as error:
            if not damage:
                raise
            raise DownloadFailedError(error.row, f"{damage}; it cannot be fetched again: {error.message}") from error

    def _fetch(self, record: Record, goal: Goal, wanted: Wanted) -> tuple[Installed, Facts]:
        for _ in range(_DOWNLOADS):
            download = self._installation.request(wanted, goal.extras)
            self._records.note(record, Event.FETCHING, job=download)
            if found := self._installation.fetched(wanted, download):
                return found
        raise InvalidAdapterError(
            codes.INVALID_ADAPTER,
            f"{wanted.path}: another runtime removed the adapter after each of {_DOWNLOADS} downloads",
        )

    def _adopted(self, record: Record, wanted: Wanted, present: Path) -> Wanted | None:
        """Return the adapter as the engine has it, if it has the wanted content; `None` if it must be replaced."""
        installed = wanted.installed
        if installed is None:
            return None
        known = self._known_content(record, present)
        if present == installed.path:
            # Without a source the files in a directory can change. Unknown content then counts as the wanted content
            # only if no refresh was asked for.
            is_same = known == installed.content or (known is None and not (wanted.refresh and wanted.source is None))
            return wanted if is_same or wanted.source else None
        # Another directory. A copy that version 0.1 made there is adopted if it still has the wanted content.
        is_known_other = known is not None and known != installed.content
        if wanted.source and not is_known_other and self._installation.is_same_copy(present, wanted, installed):
            return replace(wanted, installed=replace(installed, path=present))
        return None

    def _known_content(self, record: Record, path: Path) -> str | None:
        """Return the content that the engine loaded from a directory; `None` if unknown."""
        if record.loaded and record.loaded.installed and record.loaded.installed.path == path:
            return record.loaded.installed.content
        found = self._cache.last_content(record.name, path)
        return None if found == UNKNOWN else found

    def _load(self, record: Record, goal: Goal, wanted: Wanted) -> Wanted:
        if not self._bring(goal, wanted):
            return wanted
        # The engine had it already: another client loaded it after the listing, or this is a SGLang before 0.5.6, which
        # does not list adapters.
        present = self._engine.models().adapters.get(wanted.name)
        self.engine_lists = present is not None
        if present is not None and present != str(wanted.engine_path):
            return self._replace(record, goal, wanted, Path(present))
        return wanted

    def _bring(self, goal: Goal, wanted: Wanted) -> bool:
        """Load an adapter; return whether the engine says that it was loaded already.

        Raises:
            WithdrawnError: The goal was withdrawn during the wait for a reset: the adapter must not be loaded.
        """
        if wanted.installed:
            self._cache.make_way(wanted.name, wanted.installed, goal.withdrawn)
        return self._engine.load(wanted.name, wanted.engine_path)

    def _replace(self, record: Record, goal: Goal, wanted: Wanted, former: Path) -> Wanted:
        # The unload comes first: vLLM refuses to load a name that it has, and `load_inplace` is not safe.
        # From here to the load the engine has neither adapter. The record says so, in case an error ends the attempt.
        loaded = record.loaded
        self._records.engine_has(record, None)
        if loaded is None or loaded.engine_path != former:
            # Another client, or an earlier runtime, loaded the former adapter. What is known of it is enough to load it
            # again.
            content = self._cache.last_content(wanted.name, former) or _found_at(former).content
            loaded = replace(wanted, path=former, source=None, installed=Installed(former, content), refresh=False)
        self._engine.unload(wanted.name)
        self._cache.unloaded(wanted.name, _found_at(former))
        try:
            self._bring(goal, wanted)
        except EngineRefusedError as error:
            self._bring(goal, loaded)
            self._settle(record, loaded, record.facts)
            raise RolledBackError(error.row, f"{error.message}; the former adapter is loaded again") from error
        return wanted

    def _settle(self, record: Record, found: Wanted, facts: Facts | None) -> Wanted:
        """Note in the prefix cache and in the record what the engine has now."""
        if found.installed:
            self._cache.loaded(found.name, found.installed)
        self._records.engine_has(record, found, facts, stale=self._cache.is_suspect(found.name))
        return found


def _damage(error: InvalidAdapterError, loaded: Wanted | None, wanted: Wanted) -> str:
    """Return the damage of a loaded adapter whose files can be downloaded again.

    Raises:
        InvalidAdapterError: The files cannot be downloaded again, or the adapter is not the loaded one.
    """
    if loaded is None or not loaded.has_files_of(wanted) or error.row is not codes.INVALID_ADAPTER:
        raise error
    if wanted.source is None:
        advice = "the engine still has what it read before: restore the directory, then load the adapter again"
        raise InvalidAdapterError(error.row, f"{error.message}; {advice}") from error
    return error.message


def _found_at(path: Path) -> Installed:
    """Return what is known of a directory that another client gave to the engine: its name may be its content."""
    return Installed(path, content_at(path) or UNKNOWN)
