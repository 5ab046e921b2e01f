"""Download errors: one class per distinct reaction of a caller, each with its row of `storage.codes`.

Messages are shown to users. They say what to do, and hold no secrets.
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

# Characters of a message. Servers choose much of the text that errors quote, and the supervisor kills a worker whose
# event is too long.
_MAX_MESSAGE: Final = 2000
_SHOWN: Final = 10


def clipped(message: str) -> str:
    """Return a message, cut to a maximum length: the text that it quotes may have any length."""
    return message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}…"


class StorageError(Exception):
    """A download failed; the class says which reaction fits.

    Attributes:
        row: Its row in the table of codes.
        message: One sentence for users; cut to a maximum length.
    """

    row: ClassVar[Code] = codes.FAILED

    def __init__(self, message: str) -> None:
        self.message = clipped(message)
        super().__init__(self.message)

    @property
    def code(self) -> str:
        """The stable code for programs."""
        return self.row.name

    @property
    def exit_code(self) -> int:
        """The exit code of a command-line program; 1 if the row has none."""
        return self.row.exit_code or 1

    def fields(self) -> Mapping[str, Any]:
        """Return the fields of a worker's `failed` event."""
        return {"code": self.code, "message": self.message, "exit_code": self.exit_code}


class UsageError(StorageError):
    """The request makes no sense: the caller must change it."""

    row = codes.USAGE


class SourceError(UsageError):
    """The text is not a valid source; the message names it and the rule that it breaks."""

    row = codes.INVALID_SOURCE


class ConfigError(UsageError):
    """A key or value of the configuration is invalid."""

    row = codes.INVALID_CONFIG


class TargetError(UsageError):
    """The directory must not be written to."""

    row = codes.FORBIDDEN_TARGET


class NotFoundError(StorageError):
    """The source does not exist or is empty, or there is no copy to verify."""

    row = codes.NOT_FOUND


class DeniedError(StorageError):
    """The source or the file system refuses access."""

    row = codes.DENIED


class CredentialsError(DeniedError):
    """The source needs credentials, and there are none."""

    row = codes.NO_CREDENTIALS


class GatedError(DeniedError):
    """The repository is gated: a user must accept its terms first."""

    row = codes.GATED


class NoSpaceError(StorageError):
    """The volume has less free space than the download needs."""

    row = codes.NO_SPACE


class NetworkError(StorageError):
    """The source could not be reached, or the connection broke too often."""

    row = codes.NETWORK


class StalledError(NetworkError):
    """The download stalled repeatedly: no byte arrived for the stall timeout."""

    row = codes.STALLED


class CorruptError(StorageError):
    """The bytes do not match the source's digest, or the source's answers make no sense."""

    row = codes.CORRUPT


class ChangedError(CorruptError):
    """The source kept changing during the download, or has changed since."""

    row = codes.SOURCE_CHANGED


class UnsafeNameError(CorruptError):
    """A file name at the source is not safe below the target."""

    row = codes.UNSAFE_NAME


class TooLargeError(StorageError):
    """An answer of the source exceeds a limit; the message names the address and the limit."""

    row = codes.TOO_LARGE


class HoldsOtherError(StorageError):
    """The download would destroy files of another source, or files that no download put there (docs/adr/0016)."""

    row = codes.HOLDS_OTHER


class OutOfMemoryError(StorageError):
    """The worker reached its own memory limit (docs/adr/0017). A retry would end the same way."""

    row = codes.OUT_OF_MEMORY


class LockedError(StorageError):
    """Another download holds the lock of the directory."""

    row = codes.LOCKED


class BusyError(StorageError):
    """Too many downloads are queued already."""

    row = codes.BUSY


class CancelledError(StorageError):
    """The download was cancelled."""

    row = codes.CANCELLED


class WorkerError(StorageError):
    """The worker ended without a `done` or `failed` event."""

    row = codes.WORKER_DIED


def _tree(root: type[StorageError]) -> Iterator[type[StorageError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


_BY_CODE: Final = {error.row.name: error for error in _tree(StorageError)}


def of_code(code: str, message: str) -> StorageError:
    """Return the error of a worker's `failed` event; an unknown code gives a plain StorageError."""
    return _BY_CODE.get(code, StorageError)(message)


def listed(names: Sequence[str], count: int | None = None) -> str:
    """Return the first names for a message, and how many more there are.

    Args:
        names: The names, or the first of them.
        count: The number of all names, if `names` has only the first of them.
    """
    more = (len(names) if count is None else count) - len(names[:_SHOWN])
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
