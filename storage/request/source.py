"""Sources: where a model comes from, as frozen values.

    hf://namespace/repo[@revision]     a repository of the Hugging Face Hub
    namespace/repo[@revision]          the same
    s3://bucket[/prefix]               objects below a prefix, or one object
    obs://bucket[/prefix]              the same from Huawei OBS
    pvc://claim/path, pvc:///claim/path    the mounted directory /claim/path

Text is taken as it is: keys and paths are not percent-decoded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from storage.errors import SourceError
from storage.request.limits import excess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["HubSource", "PvcSource", "S3Source", "Source", "parse_source", "same_source"]

# The Hub's own rules for names, and git's for revisions as far as they matter here.
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9](?:[\w.-]*[\w])?", re.ASCII)
_REVISION: Final = re.compile(r"[\w.+-]+(?:/[\w.+-]+)*", re.ASCII)
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_MAX_HUB_NAME: Final = 96
_PROTOCOLS: Final = {"obs": "s3"}
_MAX_SHOWN: Final = 300


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository of the Hub, at a revision if one is named."""

    repo: str
    revision: str | None = None
    scheme: ClassVar[str] = "hf"

    @property
    def uri(self) -> str:
        """The source as it would be written."""
        return f"hf://{self.repo}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True, slots=True)
class S3Source:
    """Objects of a bucket, in S3 or OBS; the prefix has no slash at its end."""

    bucket: str
    prefix: str = ""
    scheme: str = "s3"

    @property
    def uri(self) -> str:
        """The source as it would be written."""
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


@dataclass(frozen=True, slots=True)
class PvcSource:
    """A directory or file of a mounted volume; the path is absolute."""

    path: str
    scheme: ClassVar[str] = "pvc"

    @property
    def uri(self) -> str:
        """The source as it would be written."""
        return f"pvc:/{self.path}"


Source: TypeAlias = HubSource | S3Source | PvcSource


def parse_source(text: str) -> Source:
    """Make a source of a text.

    Raises:
        SourceError: The text breaks a rule; the message names both.
    """
    if problem := excess(text):
        raise SourceError(f"the source {problem}: {_shown(text)!r}")
    stripped = text.strip()
    scheme, separator, rest = stripped.partition("://")
    if not separator:
        scheme, rest = "", stripped
    try:
        parse = _PARSERS.get(scheme.lower())
        if parse is None:
            raise ValueError(f"the scheme must be one of {', '.join(s for s in _PARSERS if s)}")
        if _CONTROL.search(stripped):
            raise ValueError("control characters are not allowed")
        return parse(rest)
    except ValueError as error:
        raise SourceError(f"source {_shown(text)!r}: {error}") from None


def same_source(one: str, other: str) -> bool:
    """Whether two URIs name one repository, one bucket and prefix, or one directory.

    Neither the revision nor the protocol that a bucket is asked with counts.
    """
    return _identity(one) == _identity(other)


def _identity(uri: str) -> tuple[str, str]:
    scheme, _, rest = uri.partition("://")
    return _PROTOCOLS.get(scheme, scheme), rest.partition("@")[0] if scheme == "hf" else rest


def _shown(text: str) -> str:
    """Return what an error may quote: not all of a long text, and nobody's password."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", text[:_MAX_SHOWN]) + ("…" if len(text) > _MAX_SHOWN else "")


def _hub(rest: str) -> HubSource:
    repo, at, revision = rest.rstrip("/").partition("@")
    names = repo.split("/")
    if len(names) != 2:
        raise ValueError("a repository is named namespace/repo")
    if not all(_is_hub_name(name) for name in names) or len(repo) > _MAX_HUB_NAME:
        raise ValueError("namespace and repo are letters, digits, '-', '_' and '.', 96 characters together at most")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise ValueError("a revision after '@' is a branch, a tag or a commit")
    return HubSource(repo, revision or None)


def _is_hub_name(name: str) -> bool:
    return bool(_HUB_NAME.fullmatch(name)) and ".." not in name and "--" not in name


def _plain_hub(rest: str) -> HubSource:
    if rest.startswith(("/", ".", "~")):
        raise ValueError("a local path is written pvc://path, a repository namespace/repo")
    return _hub(rest)


def _bucket_of(scheme: str) -> Callable[[str], S3Source]:
    def parse(rest: str) -> S3Source:
        bucket, _, prefix = rest.partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise ValueError(f"{scheme}://bucket/prefix: a bucket is 3 letters, digits, '-', '_' or '.' at least")
        prefix = prefix.rstrip("/")
        if any(part in (".", "..") for part in prefix.split("/")):
            raise ValueError("a prefix must not have '.' or '..' between slashes")
        return S3Source(bucket, prefix, scheme)

    return parse


def _pvc(rest: str) -> PvcSource:
    parts = [part for part in rest.split("/") if part]
    if not parts:
        raise ValueError("pvc://claim/path names the directory /claim/path, and there is no path")
    if any(part in (".", "..") for part in parts):
        raise ValueError("a path must not have '.' or '..' between slashes")
    return PvcSource("/" + "/".join(parts))


_PARSERS: Final[Mapping[str, Callable[[str], Source]]] = {
    "": _plain_hub,
    "hf": _hub,
    "s3": _bucket_of("s3"),
    "obs": _bucket_of("obs"),
    "pvc": _pvc,
}
