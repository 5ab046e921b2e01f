"""What can go wrong with a download: one class for each distinct reaction.

    StorageError                      code               exit
    ├── UsageError                    usage              2
    │   ├── SourceError               invalid_source     2
    │   ├── ConfigError               invalid_config     2
    │   └── TargetError               forbidden_target   2
    ├── NotFoundError                 not_found          3
    ├── DeniedError                   denied             4
    │   ├── CredentialsError          no_credentials     4
    │   └── GatedError                gated              4
    ├── NoSpaceError                  no_space           5
    ├── NetworkError                  network            6
    │   └── StalledError              stalled            6
    ├── CorruptError                  corrupt            7
    │   ├── ChangedError              source_changed     7
    │   └── UnsafeNameError           unsafe_name        7
    ├── TooLargeError                 too_large          7
    ├── LockedError                   locked             8
    ├── HoldsOtherError               target_holds_other 9
    ├── OutOfMemoryError              out_of_memory      10
    ├── BusyError                     busy               1
    ├── CancelledError                cancelled          130
    └── WorkerError                   worker_died        1

Codes are stable: clients branch on them. The exit code is the one that
`kthena-downloader` ends with. Messages are for people, and hold no secrets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
        code: A stable name for programs.
        exit_code: What a command-line program ends with.
        message: One sentence for people.
    """

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        self.message = clipped(message)
        super().__init__(self.message)

    def fields(self) -> Mapping[str, Any]:
        """Return what an event or an answer says of this error."""
        return {"code": self.code, "message": self.message, "exit_code": self.exit_code}


class UsageError(StorageError):
    """What was asked for cannot be meant."""

    code = "usage"
    exit_code = 2


class SourceError(UsageError):
    """The text is no source; the message names it and the rule it breaks."""

    code = "invalid_source"


class ConfigError(UsageError):
    """A key or value of the configuration cannot be used."""

    code = "invalid_config"


class TargetError(UsageError):
    """The directory must not be written to."""

    code = "forbidden_target"


class NotFoundError(StorageError):
    """There is nothing at the source, or no copy to verify."""

    code = "not_found"
    exit_code = 3


class DeniedError(StorageError):
    """The source or the file system refuses access."""

    code = "denied"
    exit_code = 4


class CredentialsError(DeniedError):
    """The source wants credentials and there are none."""

    code = "no_credentials"


class GatedError(DeniedError):
    """The repository's terms must be accepted first."""

    code = "gated"


class NoSpaceError(StorageError):
    """The volume has less room than the download needs."""

    code = "no_space"
    exit_code = 5


class NetworkError(StorageError):
    """The source could not be reached, or broke off too often."""

    code = "network"
    exit_code = 6


class StalledError(NetworkError):
    """No byte came for too long, again and again."""

    code = "stalled"


class CorruptError(StorageError):
    """The bytes are not what the source says they are."""

    code = "corrupt"
    exit_code = 7


class ChangedError(CorruptError):
    """The source kept changing while it was read."""

    code = "source_changed"


class UnsafeNameError(CorruptError):
    """A name at the source would lead out of the target."""

    code = "unsafe_name"


class TooLargeError(StorageError):
    """The source answers with more than a download takes; the message names the address and the limit."""

    code = "too_large"
    exit_code = 7


class HoldsOtherError(StorageError):
    """The download would destroy files of another source, or files that no download made."""

    code = "target_holds_other"
    exit_code = 9


class OutOfMemoryError(StorageError):
    """The worker reached its own memory limit."""

    code = "out_of_memory"
    exit_code = 10


class LockedError(StorageError):
    """Another download holds the directory."""

    code = "locked"
    exit_code = 8


class BusyError(StorageError):
    """Too many downloads wait already."""

    code = "busy"


class CancelledError(StorageError):
    """Somebody asked for the download to end."""

    code = "cancelled"
    exit_code = 130


class WorkerError(StorageError):
    """The worker ended without saying why."""

    code = "worker_died"


def _tree(root: type[StorageError]) -> Iterator[type[StorageError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


_BY_CODE: Final = {error.code: error for error in _tree(StorageError)}


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
