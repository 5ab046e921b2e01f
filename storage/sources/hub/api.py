"""The two requests to the Hub's API: which commit a revision is, and which files the commit has.

huggingface_hub sends them and decodes the answers, but through our own transport (`storage.transfer.http_client`,
docs/adr/0017). By itself it would read bodies of any length, and follow redirects and Link headers anywhere. With our
transport the token stays with the Hub, answers and listings have limits, and one place decides about retries.
"""

from __future__ import annotations

import os
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

# huggingface_hub reads these variables when it is imported.
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

# A mirror may ignore `expand` and send the names of all files, too.
_MAX_INFO_BYTES: Final = 8 << 20
_MAX_ERROR_BYTES: Final = 4096
# Exceptions of huggingface_hub for answers that make no sense.
_NONSENSE: Final = (httpx2.HTTPError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
# Headers that our transport sets itself, or that belong to one connection.
_OWN_HEADERS: Final = frozenset(("accept-encoding", "connection", "host", "user-agent"))


class HubApi:
    """The API of one repository."""

    def __init__(
        self, endpoint: str, repo: str, transport: Transport, explain: Callable[[int, Mapping[str, str]], StorageError],
        *, token: str | None, memory: int, tries: int,
    ) -> None:  # fmt: skip
        """Prepare; no request is sent yet.

        Args:
            endpoint: URL of the Hub.
            repo: Namespace and name.
            transport: Sends requests.
            explain: Turns the status and headers of a refusal into an error.
            token: Sent to the endpoint only.
            memory: Maximum bytes of a listing.
            tries: Maximum attempts of a request.
        """
        self._repo = repo
        self._transport = _BoundedTransport(endpoint, transport, explain, memory=memory, tries=tries)
        # The factory is global in huggingface_hub. A worker has only one repository.
        set_client_factory(lambda: httpx2.Client(transport=self._transport, trust_env=False))
        # False, not None: with None, huggingface_hub would look for a token in the environment and the home directory.
        self._api = HfApi(endpoint=endpoint, token=token or False)

    def commit(self, revision: str) -> str:
        """Return the commit of a revision, as the Hub says it; the caller checks its form.

        Raises:
            StorageError: The Hub refuses, or its answer makes no sense.
        """
        try:
            return self._api.model_info(self._repo, revision=revision, expand=["sha"]).sha or ""
        except _NONSENSE as error:
            raise self._nonsense(error) from error

    def files(self, commit: str) -> Iterator[RepoFile]:
        """Yield all files of a commit.

        Raises:
            StorageError: The Hub refuses, or its listing makes no sense or exceeds a limit.
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
    """Sends huggingface_hub's requests through our own transport, and raises our own errors for refusals.

    Attributes:
        url: The URL of the last request.
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
        """Return the complete answer to a request, after redirects and retries."""
        self.url = url = self._kept_here(str(request.url))
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN_HEADERS}
        read = self._pages.read if self._tree else partial(read_whole, limit=_MAX_INFO_BYTES)
        body, link = retried(self._endpoint, partial(self._ask, url, headers, read), tries=self._tries)
        return httpx2.Response(HTTPStatus.OK, headers={"Link": link} if link else None, content=bytes(body))

    def _kept_here(self, url: str) -> str:
        """Return the URL to request. The pages of a listing differ only in their query.

        A mirror's Link headers may name the Hub that it mirrors, or plain HTTP. The token must not go there.
        """
        if self._tree:
            return urlsplit(self._tree)._replace(query=urlsplit(url).query).geturl()
        if "/tree/" in url:
            self._tree = url
        return url

    def _ask(
        self, url: str, headers: Mapping[str, str], read: Callable[[BaseHTTPResponse], bytearray]
    ) -> tuple[bytearray, str]:
        for _ in range(MAX_REDIRECTS + 1):
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
