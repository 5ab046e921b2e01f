"""Follow the Model file: whenever it changes, the adapters of the Model are those in it.

The file is read each second and compared as a whole, which sees every way of
changing it: a ConfigMap's symlink swap, an editor's rename, writing in place.
A new text counts when it was read twice, so a file that is half written does not.
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
# As much as a ConfigMap holds.
_MAX_BYTES: Final = 1 << 20


class Wants(Protocol):
    """Who is told what the Model asks for."""

    def want_exactly(self, wanted: Iterable[Wanted]) -> None:
        """Make the Model's adapters these."""


class ModelSource:
    """Owns the thread that reads the file.

    Attributes:
        problem: Why the file as it is now is not followed; `None` when it is.
    """

    def __init__(self, path: Path, *, backend: str | None, lora_dir: Path, manager: Wants) -> None:
        """Follow `path`; see `model_yaml.adapters_of` for `backend` and `lora_dir`."""
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
        """Whether the file as it is now is followed."""
        return self.problem is None

    def start(self) -> None:
        """Begin to follow the file."""
        self._thread.start()

    def stop(self) -> None:
        """Follow it no more."""
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
        """Take the file as it is."""
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
        self._applied = None  # looked at again when it is back
        return None

    def _apply(self, text: bytes | None) -> None:
        if text is None:
            return
        self._applied = text
        try:
            wanted = adapters_of(text, backend=self._backend, lora_dir=self._lora_dir)
            self._manager.want_exactly(wanted)
        except ModelFileError as error:
            self._report(f"{self._path}: {error}; its adapters stay as they were")
        except LoraError as error:
            self._applied = None  # tried again at the next look
            self._report(f"{self._path} cannot be followed: {error.message}")
        else:
            self._report(None)
            logger.info("the Model asks for %d adapters", len(wanted))

    def _report(self, problem: str | None) -> None:
        if problem and problem != self.problem:
            logger.error("%s", problem)
        self.problem = problem
