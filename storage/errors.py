"""What can go wrong with a download: one class for each distinct reaction, which refers to its row of `storage.codes`.

Messages are for people. They say what to do, and hold no secrets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from storage import codes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from storage.codes import Code

__all__ = [
    "BusyError",
    "CancelledError",
    "ChangedError",
    "ConfigError",
    "CorruptError",
    "CredentialsError",
    "DeniedError",
    "GatedError",
    "HoldsOtherError",
    "LockedError",
    "NetworkError",
    "NoSpaceError",
    "NotFoundError",
    "OutOfMemoryError",
    "SourceError",
    "StalledError",
    "StorageError",
    "TargetError",
    "TooLargeError",
    "UnsafeNameError",
    "UsageError",
    "WorkerError",
    "clipped",
    "listed",
    "of_code",
]

# Servers choose much of what errors quote; an event has to fit in a line, and a log line on a screen.
_MAX_MESSAGE: Final = 2000
_SHOWN: Final = 10


def clipped(message: str) -> str:
    """Return a message, cut where it is too long: what it quotes may have any length."""
    return message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}…"


class StorageError(Exception):
    """A download failed; the class says what kind of failure it is.

    Attributes:
        row: Its row in the table of codes.
        message: One sentence for people.
    """

    row: ClassVar[Code] = codes.FAILED

    def __init__(self, message: str) -> None:
        self.message = clipped(message)
        super().__init__(self.message)

    @property
    def code(self) -> str:
        """The word for programs."""
        return self.row.name

    @property
    def exit_code(self) -> int:
        """What a command-line program ends with."""
        return self.row.exit_code or 1

    def fields(self) -> Mapping[str, Any]:
        """Return what an event or an answer says of this error."""
        return {"code": self.code, "message": self.message, "exit_code": self.exit_code}


class UsageError(StorageError):
    """What was asked for cannot be meant."""

    row = codes.USAGE


class SourceError(UsageError):
    """The text is no source; the message names it and the rule it breaks."""

    row = codes.INVALID_SOURCE


class ConfigError(UsageError):
    """A key or value of the configuration cannot be used."""

    row = codes.INVALID_CONFIG


class TargetError(UsageError):
    """The directory must not be written to."""

    row = codes.FORBIDDEN_TARGET


class NotFoundError(StorageError):
    """There is nothing at the source, or no copy to verify."""

    row = codes.NOT_FOUND


class DeniedError(StorageError):
    """The source or the file system refuses access."""

    row = codes.DENIED


class CredentialsError(DeniedError):
    """The source wants credentials and there are none."""

    row = codes.NO_CREDENTIALS


class GatedError(DeniedError):
    """The repository's terms must be accepted first."""

    row = codes.GATED


class NoSpaceError(StorageError):
    """The volume has less room than the download needs."""

    row = codes.NO_SPACE


class NetworkError(StorageError):
    """The source could not be reached, or broke off too often."""

    row = codes.NETWORK


class StalledError(NetworkError):
    """No byte came for too long, again and again."""

    row = codes.STALLED


class CorruptError(StorageError):
    """The bytes are not what the source says they are."""

    row = codes.CORRUPT


class ChangedError(CorruptError):
    """The source kept changing while it was read."""

    row = codes.SOURCE_CHANGED


class UnsafeNameError(CorruptError):
    """A name at the source would lead out of the target."""

    row = codes.UNSAFE_NAME


class TooLargeError(StorageError):
    """The source answers with more than a download takes; the message names the address and the limit."""

    row = codes.TOO_LARGE


class HoldsOtherError(StorageError):
    """The download would destroy files of another source, or files that no download made."""

    row = codes.HOLDS_OTHER


class OutOfMemoryError(StorageError):
    """The worker reached its own memory limit."""

    row = codes.OUT_OF_MEMORY


class LockedError(StorageError):
    """Another download holds the directory."""

    row = codes.LOCKED


class BusyError(StorageError):
    """Too many downloads wait already."""

    row = codes.BUSY


class CancelledError(StorageError):
    """Somebody asked for the download to end."""

    row = codes.CANCELLED


class WorkerError(StorageError):
    """The worker ended without saying why."""

    row = codes.WORKER_DIED


def _tree(root: type[StorageError]) -> Iterator[type[StorageError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


_BY_CODE: Final = {error.row.name: error for error in _tree(StorageError)}


def of_code(code: str, message: str) -> StorageError:
    """Make the error that a worker reported by its code."""
    return _BY_CODE.get(code, StorageError)(message)


def listed(names: Sequence[str], count: int | None = None) -> str:
    """Return the first of many names for a message, and how many more there are.

    Args:
        names: The names.
        count: How many there are, when `names` has only the first of them.
    """
    more = (len(names) if count is None else count) - len(names[:_SHOWN])
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
