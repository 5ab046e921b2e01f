"""What a source holds and which of it is wanted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from storage.disk.names import check_names
from storage.errors import CorruptError, NotFoundError, TooLargeError
from storage.request.patterns import selected

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Digest", "Listing", "RemoteFile", "gather", "select"]

# What a file costs a worker from the listing to the manifest, names of usual length and all.
_BYTES_PER_FILE: Final = 4096


@dataclass(frozen=True, slots=True)
class Digest:
    """What a file's bytes must add up to.

    Attributes:
        algorithm: A name of `storage.disk.digests`.
        value: Lower-case hex.
        part_size: Bytes of a part, for digests made of parts' digests.
        certain: Whether a mismatch proves that bytes are wrong; a part size
            that was only guessed proves nothing.
    """

    algorithm: str
    value: str
    part_size: int = 0
    certain: bool = True

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"algorithm": self.algorithm, "value": self.value} | (
            {"part_size": self.part_size} if self.part_size else {}
        )

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Digest:
        """Undo `to_wire`."""
        return cls(str(data["algorithm"]), str(data["value"]), int(data.get("part_size", 0)))


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a source.

    Attributes:
        path: Its name below the target, with slashes.
        size: Its length in bytes.
        validator: What changes when its content does: an ETag, a git object, size and mtime.
        origin: Its name at the source: a key, a path.
        digest: What its bytes must add up to, if the source says so.
    """

    path: str
    size: int
    validator: str
    origin: str
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """All files of a source.

    Attributes:
        source: The source as a URI.
        revision: What the source was resolved to: a commit; empty where there is no such thing.
        files: The files, by name.
    """

    source: str
    revision: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def gather(source: str, revision: str, files: Iterable[RemoteFile], memory: int) -> Listing:
    """Make a listing of files, as many as a worker with so many bytes of memory can work on.

    Raises:
        TooLargeError: They are more.
        CorruptError: One of them has a length that no file has.
    """
    limit = memory // _BYTES_PER_FILE
    found: list[RemoteFile] = []
    for file in files:
        if file.size < 0:
            raise CorruptError(f"{source}: {file.path[:100]!r} has {file.size} bytes, says the listing")
        if len(found) == limit:
            raise TooLargeError(
                f"{source} has more than {limit} files, the limit of a process with {memory >> 20} MiB of memory: "
                "name a part of it, or raise --worker-memory"
            )
        found.append(file)
    return Listing(source, revision, tuple(found))


def select(listing: Listing, include: Sequence[str], exclude: Sequence[str]) -> Listing:
    """Return the listing with wanted files only, in order, their names checked.

    Raises:
        NotFoundError: None is left: nothing is never a success.
        UnsafeNameError: A name cannot be used below the target.
    """
    files = [file for file in listing.files if selected(file.path, include, exclude)]
    if not listing.files:
        raise NotFoundError(f"{listing.source} holds no files")
    if not files:
        raise NotFoundError(
            f"none of the {len(listing.files)} files of {listing.source} matches the patterns "
            f"(include {list(include)}, exclude {list(exclude)})"
        )
    check_names(file.path for file in files)
    return replace(listing, files=tuple(sorted(files, key=lambda file: file.path)))
