"""The listing of a source, and the selection of its files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from storage.disk.names import check_names
from storage.errors import CorruptError, NotFoundError, TooLargeError
from storage.request.patterns import selected

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Digest", "Listing", "RemoteFile", "gather", "select"]

# Bytes of memory that a file takes in a worker, from the listing to the manifest (ADR 17).
_BYTES_PER_FILE: Final = 4096


@dataclass(frozen=True, slots=True)
class Digest:
    """The digest that a file's bytes must have.

    Attributes:
        algorithm: A name of `storage.disk.digests`.
        value: Lower-case hex.
        part_size: Bytes of a part, for digests over parts' digests.
        certain: Whether a mismatch proves that bytes are wrong. A mismatch with a guessed part size proves nothing.
    """

    algorithm: str
    value: str
    part_size: int = 0
    certain: bool = True

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form for events and manifests."""
        return {"algorithm": self.algorithm, "value": self.value} | (
            {"part_size": self.part_size} if self.part_size else {}
        )

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Digest:
        """Decode the JSON form of `to_wire`."""
        return cls(str(data["algorithm"]), str(data["value"]), int(data.get("part_size", 0)))


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a source.

    Attributes:
        path: Its path relative to the target, with slashes.
        size: Its size in bytes.
        validator: A value that changes with the content: an ETag, a git object id, or size and mtime.
        origin: Its name at the source: a key or a path.
        digest: Its digest, if the source gives one.
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
        source: The source's URI.
        revision: The commit that the source was resolved to; empty if the source has no revisions.
        files: The files.
    """

    source: str
    revision: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def gather(source: str, revision: str, files: Iterable[RemoteFile], memory: int) -> Listing:
    """Collect files into a listing, up to the number that a worker with `memory` bytes can process.

    Raises:
        TooLargeError: There are more.
        CorruptError: A file has a negative size.
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
    """Return the listing with the selected files only, sorted and with checked names.

    Raises:
        NotFoundError: No file is left: an empty copy is never a success.
        UnsafeNameError: A name is not safe below the target.
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
