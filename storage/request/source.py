"""Sources of models, parsed into frozen values.

    hf://namespace/repo[@revision]     a repository of the Hugging Face Hub
    namespace/repo[@revision]          the same
    s3://bucket[/prefix]               objects below a prefix, or one object
    obs://bucket[/prefix]              the same from Huawei OBS
    pvc://claim/path, pvc:///claim/path    the mounted directory /claim/path

Text is taken literally: keys and paths are not percent-decoded.
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

# The Hub's rules for names, and those of git's rules for revisions that matter here.
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9](?:[\w.-]*[\w])?", re.ASCII)
_REVISION: Final = re.compile(r"[\w.+-]+(?:/[\w.+-]+)*", re.ASCII)
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_MAX_HUB_NAME: Final = 96
# Schemes that name the same bucket: OBS speaks the S3 protocol.
_PROTOCOLS: Final = {"obs": "s3"}
_MAX_SHOWN: Final = 300


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository of the Hub; the default revision if `revision` is `None`."""

    repo: str
    revision: str | None = None
    scheme: ClassVar[str] = "hf"

    @property
    def uri(self) -> str:
        """The canonical URI."""
        return f"hf://{self.repo}" + (f"@{self.revision}" if self.revision else "")


@dataclass(frozen=True, slots=True)
class S3Source:
    """Objects of a bucket in S3 or OBS; `prefix` has no trailing slash."""

    bucket: str
    prefix: str = ""
    scheme: str = "s3"

    @property
    def uri(self) -> str:
        """The canonical URI."""
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


@dataclass(frozen=True, slots=True)
class PvcSource:
    """A directory or file of a mounted volume; `path` is absolute."""

    path: str
    scheme: ClassVar[str] = "pvc"

    @property
    def uri(self) -> str:
        """The canonical URI."""
        return f"pvc:/{self.path}"


Source: TypeAlias = HubSource | S3Source | PvcSource


def parse_source(text: str) -> Source:
    """Parse a source.

    Raises:
        SourceError: The text breaks a rule; the message names the text (without a password) and the rule.
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
    """Whether two URIs name the same repository, the same bucket and prefix, or the same directory.

    Revision and protocol (s3 or obs) are ignored: they change when a model is updated or a store moves
    (docs/adr/0016).
    """
    return _identity(one) == _identity(other)


def _identity(uri: str) -> tuple[str, str]:
    scheme, _, rest = uri.partition("://")
    return _PROTOCOLS.get(scheme, scheme), rest.partition("@")[0] if scheme == "hf" else rest


def _shown(text: str) -> str:
    """Return the text for an error message: shortened, and without a password."""
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
