"""The two questions that the Hub is asked: which commit a revision is, and which files that has.

huggingface_hub asks them and reads the answers. Its requests go through our own
transport (`storage.transfer.http_client`), which it would not do by itself: so the token
stays with the Hub, whatever a redirect or a Link header says, no answer is longer
than its limit, a listing has an end, and one place decides what is tried again.
"""

from __future__ import annotations

import os
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

# Read when huggingface_hub is imported.
os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_PROGRESS_BARS="1")

import httpx2
from huggingface_hub import HfApi, set_client_factory
from huggingface_hub.hf_api import RepoFile

from storage.errors import CorruptError, NetworkError
from storage.sources.answers import Pages, retried
from storage.transfer.http_client import address_of
from storage.transfer.responses import (
    MAX_REDIRECTS,
    REDIRECTS,
    check_passing,
    let_go,
    read_head,
    read_whole,
    redirected,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from urllib3 import BaseHTTPResponse

    from storage.errors import StorageError
    from storage.transfer.http_client import Transport

__all__ = ["HubApi"]

# With the names of all files, where a mirror sends more than it is asked for.
_MAX_INFO_BYTES: Final = 8 << 20
_MAX_ERROR_BYTES: Final = 4096
# What huggingface_hub raises for answers that make no sense.
_NONSENSE: Final = (httpx2.HTTPError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
# Headers of ours, or of the connection.
_OWN_HEADERS: Final = frozenset(("accept-encoding", "connection", "host", "user-agent"))


class HubApi:
    """Asks about one repository."""

    def __init__(
        self, endpoint: str, repo: str, transport: Transport, explain: Callable[[int, Mapping[str, str]], StorageError],
        *, token: str | None, memory: int, tries: int,
    ) -> None:  # fmt: skip
        """Prepare; no request is sent yet.

        Args:
            endpoint: The Hub.
            repo: Namespace and name.
            transport: Sends requests.
            explain: Makes an error of the status and the headers of a refusal.
            token: Sent to the endpoint only.
            memory: Bytes that a listing may have at most.
            tries: How often a question is asked.
        """
        self._repo = repo
        self._transport = _BoundedTransport(endpoint, transport, explain, memory=memory, tries=tries)
        set_client_factory(lambda: httpx2.Client(transport=self._transport, trust_env=False))
        # False, not None: None would look for a token in the machine's own places.
        self._api = HfApi(endpoint=endpoint, token=token or False)

    def commit(self, revision: str) -> str:
        """Return what the Hub says is the commit of a revision.

        Raises:
            StorageError: It does not say.
        """
        try:
            return self._api.model_info(self._repo, revision=revision, expand=["sha"]).sha or ""
        except _NONSENSE as error:
            raise self._nonsense(error) from error

    def files(self, commit: str) -> Iterator[RepoFile]:
        """Yield all files of a commit.

        Raises:
            StorageError: The Hub refuses, or its listing makes no sense or has no end.
        """
        try:
            for entry in self._api.list_repo_tree(self._repo, revision=commit, recursive=True):
                if isinstance(entry, RepoFile):
                    yield entry
        except _NONSENSE as error:
            raise self._nonsense(error) from error

    def _nonsense(self, error: Exception) -> CorruptError:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        return CorruptError(f"{address_of(self._transport.url)} does not answer as the Hub does: {text}")


class _BoundedTransport(httpx2.BaseTransport):
    """Sends what huggingface_hub asks through our own transport; refusals become our own errors.

    Attributes:
        url: What was asked last.
    """

    def __init__(
        self, endpoint: str, transport: Transport, explain: Callable[[int, Mapping[str, str]], StorageError],
        *, memory: int, tries: int,
    ) -> None:  # fmt: skip
        self._endpoint = endpoint
        self._transport = transport
        self._explain = explain
        self._pages = Pages(memory)
        self._tries = tries
        self.url = endpoint
        self._tree = ""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the whole answer to a request, over redirects and failures that pass."""
        self.url = url = self._kept_here(str(request.url))
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN_HEADERS}
        read = self._pages.read if self._tree else partial(read_whole, limit=_MAX_INFO_BYTES)
        body, link = retried(self._endpoint, partial(self._ask, url, headers, read), tries=self._tries)
        return httpx2.Response(HTTPStatus.OK, headers={"Link": link} if link else None, content=bytes(body))

    def _kept_here(self, url: str) -> str:
        """Return the address of a question; the pages of a listing differ in their query only.

        A mirror's links may name the Hub that it mirrors, or plain HTTP.
        """
        if self._tree:
            return urlsplit(self._tree)._replace(query=urlsplit(url).query).geturl()
        if "/tree/" in url:
            self._tree = url
        return url

    def _ask(
        self, url: str, headers: Mapping[str, str], read: Callable[[BaseHTTPResponse], bytearray]
    ) -> tuple[bytearray, str]:
        for _ in range(MAX_REDIRECTS):
            response = self._transport.open("GET", url, headers)
            check_passing(response)
            if response.status == HTTPStatus.OK:
                return read(response), response.headers.get("Link", "")
            if response.status not in REDIRECTS:
                read_head(response, _MAX_ERROR_BYTES)
                raise self._explain(response.status, response.headers)
            let_go(response)
            url, headers = redirected(url, headers, response.headers.get("Location", ""))
        raise NetworkError(f"{self._endpoint} redirects without end")
