"""The Hugging Face Hub: `storage.sources.hub.api` resolves and lists, `storage.transfer.scheduler` fetches.

A revision is resolved to a commit once; everything after that uses the commit. Files come
from their plain resolve URL, which redirects to signed URLs of a CDN. This also works for
repositories on Xet. The token goes to the Hub only. Every file is verified: LFS files by
SHA-256, small files by the SHA-1 of their git blob.

`snapshot_download` is not used: it reports success for a refused, missing or broken
repository if any file is in the directory.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from storage.disk.listing import Digest, RemoteFile, gather
from storage.errors import CorruptError, DeniedError, GatedError, NetworkError, NotFoundError, StorageError
from storage.memory import DEFAULT_MEMORY
from storage.sources.hub.api import HubApi
from storage.transfer.origin import Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from huggingface_hub.hf_api import RepoFile

    from storage.disk.listing import Listing
    from storage.request.config import Config
    from storage.request.source import HubSource
    from storage.transfer.http_client import Transport

__all__ = ["HubOrigin"]

DEFAULT_REVISION: Final = "main"
# The form of a commit, and of a git object's id.
_SHA1: Final = re.compile(r"[0-9a-f]{40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# The Hub's message for an unknown token. A 401 without it may also mean that the repository does not exist.
_UNKNOWN: Final = "Invalid credentials in Authorization header"
_DISABLED: Final = "Access to this resource is disabled."


class HubOrigin:
    """A repository at one commit."""

    def __init__(
        self, source: HubSource, config: Config, transport: Transport, *, memory: int = DEFAULT_MEMORY, tries: int = 4
    ) -> None:
        """Prepare; no request is sent yet.

        Args:
            source: The repository.
            config: Token, endpoint and revision.
            transport: Sends requests.
            memory: Memory limit of this process in bytes.
            tries: Maximum attempts of an API request.
        """
        self._source = source
        self._endpoint = config.hub_url
        self._token = config.hf_token.reveal() if config.hf_token else None
        self._revision = source.revision or config.hf_revision or DEFAULT_REVISION
        self._memory = memory
        self._api = HubApi(
            self._endpoint, source.repo, transport, self._refusal, token=self._token, memory=memory, tries=tries
        )
        self._commit = ""

    def listing(self) -> Listing:
        """Resolve the revision and list its files.

        Raises:
            StorageError: The repository cannot be read; the message says why and what to do.
        """
        self._commit = self._api.commit(self._revision)
        if not _SHA1.fullmatch(self._commit):
            raise CorruptError(f"{self._endpoint} names no commit for {self._source.repo} at {self._revision}")
        files = map(_file, self._api.files(self._commit))
        return gather(f"hf://{self._source.repo}", self._commit, files, self._memory)

    def _refusal(self, status: int, headers: Mapping[str, str]) -> StorageError:
        """Return the error for an answer about the repository."""
        code, message = headers.get("X-Error-Code", ""), headers.get("X-Error-Message", "")
        repo, endpoint, has_token = self._source.repo, self._endpoint, bool(self._token)
        if code == "RevisionNotFound":
            return NotFoundError(f"{repo} has no revision {self._revision!r} at {endpoint}")
        if code == "GatedRepo":
            return _gated(self._source, endpoint, has_token=has_token)
        if message == _DISABLED:
            return DeniedError(f"{repo} has been disabled at {endpoint}")
        is_hidden = status == HTTPStatus.UNAUTHORIZED and (message != _UNKNOWN or not has_token)
        if code == "RepoNotFound" or status == HTTPStatus.NOT_FOUND or is_hidden:
            return _missing(self._source, endpoint, has_token=has_token)
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            hint = (
                "the token is not valid or has no right to it"
                if has_token
                else "a token may be needed: set HF_AUTH_TOKEN"
            )
            return DeniedError(f"{repo} is refused by {endpoint} ({status}): {hint}")
        return NetworkError(f"{endpoint} answers {status} for {repo}")

    def request(self, file: RemoteFile) -> Request:
        """Return a GET request for a file of the commit."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        return Request(f"{self._endpoint}/{self._source.repo}/resolve/{self._commit}/{quote(file.origin)}", headers)

    def digest(self, file: RemoteFile, headers: Mapping[str, str] | None) -> Digest | None:
        """Return the digest from the listing: no header has a better one."""
        del headers
        return file.digest

    def refresh(self, file: RemoteFile) -> RemoteFile:
        """Return the same file: a commit never changes."""
        return file

    def explain(
        self, file: RemoteFile, status: int, headers: Mapping[str, str], body: bytes
    ) -> tuple[StorageError, bool]:
        """Return the error for an answer about a file. A new signature never helps: the Hub signs its own URLs."""
        del body
        code = headers.get("X-Error-Code", "")
        what = f"{file.path} of {self._source.uri}"
        if code == "GatedRepo":
            return _gated(self._source, self._endpoint, has_token=bool(self._token)), False
        if status == HTTPStatus.NOT_FOUND or code in ("EntryNotFound", "RevisionNotFound"):
            return NotFoundError(f"{what} is not there ({code or status})"), False
        if code == "RepoNotFound" or status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            hint = "the token has no right to it" if self._token else "a token is needed: set HF_AUTH_TOKEN"
            return DeniedError(f"{what} is refused ({code or status}): {hint}"), False
        return NetworkError(f"{what}: {self._endpoint} answers {status}"), False


def _file(entry: RepoFile) -> RemoteFile:
    if entry.lfs:
        sha256 = str(entry.lfs.sha256)
        digest = Digest("sha256", sha256) if _SHA256.fullmatch(sha256) else None
        return RemoteFile(entry.path, entry.size, sha256, entry.path, digest)
    blob = str(entry.blob_id)
    digest = Digest("git-sha1", blob) if _SHA1.fullmatch(blob) else None
    return RemoteFile(entry.path, entry.size, blob, entry.path, digest)


def _gated(source: HubSource, endpoint: str, *, has_token: bool) -> GatedError:
    who = "the owner of the token has not been granted access" if has_token else "a token is needed: set HF_AUTH_TOKEN"
    return GatedError(f"{source.repo} is gated: accept its terms at {endpoint}/{source.repo}; {who}")


def _missing(source: HubSource, endpoint: str, *, has_token: bool) -> NotFoundError:
    or_private = (
        "or the token may not see it" if has_token else "or it is private and a token is needed: set HF_AUTH_TOKEN"
    )
    return NotFoundError(f"{source.repo} does not exist at {endpoint}, {or_private}")
