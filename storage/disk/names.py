"""Checks of file names from a source, before any of them is used in a path.

Anyone who can write to a bucket or a repository chooses its file names. A name is used below the target only if it

- is relative, and has no empty, `.` or `..` component
- has no NUL, control character or backslash
- is short enough for the file system
- is not in a directory that downloads reserve: not at the top, where this download keeps its records, nor deeper,
  where a later download would trust them.
"""

from __future__ import annotations

import os
import re
from stat import S_ISDIR
from typing import TYPE_CHECKING, Final

from storage.errors import TargetError, UnsafeNameError
from storage.request.reserved import OWN_DIRECTORY, is_own

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = [
    "check_name",
    "check_names",
    "is_real",
    "make_directory",
    "make_parents",
    "parents_of",
]

_FORBIDDEN: Final = re.compile(r"[\x00-\x1f\x7f\\]")
_MAX_COMPONENT: Final = 255
_MAX_NAME: Final = 2048
_MAX_SHOWN: Final = 200


def check_name(name: str) -> str:
    """Return the name if it is safe below the target.

    Raises:
        UnsafeNameError: It is not safe; the message has the name and the rule.
    """
    rule = _broken_rule(name)
    if rule:
        raise UnsafeNameError(f"the source has a file named {_shown(name)}: {rule}; nothing of it was written")
    return name


def _shown(name: str) -> str:
    """Return a name for an error message, shortened if it is very long."""
    return repr(name if len(name) <= _MAX_SHOWN else f"{name[:_MAX_SHOWN]}…")


def _broken_rule(name: str) -> str | None:
    return next((rule for rule, breaks in _RULES if breaks(name)), None)


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_too_long(name: str) -> bool:
    encoded = name.encode()
    return len(encoded) > _MAX_NAME or any(len(part) > _MAX_COMPONENT for part in encoded.split(b"/"))


_RULES: Final[tuple[tuple[str, Callable[[str], object]], ...]] = (
    ("it is not valid Unicode", lambda name: not _is_unicode(name)),
    ("it is absolute", lambda name: name.startswith("/")),
    ("it holds a control character or a backslash", _FORBIDDEN.search),
    ("it has an empty, '.' or '..' component", lambda name: {"", ".", ".."} & set(name.split("/"))),
    (
        f"{OWN_DIRECTORY} and .NAME{OWN_DIRECTORY} are the downloader's own directories; leave it out with --exclude",
        lambda name: any(map(is_own, name.split("/"))),
    ),
    ("it is too long for a file system", _is_too_long),
)


def check_names(names: Iterable[str]) -> None:
    """Check that names can be files in one directory: each is safe, none repeats, none is both file and directory.

    Raises:
        UnsafeNameError: They cannot. S3 allows `a` and `a/b` in one bucket, for example.
    """
    files: set[str] = set()
    for name in names:
        if check_name(name) in files:
            raise UnsafeNameError(f"the source has two files named {_shown(name)}")
        files.add(name)
    for name in files:
        clash = next((parent for parent in parents_of(name) if parent in files), None)
        if clash:
            raise UnsafeNameError(
                f"the source has {_shown(clash)} both as a file and as the directory of {_shown(name)}"
            )


def parents_of(name: str) -> list[str]:
    """Return the directories of a name, the outermost first."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: index + 1]) for index in range(len(parts))]


def make_parents(root: Path, name: str) -> Path:
    """Create the directories of `root/name` and return that path. No link below `root` is followed.

    Raises:
        TargetError: A link or a file is in the way.
    """
    for parent in parents_of(name):
        make_directory(root / parent)
    return root / name


def make_directory(directory: Path) -> None:
    """Create a directory if it is missing. Its parent must exist.

    Raises:
        TargetError: There is something else in its place, for example a link to a directory.
    """
    try:
        directory.mkdir()
    except FileExistsError:
        if not S_ISDIR(os.lstat(directory).st_mode):
            raise TargetError(f"{directory} is a link or a file where the download needs a directory") from None


def is_real(root: Path, place: str) -> bool:
    """Whether the path from `root` to a directory below it has no link. `root` itself must be resolved."""
    path = os.path.join(root, place) if place else str(root)  # noqa: PTH118 - as realpath has it
    return os.path.realpath(path) == path
