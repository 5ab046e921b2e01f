"""Rules for directories that may be written to, and for volumes that may be read.

Links are resolved first. A target must be below one of the write roots, if there are
any, and never in a system directory or in this program's own directories.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from storage.errors import DeniedError, NotFoundError, TargetError
from storage.request.limits import excess
from storage.request.reserved import OWN_DIRECTORY, is_own

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_readable", "check_target"]

# Directories that are refused, with everything below them.
_TREES: Final = tuple(
    map(
        Path,
        (
            "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run", "/sbin", "/sys",
            "/usr", "/var/cache", "/var/lib/apt", "/var/lib/containerd", "/var/lib/docker", "/var/lib/dpkg",
            "/var/lib/kubelet", "/var/log", "/var/run", "/var/spool",
        ),
    )
)  # fmt: skip
# Directories that are refused themselves, but not those below them.
_ALONE: Final = frozenset(map(Path, ("/", "/dev/shm", "/home", "/root", "/tmp", "/var", "/var/lib", "/var/tmp")))  # noqa: S108 - refused, not used
_ALLOWED: Final = Path("/dev/shm")  # noqa: S108 - a tmpfs that engines share
# The usual limit for a file name, minus the characters that the work directory's name adds to the target's.
_MAX_NAME: Final = 255 - len(f".{OWN_DIRECTORY}")
# Never read as a volume: secrets, devices and the kernel's files.
_UNREADABLE: Final = tuple(
    map(Path, ("/dev", "/etc", "/proc", "/run", "/sys", "/var/run", "/var/lib/kubelet", "/root"))
)


def check_target(path: str, write_roots: Sequence[str] = ()) -> Path:
    """Return the target directory with all links resolved.

    Raises:
        TargetError: The directory must not be written to; the message says why.
    """
    if not path or "\x00" in path:
        raise TargetError("the output directory must be named")
    if problem := excess(path):
        raise TargetError(f"the output directory {problem}")
    try:
        target = Path(path).expanduser().absolute().resolve()
        is_other = target.exists() and not target.is_dir()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, or an unknown home directory
        raise TargetError(f"{path} cannot be a directory: {getattr(error, 'strerror', None) or error}") from None
    if target in _ALONE or _in_system(target):
        raise TargetError(f"{path} is a system directory: choose a directory for models")
    if is_other:
        raise TargetError(f"{path} is not a directory")
    _check_own(target, path)
    roots = [Path(root).absolute().resolve() for root in write_roots]
    if roots and not any(target.is_relative_to(root) for root in roots):
        raise TargetError(f"{path} lies outside the write roots ({', '.join(map(str, roots))})")
    return target


def _check_own(target: Path, path: str) -> None:
    """Refuse a target with a reserved name, or with a name that leaves no room for the work directory's name."""
    if any(is_own(part) for part in target.parts):
        raise TargetError(f"{path} lies in a directory that a download keeps its work in")
    if len(os.fsencode(target.name)) > _MAX_NAME:
        raise TargetError(f"{path} has a name of more than {_MAX_NAME} bytes, and work beside it a longer one")


def _in_system(target: Path) -> bool:
    if target.is_relative_to(_ALLOWED):
        return False
    own = (Path(sys.prefix).resolve(), Path(__file__).resolve().parents[1])
    return any(target.is_relative_to(tree) for tree in (*_TREES, *own))


def check_readable(path: str) -> Path:
    """Return a volume's directory or file with all links resolved.

    Raises:
        DeniedError: It is a system directory: secrets and the kernel's files are not models.
        NotFoundError: It is a loop of links.
    """
    try:
        source = Path(path).resolve()
    except RuntimeError:
        raise NotFoundError(f"pvc:/{path} is a link that leads nowhere") from None
    readable = source != Path("/") and not any(source.is_relative_to(tree) for tree in _UNREADABLE)
    if not readable and not (source.is_relative_to(_ALLOWED) and source != _ALLOWED):
        raise DeniedError(f"pvc:/{path} is a system directory, not a mounted volume")
    return source
