"""File names from the other side, before any of them touches a path.

Whoever fills a bucket or a repository chooses its names. A name is used below
the target only when it is relative, has no empty, `.` or `..` component, no
NUL, control character or backslash, fits the file system, and lies in no
directory that downloads keep records or work in: not at the top, where this
download keeps its own, nor deeper, where a later download would trust them.
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
    """Return the name when it is safe below the target.

    Raises:
        UnsafeNameError: It is not; the message names it and the rule.
    """
    rule = _broken_rule(name)
    if rule:
        raise UnsafeNameError(f"the source has a file named {_shown(name)}: {rule}; nothing of it was written")
    return name


def _shown(name: str) -> str:
    """Return a name as an error has it: not all of a very long one."""
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
    """Check names together: each is safe, none comes twice, none is file and directory at once.

    Raises:
        UnsafeNameError: They cannot all be files below one directory.
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
    """Return the directories that a name lies in, the outermost first."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: index + 1]) for index in range(len(parts))]


def make_parents(root: Path, name: str) -> Path:
    """Make the directories of `root/name` and return that path, following no link below `root`.

    Raises:
        TargetError: Something that is no directory stands in the way.
    """
    for parent in parents_of(name):
        make_directory(root / parent)
    return root / name


def make_directory(directory: Path) -> None:
    """Make a directory that may be there already; its parent is.

    Raises:
        TargetError: Something else stands there, a link to a directory perhaps.
    """
    try:
        directory.mkdir()
    except FileExistsError:
        if not S_ISDIR(os.lstat(directory).st_mode):
            raise TargetError(f"{directory} is a link or a file where the download needs a directory") from None


def is_real(root: Path, place: str) -> bool:
    """Whether a directory below `root`, whose own links are resolved, is reached without a link."""
    path = os.path.join(root, place) if place else str(root)  # noqa: PTH118 - as realpath has it
    return os.path.realpath(path) == path
