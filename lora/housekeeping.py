"""Removes the directories of old contents, when no engine and no runtime needs them any more."""

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
    """Works between two comparisons of the engine with the desired set; for that one thread."""

    def __init__(self, references: References) -> None:
        """Refer to what is needed by `references`."""
        self._references = references
        self._due: set[Path] = set()

    def tidy(self, records: Sequence[Record], models: Models | None) -> None:
        """Refer to what the records need, and remove what nobody does.

        Args:
            records: All adapters of this runtime.
            models: What the engine has; `None` when that is not known, and nothing is removed.
        """
        self._references.renew()
        if any(record.phase in WORKING for record in records):
            return  # it may be about to need another directory
        needed = {path for record in records for path in _generations(record)}
        in_use = needed | {Path(path) for path in (models.adapters.values() if models else ())}
        # What the engine has from others, or from before a restart, must not be removed by other runtimes either.
        self._due.update(self._references.settle(needed | {path for path in in_use - needed if content_at(path)}))
        if models is None or not self._due:
            return
        self._due = {base for base in self._due if not self._references.sweep(base, in_use)}


def _generations(record: Record) -> set[Path]:
    """Return the directories that an adapter with a source needs: of what is loaded, and of what should be."""
    wanted = [one for one in (record.loaded, record.desired, record.goal.wanted) if one and one.source]
    return {one.installed.path for one in wanted if one.installed and one.installed.is_by_content}
