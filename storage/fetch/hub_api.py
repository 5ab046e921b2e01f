"""The two questions that the Hub is asked: which commit a revision is, and which files that has.

    GET /api/models/{repo}/revision/{revision}      {"sha": ..., and much more}
    GET /api/models/{repo}/tree/{commit}?recursive=true&expand=false
        [{"type": "file", "path": ..., "size": ..., "oid": <git's SHA-1>, "lfs": {"oid": <SHA-256>, ...}}, ...]
        Link: <the next page>; rel="next"

Of an answer only these fields are decoded: what else is in it takes no memory.
"""

from __future__ import annotations

import re
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from storage.errors import CorruptError, NetworkError
from storage.fetch.answers import Pages, retried
from storage.responses import (
    MAX_REDIRECTS,
    REDIRECTS,
    check_passing,
    let_go,
    read_head,
    read_whole,
    redirected,
)
from storage.transport import address_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from urllib3 import BaseHTTPResponse

    from storage.errors import StorageError
    from storage.transport import Transport

__all__ = ["Entry", "HubApi"]

# With the names of all files, and what else people write about a model.
_MAX_INFO_BYTES: Final = 16 << 20
_MAX_ERROR_BYTES: Final = 4096
# Neither class goes beyond the next link: a header of very many would be read once for each of them.
_NEXT: Final = re.compile(r'<([^<>]*)>[^,<]*;\s*rel="?next\b')
_T = TypeVar("_T")


class _Lfs(msgspec.Struct):
    oid: str = ""


class Entry(msgspec.Struct):
    """A line of a tree."""

    type: str
    path: str
    size: int = 0
    oid: str = ""
    lfs: _Lfs | None = None


class _Info(msgspec.Struct):
    sha: str | None = None


class HubApi:
    """Asks about one repository."""

    def __init__(  # noqa: PLR0913 - collaborators, and two numbers by name
        self, endpoint: str, repo: str, transport: Transport, explain: Callable[[int, Mapping[str, str]], StorageError],
        *, token: str | None, memory: int, tries: int,
    ) -> None:  # fmt: skip
        """Prepare; nothing is asked yet.

        Args:
            endpoint: The Hub.
            repo: Namespace and name.
            transport: Sends requests.
            explain: Makes an error of the status and the headers of a refusal.
            token: Sent to the endpoint only.
            memory: Bytes that a tree may have at most.
            tries: How often a question is asked.
        """
        self._endpoint = endpoint
        self._base = f"{endpoint}/api/models/{repo}"
        self._transport = transport
        self._explain = explain
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._memory = memory
        self._tries = tries

    def commit(self, revision: str) -> str:
        """Return what the Hub says is the commit of a revision.

        Raises:
            StorageError: It does not say.
        """
        url = f"{self._base}/revision/{quote(revision, safe='')}"
        body, _ = self._ask(url, lambda response: read_whole(response, _MAX_INFO_BYTES))
        return self._decoded(body, url, _Info).sha or ""

    def tree(self, commit: str) -> Iterator[Entry]:
        """Yield all files and directories of a commit, over all pages.

        Raises:
            StorageError: The Hub refuses, or its listing makes no sense or has no end.
        """
        pages = Pages(self._memory)
        url: str | None = f"{self._base}/tree/{commit}?recursive=true&expand=false"
        while url:
            body, link = self._ask(url, pages.read)
            yield from self._decoded(body, url, list[Entry])
            found = _NEXT.search(link)
            # The same address: a mirror's links may name the Hub that it mirrors, or plain HTTP.
            url = urlsplit(url)._replace(query=urlsplit(found[1]).query).geturl() if found else None

    def _ask(self, url: str, read: Callable[[BaseHTTPResponse], bytearray]) -> tuple[bytearray, str]:
        return retried(self._endpoint, partial(self._ask_once, url, read), tries=self._tries)

    def _ask_once(self, url: str, read: Callable[[BaseHTTPResponse], bytearray]) -> tuple[bytearray, str]:
        """Return the body of an answer, over redirects, and its Link header."""
        headers = self._headers
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

    def _decoded(self, body: bytearray, url: str, kind: type[_T]) -> _T:
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise CorruptError(f"{address_of(url)} does not answer as the Hub does: {str(error)[:200]}") from error
