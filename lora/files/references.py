"""References to the generations that each runtime on a volume needs, and the removal of those that none needs.

    BASE/.kthena/refs/pod-0.default      {"pod": "pod-0.default", "generations": ["3f1c…", …]}

A generation is a directory named by its content (`storage.disk.generations`). A runtime first refers to a
generation, and then checks that it exists. It renews its file once per hour; a file that was not renewed for a day
belongs to a runtime that is gone.

A generation is removed in two steps: it is renamed, and the references are read once more. If a runtime has referred
to it in between, the rename is undone. A common lock is no alternative: a download holds it for as long as it takes
(docs/adr/0015).
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from threading import Lock as ThreadLock
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from storage.disk.generations import Generations
from storage.disk.lock import Lock
from storage.disk.regular import read_record
from storage.errors import LockedError
from storage.request.reserved import OWN_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["References"]

logger: Final = logging.getLogger(__name__)

# Seconds after which a runtime renews its file, and after which an unrenewed file no longer counts.
RENEW_SECONDS: Final = 3600.0
DEAD_SECONDS: Final = 24 * 3600.0
_REFS: Final = f"{OWN_DIRECTORY}/refs"
_MAX_BYTES: Final = 1 << 20
# Prefixes of a generation that was renamed for removal, and of one whose removal has begun.
_LEAVING: Final = "leaving-"
_GONE: Final = "gone-"


class References:
    """The references of this runtime; safe for threads."""

    def __init__(self, pod: str, *, clock: Callable[[], float] = monotonic) -> None:
        """Write references under the pod's name, which no two runtimes on a volume share."""
        self._pod = pod
        self._clock = clock
        self._lock = ThreadLock()
        self._held: dict[Path, set[str]] = {}
        self._renewed: dict[Path, float] = {}
        self._failed: set[Path] = set()
        self._locks: dict[Path, Lock] = {}

    def hold(self, path: Path) -> None:
        """Refer to a generation. Only after that may the caller check whether it exists."""
        with self._lock:
            names = self._held.setdefault(path.parent, set())
            if path.name not in names:
                names.add(path.name)
                self._write(path.parent)

    def settle(self, needed: Iterable[Path]) -> list[Path]:
        """Refer to exactly these generations; return the bases where references were dropped."""
        wanted: dict[Path, set[str]] = {}
        for path in needed:
            wanted.setdefault(path.parent, set()).add(path.name)
        with self._lock:
            changed = [base for base, names in self._held.items() if names - wanted.get(base, set())]
            for base in {*self._held, *wanted}:
                names = wanted.get(base, set())
                if names != self._held.get(base):
                    self._held[base] = names
                    self._write(base)
            self._held = {base: names for base, names in self._held.items() if names}
        return changed

    def renew(self) -> None:
        """Rewrite each file that is an hour old, to show that this runtime is alive."""
        with self._lock:
            for base in list(self._held):
                if self._clock() - self._renewed.get(base, -RENEW_SECONDS) >= RENEW_SECONDS:
                    self._write(base)

    def _write(self, base: Path) -> None:
        path = self._path(base)
        try:
            if not self._held[base]:
                path.unlink(missing_ok=True)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.draft")
            draft.write_text(json.dumps({"pod": self._pod, "generations": sorted(self._held[base])}))
            draft.replace(path)
        except OSError as error:
            # Logged once for each base, until a write succeeds.
            if base not in self._failed:
                logger.warning(
                    "%s cannot be written: other runtimes may remove adapters there: %s", path, error.strerror
                )
            self._failed.add(base)
            self._renewed.pop(base, None)
        else:
            self._failed.discard(base)
            self._renewed[base] = self._clock()

    def _path(self, base: Path) -> Path:
        return base / _REFS / quote(self._pod, safe="")

    def sweep(self, base: Path, in_use: Iterable[Path]) -> bool:
        """Remove the generations of a base that no runtime needs; return False if a download is in progress there.

        Args:
            base: The directory that holds the generations.
            in_use: Directories that the engine has, or that this runtime needs.
        """
        work = base / OWN_DIRECTORY / "work"
        # The same Lock object at each sweep: it takes several looks to see that a holder on another machine is dead.
        lock = self._locks.setdefault(base, Lock(work, timeout=0.0, clock=self._clock))
        try:
            with lock:
                # Compared by name only: an engine may have received another spelling of the path.
                self._sweep(base, {path.name for path in in_use})
        except LockedError:
            return False
        except OSError as error:
            logger.warning("old adapters in %s cannot be removed: %s", base, error.strerror)
        del self._locks[base]
        with suppress(OSError):
            work.rmdir()
        return True

    def _sweep(self, base: Path, in_use: set[str]) -> None:
        generations = Generations(base)
        # `None`: without a readable record it is unknown which directories are this product's, so nothing is removed.
        kept = generations.kept()
        if kept is None:
            return
        for gone in (base / OWN_DIRECTORY).glob(f"{_GONE}*"):  # an earlier sweep was cut short
            shutil.rmtree(gone, ignore_errors=True)
        for leaving in (base / OWN_DIRECTORY).glob(f"{_LEAVING}*"):
            self._finish(leaving)
        unneeded = generations.contents() - kept - in_use - self._referred(base)
        removed = [name for name in sorted(unneeded) if (base / name).is_dir() and self._remove(base / name)]
        if removed:
            logger.info("removed %d directories of old adapters in %s: %s", len(removed), base, ", ".join(removed))

    def _remove(self, path: Path) -> bool:
        leaving = path.parent / OWN_DIRECTORY / f"{_LEAVING}{path.name}"
        path.rename(leaving)
        return self._finish(leaving)

    def _finish(self, leaving: Path) -> bool:
        """Remove a renamed generation, or rename it back if a runtime has referred to it meanwhile."""
        base, name = leaving.parent.parent, leaving.name.removeprefix(_LEAVING)
        if name in self._referred(base) and not (base / name).exists():
            leaving.rename(base / name)
            return False
        gone = leaving.with_name(f"{_GONE}{name}")  # from here on it may be incomplete, and must not come back
        leaving.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        return True

    def _referred(self, base: Path) -> set[str]:
        """Return the names that this runtime and other living runtimes refer to.

        Raises:
            OSError: A reference cannot be read.
        """
        with self._lock:
            names = set(self._held.get(base, ()))
        folder = base / _REFS
        now = _time_of(folder)
        for path in [one for one in folder.iterdir() if not one.name.startswith(".")]:
            with suppress(FileNotFoundError):  # its runtime removed it meanwhile
                if now - path.stat().st_mtime < DEAD_SECONDS:
                    names |= _generations(path)
        return names


def _time_of(folder: Path) -> float:
    """Return the current time of a volume's clock: a file server's clock may differ from this machine's."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".clock-", dir=folder)
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        Path(name).unlink(missing_ok=True)


def _generations(path: Path) -> set[str]:
    """Return the names in a reference file.

    Raises:
        OSError: The file cannot be read. What it refers to is unknown, so nothing may be removed.
    """
    try:
        data: Any = json.loads(read_record(path, _MAX_BYTES))
        return {str(name) for name in data["generations"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise OSError(0, "a reference that cannot be read", str(path)) from error
