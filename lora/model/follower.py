"""Follows the Model file: a thread that applies each change of the file to the desired set.

The file is read once per second and compared as a whole. This notices every kind of
change: a ConfigMap's symlink swap, an editor's rename, and writing in place. A changed
text is applied once two consecutive reads are equal, so a half-written file is not.
"""

from __future__ import annotations

import logging
from threading import Event, Thread
from typing import TYPE_CHECKING, Final, Protocol

from lora.errors import LoraError
from lora.model.document import ModelFileError, adapters_of
from storage.disk.regular import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lora.adapter import Wanted

__all__ = ["ModelSource", "Wants"]

logger: Final = logging.getLogger(__name__)

POLL_SECONDS: Final = 1.0
# The size limit of a ConfigMap.
_MAX_BYTES: Final = 1 << 20


class Wants(Protocol):
    """Receives the adapters that the Model asks for: the manager."""

    def want_exactly(self, wanted: Iterable[Wanted]) -> None:
        """Make the Model's part of the desired set equal to `wanted`; raises LoraError."""


class ModelSource:
    """Owns the thread that follows the file.

    Attributes:
        problem: Why the current file is not applied; `None` if it is.
    """

    def __init__(self, path: Path, *, backend: str | None, lora_dir: Path, manager: Wants) -> None:
        """Follow `path`; see `lora.model.document.adapters_of` for `backend` and `lora_dir`."""
        self._path = path
        self._backend = backend
        self._lora_dir = lora_dir
        self._manager = manager
        self._stopping = Event()
        self._read: bytes | None = None
        self._applied: bytes | None = None
        self.problem: str | None = "not read yet"
        self._thread = Thread(target=self._follow, name="lora-model", daemon=True)

    @property
    def is_valid(self) -> bool:
        """Whether the current file is applied."""
        return self.problem is None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end. The Model's adapters stay as they are."""
        self._stopping.set()

    def _follow(self) -> None:
        look = self._begin
        while True:
            try:
                look()
            except Exception:
                logger.exception("following the Model failed: a defect of the runtime")
            if self._stopping.wait(POLL_SECONDS):
                return
            look = self._look

    def _begin(self) -> None:
        """Apply the file at the start, without waiting for a second read."""
        self._read = self._load()
        self._apply(self._read)

    def _look(self) -> None:
        text = self._load()
        if text == self._read and text != self._applied:
            self._apply(text)
        self._read = text

    def _load(self) -> bytes | None:
        try:
            return read_regular(self._path, _MAX_BYTES)
        except OSError as error:
            self._report(f"{self._path} cannot be read: {error.strerror}")
        self._applied = None  # applied again when the file is back, even if it has not changed
        return None

    def _apply(self, text: bytes | None) -> None:
        if text is None:
            return
        self._applied = None  # until it is: another text, or a failure that may pass, is tried again at the next read
        try:
            wanted = adapters_of(text, backend=self._backend, lora_dir=self._lora_dir)
            self._manager.want_exactly(wanted)
        except ModelFileError as error:
            self._applied = text  # it stays invalid until it changes
            self._report(f"{self._path}: {error}; its adapters stay as they were")
        except LoraError as error:
            self._report(f"{self._path} cannot be followed: {error.message}")
        else:
            self._applied = text
            self._report(None)
            logger.info("the Model asks for %d adapters", len(wanted))

    def _report(self, problem: str | None) -> None:
        if problem and problem != self.problem:
            logger.error("%s", problem)
        self.problem = problem
