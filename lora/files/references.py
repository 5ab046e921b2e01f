"""Which generations on a volume somebody needs, and the removal of those that nobody does.

    BASE/.kthena/refs/default.pod-0      {"pod": "pod-0.default", "generations": ["3f1c…", …]}

Runtimes that share a volume refer to each generation that they need, before they
look whether it is there, and renew their file each hour. A file that was not
renewed for a day is of a runtime that is gone. A generation is removed in two
steps: it is renamed first, and the references are read once more; so one that a
runtime has just taken up comes back.
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

RENEW_SECONDS: Final = 3600.0
DEAD_SECONDS: Final = 24 * 3600.0
_REFS: Final = f"{OWN_DIRECTORY}/refs"
_MAX_BYTES: Final = 1 << 20
_LEAVING: Final = "leaving-"
_GONE: Final = "gone-"


class References:
    """What this runtime needs; safe for threads."""

    def __init__(self, pod: str, *, clock: Callable[[], float] = monotonic) -> None:
        """Refer to generations in the name of a pod."""
        self._pod = pod
        self._clock = clock
        self._lock = ThreadLock()
        self._held: dict[Path, set[str]] = {}
        self._renewed: dict[Path, float] = {}
        self._failed: set[Path] = set()
        self._locks: dict[Path, Lock] = {}

    def hold(self, path: Path) -> None:
        """Refer to a generation; whether it is there is to be seen after that."""
        with self._lock:
            names = self._held.setdefault(path.parent, set())
            if path.name not in names:
                names.add(path.name)
                self._write(path.parent)

    def settle(self, needed: Iterable[Path]) -> list[Path]:
        """Refer to these generations and no others; return the bases where some were let go."""
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
        """Show that this runtime is alive, where that was an hour ago."""
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
        """Remove the generations of a base that nobody needs; return whether that could be done now.

        Args:
            base: A directory of generations. While a download is under way there, nothing is removed.
            in_use: Directories that the engine has, or that are wanted here.
        """
        work = base / OWN_DIRECTORY / "work"
        # The same until it is free: it takes several looks to see that its holder on another machine is dead.
        lock = self._locks.setdefault(base, Lock(work, timeout=0.0, clock=self._clock))
        try:
            with lock:
                # By their names: an engine may have been given another way of writing the path.
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
        """Remove a generation that was renamed, or bring it back if somebody has referred to it meanwhile."""
        base, name = leaving.parent.parent, leaving.name.removeprefix(_LEAVING)
        if name in self._referred(base) and not (base / name).exists():
            leaving.rename(base / name)
            return False
        gone = leaving.with_name(f"{_GONE}{name}")  # not to be brought back any more: it may soon be a part
        leaving.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        return True

    def _referred(self, base: Path) -> set[str]:
        """Return what this runtime and the others that live refer to."""
        with self._lock:
            names = set(self._held.get(base, ()))
        folder = base / _REFS
        now = _time_of(folder)
        for path in [one for one in folder.iterdir() if not one.name.startswith(".")]:
            with suppress(FileNotFoundError):  # one that left meanwhile
                if now - path.stat().st_mtime < DEAD_SECONDS:
                    names |= _generations(path)
        return names


def _time_of(folder: Path) -> float:
    """Return the time of a volume, by which the ages of its files are judged: ours may be another."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".clock-", dir=folder)
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)
        Path(name).unlink(missing_ok=True)


def _generations(path: Path) -> set[str]:
    """Return what a file refers to.

    Raises:
        OSError: It cannot be read: nothing is known, so nothing may be removed.
    """
    try:
        data: Any = json.loads(read_record(path, _MAX_BYTES))
        return {str(name) for name in data["generations"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise OSError(0, "a reference that cannot be read", str(path)) from error
