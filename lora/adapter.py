"""Adapters as values: what is desired, what is installed on disk, and the status that the API shows."""

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
    """An adapter's state in the API: downloading -> loading -> loaded -> unloading, or failed until the next retry."""

    PENDING = "pending"
    DOWNLOADING = "downloading"
    LOADING = "loading"
    LOADED = "loaded"
    UNLOADING = "unloading"
    FAILED = "failed"


class Origin(StrEnum):
    """Who asked for an adapter: an HTTP call or the Model. Each can withdraw only its own adapters (docs/adr/0010)."""

    CALL = "call"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Installed:
    """An adapter's files in the directory that the engine loads them from.

    Attributes:
        path: The directory.
        content: The digest of its files (`lora.files.contents`).
        revision: The revision that the source was resolved to. Empty if the source has no revisions; `None` without a
            source.
    """

    path: Path
    content: str
    revision: str | None = None

    @property
    def is_by_content(self) -> bool:
        """Whether the directory is named by its content (ADR 15); version 0.1 named directories by their source."""
        return self.path.name == self.content


@dataclass(frozen=True, slots=True)
class Wanted:
    """An adapter that should be loaded.

    Attributes:
        name: The model name in inference requests.
        path: An absolute directory. Without a source it holds the files. With a source it is the base directory, in
            which each content has its own directory.
        source: The URI of its files; `None` if they are already in `path`.
        origin: Who asked for it.
        allow_pickle: Whether pickled weights are accepted. They can run code when the engine reads them.
        installed: Its files; `None` until they were found or downloaded.
        refresh: Whether the source must be listed again (or the directory read again) although the adapter is loaded.
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
        """The directory that the engine loads it from, as far as it is known."""
        return self.installed.path if self.installed else self.path

    @property
    def origin_uri(self) -> str | None:
        """Its source in canonical form, for comparisons."""
        return parse_source(self.source).uri if self.source else None

    def is_same(self, other: Wanted | None) -> bool:
        """Tell whether both have the same name, source and directory. Content and revision are not compared."""
        return other is not None and self.name == other.name and self.has_files_of(other)

    def has_files_of(self, other: Wanted) -> bool:
        """Tell whether both have the same source and the same directory."""
        return (self.path, self.origin_uri) == (other.path, other.origin_uri)


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts from an adapter's own files (`lora.files.preflight`).

    Attributes:
        rank: `r` of adapter_config.json.
        base_model: `base_model_name_or_path` of adapter_config.json; empty if missing.
        size: Bytes of the weights file.
    """

    rank: int
    base_model: str
    size: int


@dataclass(frozen=True, slots=True)
class Status:
    """A snapshot of an adapter for the API.

    Attributes:
        name: The model name in inference requests.
        state: Its state.
        managed: Whether this runtime manages it. An adapter that another client loaded is unmanaged.
        path: The directory that the engine loads it from.
        content: The digest of its files; `None` before they are known.
        source: The URI of its files.
        origin: Who asked for it.
        revision: The revision that the source was resolved to.
        facts: Facts from its files.
        loaded_since: Unix seconds.
        attempts: Consecutive failed attempts.
        next_retry: Unix seconds.
        error_code: The code of the last error (`lora.codes`, `storage.codes`).
        error: The message of the last error.
        possibly_stale: Whether the engine's prefix cache may hold blocks of former weights (docs/adr/0015).
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
    """Return the name if it is valid.

    Raises:
        InvalidAdapterError: The name is too long, has other characters, or has a part `.` or `..`.
    """
    if len(name) > _LONGEST_NAME:
        raise InvalidAdapterError(
            codes.INVALID_NAME, f"lora_name has {len(name):,} letters; the limit is {_LONGEST_NAME}"
        )
    # A name may have slashes, as in `team/sql`, but must never lead out of a directory when a path is built from it.
    if not _NAME.fullmatch(name) or {".", ".."} & set(name.split("/")):
        raise InvalidAdapterError(
            codes.INVALID_NAME,
            "an adapter's name is 1 to 255 letters, digits, '.', '_', '-', with '/' between parts that are not '.' or '..'",
        )
    return name


def check_directory(path: str, field: str) -> str:
    """Return the directory if an adapter may be in it.

    Raises:
        InvalidAdapterError: The path is not absolute, has NUL, or is too long; the message names `field`.
    """
    if problem := excess(path):
        raise InvalidAdapterError(codes.INVALID_PATH, f"{field} {problem}")
    if "\x00" in path:
        raise InvalidAdapterError(codes.INVALID_PATH, f"{field} must not contain NUL")
    if not path.startswith("/"):
        raise InvalidAdapterError(codes.INVALID_PATH, f"the directory must be absolute, not {path!r}")
    return path
