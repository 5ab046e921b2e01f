"""A repository on the Hub: branches and tags, commits, files; digests as git and LFS make them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LFS_SUFFIXES", "HubFile", "Repository"]

LFS_SUFFIXES: Final = (".bin", ".safetensors", ".gguf", ".pt")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a commit.

    Attributes:
        data: Its bytes.
        lfs: Whether git has only a pointer, and the bytes lie behind the CDN.
    """

    data: bytes = field(repr=False)
    lfs: bool = False

    @property
    def sha256(self) -> str:
        """What LFS calls it."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def git_sha1(self) -> str:
        """What git calls it: of an LFS file, its pointer."""
        data = self._pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def etag(self) -> str:
        """What the Hub calls it."""
        return self.sha256 if self.lfs else self.git_sha1

    def tree_entry(self, path: str, *, xet: bool) -> dict[str, Any]:
        """Return its line of the tree listing."""
        entry = {"type": "file", "oid": self.git_sha1, "size": len(self.data), "path": path}
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.data), "pointerSize": len(self._pointer)}
            if xet:
                entry["xetHash"] = self.xet_hash
        return entry

    @property
    def xet_hash(self) -> str:
        """What Xet calls it, as far as anybody can tell from outside."""
        return hashlib.blake2b(self.data, digest_size=32).hexdigest()

    @property
    def _pointer(self) -> bytes:
        return b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
            self.sha256.encode(),
            len(self.data),
        )


@dataclass(slots=True)
class Repository:
    """What is served under ``owner/name``.

    Attributes:
        token: Without it the repository does not exist for the caller; None is public.
        gated: What is refused to those whose token is not in `granted`: "" nothing, "files", or "all", the API too.
        xet: Whether large files offer Xet, too.
        refs: Branches and tags, each the commit it stands for.
    """

    name: str
    token: str | None = None
    gated: str = ""
    granted: frozenset[str] = frozenset()
    xet: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    _commits: dict[str, dict[str, HubFile]] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], *, ref: str = "main") -> str:
        """Replace what `ref` holds by these files; return the commit, 40 hexadecimal digits."""
        tree = {path: HubFile(data, path.endswith(LFS_SUFFIXES)) for path, data in files.items()}
        content = repr((len(self._commits), sorted((path, file.etag) for path, file in tree.items())))
        sha = hashlib.sha1(content.encode()).hexdigest()
        self._commits[sha] = tree
        self.refs[ref] = sha
        return sha

    def sha(self, revision: str) -> str | None:
        """Return the commit of a branch, a tag or a commit."""
        return revision if revision in self._commits else self.refs.get(revision)

    def files(self, revision: str = "main") -> dict[str, HubFile]:
        """Return what a revision holds."""
        return self._commits[self.sha(revision) or revision]

    def large_file(self, sha256: str) -> bytes:
        """Return what any commit has under this digest."""
        return next(file.data for tree in self._commits.values() for file in tree.values() if file.sha256 == sha256)

    def may_see(self, token: str | None) -> bool:
        """Tell whether the repository exists for this caller."""
        return self.token is None or token == self.token

    def may_read(self, token: str | None, part: str) -> bool:
        """Tell whether this caller may have the "files", or what the "api" says of them."""
        shut = self.gated == "all" or (self.gated == "files" and part == "files")
        return not shut or token in self.granted

    def tree(self, sha: str) -> list[dict[str, Any]]:
        """Return the recursive listing of a commit: folders and files."""
        files = self._commits[sha]
        folders = {"/".join(path.split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)}
        entries = [file.tree_entry(path, xet=self.xet) for path, file in files.items()]
        entries += [
            {"type": "directory", "oid": hashlib.sha1(folder.encode()).hexdigest(), "size": 0, "path": folder}
            for folder in folders
        ]
        return sorted(entries, key=lambda entry: entry["path"])
