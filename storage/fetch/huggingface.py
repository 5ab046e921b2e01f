"""The Hugging Face Hub: huggingface_hub resolves, `storage.ranges` fetches.

A revision is resolved to a commit once, and everything after that is of this
commit. Files come from their plain resolve URL, which redirects to signed links
of a CDN; this is the way for repositories on Xet, too. The token goes to
the Hub only. Every file is checked: SHA-256 for LFS files, the git blob's
SHA-1 for small ones.

`snapshot_download` is not used: it takes a refused, missing or broken
repository for a success when any file lies in the directory.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

# Read when huggingface_hub is imported.
os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_PROGRESS_BARS="1")

from huggingface_hub import HfApi, get_session
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from storage.errors import (
    CorruptError,
    DeniedError,
    GatedError,
    NetworkError,
    NotFoundError,
    StorageError,
)
from storage.plan import Digest, Listing, RemoteFile
from storage.ranges import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from storage.config import Config
    from storage.source import HubSource

__all__ = ["HubOrigin"]

ANSWER_SECONDS: Final = 20.0
DEFAULT_REVISION: Final = "main"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_GIT_SHA1: Final = re.compile(r"[0-9a-f]{40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_T = TypeVar("_T")


class HubOrigin:
    """A repository at one commit."""

    def __init__(self, source: HubSource, config: Config, *, tries: int = 4) -> None:
        """Prepare; no request is sent yet.

        Args:
            source: The repository.
            config: Token, endpoint and revision.
            tries: How often the Hub is asked when it is not there.
        """
        self._source = source
        self._endpoint = config.hub_url
        self._token = config.hf_token.reveal() if config.hf_token else None
        self._revision = source.revision or config.hf_revision or DEFAULT_REVISION
        self._tries = tries
        # False, not None: None would look for a token in the machine's own places.
        self._api = HfApi(endpoint=self._endpoint, token=self._token or False)
        self._commit = ""

    def listing(self) -> Listing:
        """Resolve the revision and list its files.

        Raises:
            StorageError: The repository cannot be read; the message says why, and what to do.
        """
        get_session().timeout = ANSWER_SECONDS
        info = self._ask(
            lambda: self._api.model_info(self._source.repo, revision=self._revision, timeout=ANSWER_SECONDS)
        )
        self._commit = str(info.sha or "")
        if not _COMMIT.fullmatch(self._commit):
            raise CorruptError(f"{self._endpoint} names no commit for {self._source.repo} at {self._revision}")
        tree = self._ask(lambda: list(self._tree()))
        files = tuple(_file(entry) for entry in tree if isinstance(entry, RepoFile))
        return Listing(f"hf://{self._source.repo}", self._commit, files)

    def _tree(self) -> Iterator[Any]:
        yield from self._api.list_repo_tree(self._source.repo, revision=self._commit, recursive=True)

    def _ask(self, question: Callable[[], _T]) -> _T:
        for attempt in range(1, self._tries + 1):
            try:
                with _plain_errors(self._source, self._revision, self._endpoint, has_token=bool(self._token)):
                    return question()
            except NetworkError:
                if attempt == self._tries:
                    raise
                time.sleep(0.5 * 2**attempt)
        raise AssertionError  # the last attempt returns or raises

    def request(self, file: RemoteFile) -> Request:
        """Return a GET for a file of the commit."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        return Request(f"{self._endpoint}/{self._source.repo}/resolve/{self._commit}/{quote(file.origin)}", headers)

    def digest(self, file: RemoteFile, headers: Mapping[str, str] | None) -> Digest | None:
        """Return the digest of the tree; no header knows better."""
        del headers
        return file.digest

    def refresh(self, file: RemoteFile) -> RemoteFile:
        """Return the file as it is: a commit does not change."""
        return file

    def explain(
        self, file: RemoteFile, status: int, headers: Mapping[str, str], body: bytes
    ) -> tuple[StorageError, bool]:
        """Return the error that the Hub's answer means; signatures are not made here."""
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
    digest = Digest("git-sha1", blob) if _GIT_SHA1.fullmatch(blob) else None
    return RemoteFile(entry.path, entry.size, blob, entry.path, digest)


@contextmanager
def _plain_errors(source: HubSource, revision: str, endpoint: str, *, has_token: bool) -> Iterator[None]:
    """Say in plain words what huggingface_hub raises."""
    try:
        yield
    except GatedRepoError as error:
        raise _gated(source, endpoint, has_token=has_token) from error
    except DisabledRepoError as error:
        raise DeniedError(f"{source.repo} has been disabled at {endpoint}") from error
    except RevisionNotFoundError as error:
        raise NotFoundError(f"{source.repo} has no revision {revision!r} at {endpoint}") from error
    except RepositoryNotFoundError as error:
        raise _missing(source, endpoint, has_token=has_token) from error
    except HfHubHTTPError as error:
        raise _refused(source, endpoint, error.response.status_code, has_token=has_token) from error
    except (HFValidationError, OfflineModeIsEnabled) as error:
        raise NetworkError(f"{source.repo} cannot be asked for: {_text(error)}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptError(f"{endpoint} does not answer as the Hub does: {_text(error)}") from error
    except StorageError:
        raise
    except Exception as error:  # the HTTP client under huggingface_hub has changed before, and its errors with it
        raise NetworkError(f"{endpoint} cannot be reached: {_text(error)}") from error


def _gated(source: HubSource, endpoint: str, *, has_token: bool) -> GatedError:
    who = "the owner of the token has not been granted access" if has_token else "a token is needed: set HF_AUTH_TOKEN"
    return GatedError(f"{source.repo} is gated: accept its terms at {endpoint}/{source.repo}; {who}")


def _missing(source: HubSource, endpoint: str, *, has_token: bool) -> NotFoundError:
    or_private = (
        "or the token may not see it" if has_token else "or it is private and a token is needed: set HF_AUTH_TOKEN"
    )
    return NotFoundError(f"{source.repo} does not exist at {endpoint}, {or_private}")


def _refused(source: HubSource, endpoint: str, status: int, *, has_token: bool) -> StorageError:
    if status == HTTPStatus.UNAUTHORIZED and not has_token:
        return _missing(source, endpoint, has_token=False)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        hint = (
            "the token is not valid or has no right to it" if has_token else "a token may be needed: set HF_AUTH_TOKEN"
        )
        return DeniedError(f"{source.repo} is refused by {endpoint} ({status}): {hint}")
    if status == HTTPStatus.NOT_FOUND:
        return _missing(source, endpoint, has_token=has_token)
    return NetworkError(f"{endpoint} answers {status} for {source.repo}")


def _text(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
