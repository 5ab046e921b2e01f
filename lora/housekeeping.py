"""Removes directories of former contents once no engine and no runtime needs them (docs/adr/0015)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lora.record import WORKING
from storage.disk.generations import content_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lora.engine.client import Models
    from lora.files.references import References
    from lora.record import Record

__all__ = ["Housekeeping"]


class Housekeeping:
    """Runs in the watcher's thread, after each comparison. Not safe for other threads."""

    def __init__(self, references: References) -> None:
        """Write references to needed directories with `references`."""
        self._references = references
        # Base directories that may have something to remove.
        self._due: set[Path] = set()

    def tidy(self, records: Sequence[Record], models: Models | None) -> None:
        """Write references to the directories that are needed, and remove those that no runtime needs.

        Args:
            records: All adapters of this runtime.
            models: What the engine has; `None` if unknown: then nothing is removed.
        """
        self._references.renew()
        if any(record.phase in WORKING for record in records):
            return  # the worker may have found a directory that the record does not name yet
        needed = {path for record in records for path in _generations(record)}
        in_use = needed | {Path(path) for path in (models.adapters.values() if models else ())}
        # The engine may also have adapters of other clients, or of this runtime before a restart without --state-dir.
        # The references protect their directories from other runtimes too.
        self._due.update(self._references.settle(needed | {path for path in in_use - needed if content_at(path)}))
        if models is None or not self._due:
            return
        self._due = {base for base in self._due if not self._references.sweep(base, in_use)}


def _generations(record: Record) -> set[Path]:
    """Return the directories that a record needs: of the loaded, the desired and the next adapter.

    Without a source the directory belongs to the user, and is never removed.
    """
    wanted = [one for one in (record.loaded, record.desired, record.goal.wanted) if one and one.source]
    return {one.installed.path for one in wanted if one.installed and one.installed.is_by_content}
