"""The desired set on disk, so that it survives a restart of the runtime.

    {"version": 2,
     "adapters": [{"name": ..., "path": ..., "source": ..., "origin": ..., "allow_pickle": ...,
                   "installed": {"path": ..., "content": ..., "revision": ...} or null, "refresh": ...}, ...],
     "removed": ["<name>", ...],
     "served": [["<name>", "<path>", "<content>"], ...],
     "check": "<SHA-256 of the rest>"}

`refresh` is a requested refresh that has not succeeded yet. Earlier runtimes neither write nor read it.
`removed` are adapters that are no longer desired but may still be in the engine.
`served` are contents whose blocks may be in the engine's prefix cache (`lora.engine.prefix_cache`).
Version 1 had neither `installed` nor `served`: its adapters are in `path` itself.

The file is written under another name, flushed, and renamed, so it is always complete.
It never holds credentials.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, Final, Protocol

from lora.adapter import Installed, Origin, Wanted
from lora.engine.prefix_cache import Served
from storage.disk.regular import read_regular

__all__ = ["Forgetful", "Kept", "Medium", "StateFile"]

logger: Final = logging.getLogger(__name__)

FILE: Final = "lora-adapters.json"
VERSION: Final = 2
# Whatever is read as a whole has a limit (ADR 17).
_MAX_BYTES: Final = 32 << 20
_VERSIONS: Final = (1, VERSION)


@dataclass(frozen=True, slots=True)
class Kept:
    """What survives a restart of the runtime; the module docstring explains each part."""

    wanted: tuple[Wanted, ...] = ()
    removed: tuple[str, ...] = ()
    served: tuple[Served, ...] = ()


class Medium(Protocol):
    """A place for the desired set."""

    def read(self) -> Kept:
        """Return the last written set; an empty one if there is none."""

    def write(self, kept: Kept) -> None:
        """Write the set; raises OSError if that fails."""


class Forgetful:
    """A medium that stores nothing, for a runtime without --state-dir."""

    def read(self) -> Kept:
        return Kept()

    def write(self, kept: Kept) -> None:
        """Discard the set: a restart of the runtime forgets it."""


class StateFile:
    """Stores the set in a directory that survives the container."""

    def __init__(self, directory: Path) -> None:
        """Create the directory if it is missing.

        Raises:
            OSError: The directory cannot be created.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / FILE
        self._stranger = False

    def read(self) -> Kept:
        """Return the set. A damaged or unreadable file counts as an empty set, and is kept under another name.

        The runtime must start with any file (docs/adr/0010).
        """
        self._stranger = False
        try:
            text = read_regular(self._path, _MAX_BYTES)
        except FileNotFoundError:
            return Kept()
        except OSError as error:
            # The next start may be able to read it. It stays in place until the runtime has a set to write.
            self._stranger = True
            logger.error("the adapters' state file cannot be read: %s", error.strerror)
            return Kept()
        try:
            return _decode(text)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            try:
                aside = self._put_aside()
            except OSError as error:
                logger.error("the adapters' state file is damaged, and cannot be put aside: %s", error.strerror)
            else:
                logger.error("the adapters' state file is damaged, put aside as %s", aside)
            return Kept()

    def _put_aside(self) -> Path:
        """Rename the file to a free name, so that an earlier damaged file is not overwritten."""
        names = (self._path.with_suffix(f".damaged{f'-{number}' if number > 1 else ''}") for number in count(1))
        aside = next(name for name in names if not name.exists())
        self._path.replace(aside)
        return aside

    def write(self, kept: Kept) -> None:
        """Replace the file.

        Raises:
            OSError: The file cannot be written.
        """
        if self._stranger:
            with suppress(FileNotFoundError):  # removed since, by whoever repaired the volume
                logger.warning("the adapters' state file that could not be read is put aside as %s", self._put_aside())
            self._stranger = False
        new = self._path.with_suffix(".new")
        # Flushed before the rename, and the directory after it: otherwise a crash of the machine could leave an empty
        # file under the final name, or undo the rename after a call was answered.
        with new.open("wb") as file:
            file.write(_encode(kept))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _encode(kept: Kept) -> bytes:
    adapters = [
        {
            "name": one.name,
            "path": str(one.path),
            "source": one.source,
            "origin": one.origin.value,
            "allow_pickle": one.allow_pickle,
            "installed": _installed_row(one.installed),
            "refresh": one.refresh,
        }
        for one in sorted(kept.wanted, key=lambda one: one.name)
    ]
    state: dict[str, Any] = {
        "version": VERSION,
        "adapters": adapters,
        "removed": sorted(kept.removed),
        "served": [list(one) for one in kept.served],
    }
    return json.dumps(state | {"check": _check(state)}, indent=1).encode()


def _decode(text: bytes) -> Kept:
    state = json.loads(text)
    if not isinstance(state, dict):
        message = "not an object"
        raise TypeError(message)
    check = state.pop("check")
    if state["version"] not in _VERSIONS or check != _check(state):
        message = "another version, or damaged"
        raise ValueError(message)
    served = (Served(*map(str, row)) for row in state.get("served", ()))
    return Kept(tuple(map(_wanted, state["adapters"])), tuple(state["removed"]), tuple(served))


def _wanted(row: dict[str, Any]) -> Wanted:
    installed = row.get("installed")
    return Wanted(
        row["name"], Path(row["path"]), row["source"], Origin(row["origin"]), bool(row["allow_pickle"]),
        Installed(Path(installed["path"]), installed["content"], installed["revision"]) if installed else None,
        bool(row.get("refresh", False)),
    )  # fmt: skip


def _installed_row(installed: Installed | None) -> dict[str, str | None] | None:
    if installed is None:
        return None
    return {"path": str(installed.path), "content": installed.content, "revision": installed.revision}


def _check(state: dict[str, Any]) -> str:
    return sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
