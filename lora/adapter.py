"""Adapters as values: what is wanted, what was found on disk, and how it stands."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from lora import codes
from lora.errors import InvalidAdapterError
from storage.request.limits import excess
from storage.request.source import parse_source

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Facts", "Installed", "Origin", "State", "Status", "Wanted", "check_directory", "check_name"]

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
_LONGEST_NAME: Final = 255


class State(StrEnum):
    """How an adapter stands: downloading -> loading -> loaded -> unloading, or failed and to be tried again."""

    PENDING = "pending"
    DOWNLOADING = "downloading"
    LOADING = "loading"
    LOADED = "loaded"
    UNLOADING = "unloading"
    FAILED = "failed"


class Origin(StrEnum):
    """Who wants an adapter; each takes back only what it asked for."""

    CALL = "call"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Installed:
    """An adapter's files, as the engine is given them.

    Attributes:
        path: The directory.
        content: The digest of what is in it (`lora.files.contents`).
        revision: What the source was resolved to, empty where it has no revisions; `None` without a source.
    """

    path: Path
    content: str
    revision: str | None = None

    @property
    def is_by_content(self) -> bool:
        """Whether the directory is named by its content; version 0.1 named directories by their source."""
        return self.path.name == self.content


@dataclass(frozen=True, slots=True)
class Wanted:
    """An adapter that should be loaded.

    Attributes:
        name: What requests call it.
        path: An absolute directory: that of the files, or with a source the
            base below which each content has a directory of its own.
        source: Where its files come from; `None` when they are there already.
        origin: Who asked for it.
        allow_pickle: Whether weights that can run code when they are read are taken.
        installed: The files that were found or fetched for it, once they were.
        refresh: Whether the source must still be resolved, or the directory read, although the adapter is loaded.
    """

    name: str
    path: Path
    source: str | None = None
    origin: Origin = Origin.CALL
    allow_pickle: bool = False
    installed: Installed | None = None
    refresh: bool = False

    @property
    def engine_path(self) -> Path:
        """The directory that the engine has it from, or will as far as is known."""
        return self.installed.path if self.installed else self.path

    @property
    def origin_uri(self) -> str | None:
        """Its source, in the one way of writing it that is compared."""
        return parse_source(self.source).uri if self.source else None

    def is_same(self, other: Wanted | None) -> bool:
        """Tell whether both are the same files under the same name."""
        return other is not None and self.name == other.name and self.has_files_of(other)

    def has_files_of(self, other: Wanted) -> bool:
        """Tell whether both have their files from the same source in the same directory."""
        return (self.path, self.origin_uri) == (other.path, other.origin_uri)


@dataclass(frozen=True, slots=True)
class Facts:
    """What an adapter's own files say of it.

    Attributes:
        rank: Its `r`.
        base_model: What it was trained on, as its configuration has it.
        size: Bytes of its weights.
    """

    rank: int
    base_model: str
    size: int


@dataclass(frozen=True, slots=True)
class Status:
    """An adapter at one moment, for those who ask.

    Attributes:
        name: What requests call it.
        state: How it stands.
        managed: Whether somebody asked this runtime for it.
        path: Where the engine has it from, or will.
        content: The digest of the files there; `None` before they are known.
        source: Where its files come from.
        origin: Who asked for it.
        revision: What the source was resolved to.
        facts: What its files say.
        loaded_since: Unix seconds.
        attempts: Tries in vain since it was last well.
        next_retry: Unix seconds.
        error_code: Why the last try failed, for programs.
        error: The same for people.
        possibly_stale: Whether answers may come from weights that had this name before.
    """

    name: str
    state: State
    managed: bool
    path: str
    source: str | None = None
    origin: Origin | None = None
    revision: str | None = None
    facts: Facts | None = field(default=None)
    loaded_since: float | None = None
    attempts: int = 0
    next_retry: float | None = None
    error_code: str | None = None
    error: str | None = None
    content: str | None = None
    possibly_stale: bool = False


def check_name(name: str) -> str:
    """Return a name that an adapter may have.

    Raises:
        InvalidAdapterError: It has other characters, is too long, or climbs.
    """
    if len(name) > _LONGEST_NAME:
        raise InvalidAdapterError(
            codes.INVALID_NAME, f"lora_name has {len(name):,} letters; the limit is {_LONGEST_NAME}"
        )
    if not _NAME.fullmatch(name) or {".", ".."} & set(name.split("/")):
        raise InvalidAdapterError(
            codes.INVALID_NAME,
            "an adapter's name is 1 to 255 letters, digits, '.', '_', '-', with '/' between parts that are not '.' or '..'",
        )
    return name


def check_directory(path: str, field: str) -> str:
    """Return a directory that an adapter may lie in.

    Raises:
        InvalidAdapterError: It is not absolute, or too long; the message names `field`.
    """
    if problem := excess(path):
        raise InvalidAdapterError(codes.INVALID_PATH, f"{field} {problem}")
    if "\x00" in path:
        raise InvalidAdapterError(codes.INVALID_PATH, f"{field} must not contain NUL")
    if not path.startswith("/"):
        raise InvalidAdapterError(codes.INVALID_PATH, f"the directory must be absolute, not {path!r}")
    return path
