"""A Hugging Face hub, and the CDN behind it on another port, under pytest-httpserver.

::

    with Hub() as hub:
        repository = hub.create("org/model")
        repository.commit({"config.json": b"{}", "model.safetensors": WEIGHTS})
        snapshot_download("org/model", endpoint=hub.url, local_dir=folder)

It speaks what huggingface_hub speaks::

    GET  /api/models/{repo}/revision/{rev}                the commit
    GET  /api/models/{repo}/tree/{sha}?recursive=true     files; pages by the Link header
    GET  /api/models/{repo}/xet-read-token/{sha}          where Xet storage would be
    HEAD /{repo}/resolve/{rev}/{path}                     small file: 307 to /api/resolve-cache/…, which has it
    GET                                                   large file: 302 to the CDN, with X-Linked-*

Names with a ``BadProxy`` before them: give its URL as `public_url` or `cdn_url` and every link leads there.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from pytest_httpserver import HTTPServer
from werkzeug import Response

from simulators.hub.answers import blob, error, json_page
from simulators.hub.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from werkzeug import Request

    from simulators.hub.repository import HubFile

__all__ = ["Hub"]

NAME: Final = r"(?P<repo>[^/]+/[^/]+)"
API: Final = re.compile(rf"/api/models/{NAME}/(?P<what>revision|tree|xet-read-token)/(?P<revision>.+)")
RESOLVE: Final = re.compile(rf"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
CACHE: Final = re.compile(rf"/api/resolve-cache/models/{NAME}/(?P<revision>[^/]+)/(?P<path>.+)")


class Hub:
    """Two servers, while the ``with`` block runs.

    Attributes:
        url: The endpoint, as in HF_ENDPOINT.
        netloc: Its host and port.
        cdn_netloc: The CDN's.
        public_url: Where links to the Hub lead.
        cdn_url: Where redirects of large files lead.
        tree_page: How many entries a page of the tree has.
    """

    def __init__(self, *, tree_page: int = 1000) -> None:
        self.tree_page = tree_page
        self._repositories: dict[str, Repository] = {}
        self._signatures = itertools.count(1)
        self._good: set[str] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._hub = _server(self._answer)
        self._cdn = _server(self._answer_cdn)
        self.netloc, self.cdn_netloc = (f"127.0.0.1:{server.port}" for server in (self._hub, self._cdn))
        self.url = self.public_url = f"http://{self.netloc}"
        self.cdn_url = f"http://{self.cdn_netloc}"
        return self

    def __exit__(self, *_: object) -> None:
        self._hub.stop()
        self._cdn.stop()

    def create(
        self,
        name: str,
        *,
        token: str | None = None,
        gated: str = "",
        granted: frozenset[str] = frozenset(),
        xet: bool = False,
    ) -> Repository:
        """Add a repository with no commits."""
        repository = self._repositories[name] = Repository(name, token, gated, granted, xet)
        return repository

    def expire_links(self) -> None:
        """Make every CDN link that was given out so far one whose time is over."""
        with self._lock:
            self._good.clear()

    def requests(self) -> list[Request]:
        """Return what the Hub itself was asked."""
        return [request for request, _ in self._hub.log]

    def cdn_requests(self) -> list[Request]:
        """Return what the CDN was asked."""
        return [request for request, _ in self._cdn.log]

    def _answer(self, request: Request) -> Response:
        path = unquote(request.path)
        for pattern, answer in [(API, self._answer_api), (CACHE, self._answer_cache), (RESOLVE, self._answer_file)]:
            if found := pattern.fullmatch(path):
                return self._checked(request, found, answer)
        return error(404, "", "Not Found")

    def _checked(self, request: Request, found: re.Match[str], answer: Callable[..., Response]) -> Response:
        """Refuse those who may not, in the Hub's words; then answer."""
        token = _token(request)
        repository = self._repositories.get(found["repo"])
        if repository is None or not repository.may_see(token):
            return error(404 if token else 401, "RepoNotFound", "Repository not found")
        if not repository.may_read(token, "api" if answer == self._answer_api else "files"):
            message = (
                f"Access to model {repository.name} is restricted. You must have access to it and be authenticated."
            )
            return error(403 if token else 401, "GatedRepo", message)
        sha = repository.sha(found["revision"])
        if sha is None:
            return error(404, "RevisionNotFound", f"Invalid rev id: {found['revision']}")
        return answer(request, found, repository, sha)

    def _answer_api(self, request: Request, found: re.Match[str], repository: Repository, sha: str) -> Response:
        if found["what"] == "revision":
            siblings = [{"rfilename": path} for path in repository.files(sha)]
            info: dict[str, object] = {
                "id": repository.name,
                "modelId": repository.name,
                "sha": sha,
                "siblings": siblings,
            }
            info |= {"private": repository.token is not None, "gated": "auto" if repository.gated else False}
            return Response(json.dumps(info), content_type="application/json; charset=utf-8")
        if found["what"] == "tree":
            return json_page(request, repository.tree(sha), self.tree_page, self.public_url)
        xet = {"X-Xet-Cas-Url": self.cdn_url, "X-Xet-Access-Token": "xet-token", "X-Xet-Token-Expiration": "4102444800"}
        return Response("{}", headers=xet, content_type="application/json")

    def _answer_file(self, _request: Request, found: re.Match[str], repository: Repository, sha: str) -> Response:
        file = repository.files(sha).get(found["path"])
        if file is None:
            return error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": sha})
        headers = {
            "X-Repo-Commit": sha,
            "X-Linked-Size": str(len(file.data)),
            "X-Linked-Etag": f'"{file.etag}"',
            "Accept-Ranges": "bytes",
        }
        name = f"{repository.name}/{sha}/{quote(found['path'])}"
        if not file.lfs:
            return Response(status=307, headers=headers | {"Location": f"/api/resolve-cache/models/{name}"})
        if repository.xet:
            headers |= self._xet_headers(repository, sha, file)
        return Response(status=302, headers=headers | {"Location": self._sign(repository, file)})

    def _answer_cache(self, request: Request, found: re.Match[str], repository: Repository, sha: str) -> Response:
        file = repository.files(sha)[found["path"]]
        return blob(request, file.data, f'"{file.etag}"', {"X-Repo-Commit": sha})

    def _answer_cdn(self, request: Request) -> Response:
        """Serve by digest, to whoever has a signed link; S3 refuses a second kind of authorization."""
        name, _, digest = request.path.removeprefix("/repos/").rpartition("/")
        with self._lock:
            good = request.args.get("Signature") in self._good
        repository = self._repositories.get(name)
        if not good or repository is None:
            return error(403, "", "Request has expired")
        if "Authorization" in request.headers:
            return error(400, "", "Only one auth mechanism allowed")
        return blob(request, repository.large_file(digest), f'"{digest}"', {})

    def _sign(self, repository: Repository, file: HubFile) -> str:
        with self._lock:
            signature = f"signature-{next(self._signatures)}"
            self._good.add(signature)
        return f"{self.cdn_url}/repos/{repository.name}/{file.sha256}?Expires=4102444800&Signature={signature}"

    def _xet_headers(self, repository: Repository, sha: str, file: HubFile) -> dict[str, str]:
        auth = f"{self.public_url}/api/models/{repository.name}/xet-read-token/{sha}"
        info = f"{self.cdn_url}/v1/reconstructions/{file.xet_hash}"
        return {
            "X-Xet-Hash": file.xet_hash,
            "Link": f'<{auth}>; rel="xet-auth", <{info}>; rel="xet-reconstruction-info"',
        }


def _server(answer: Callable[[Request], Response]) -> HTTPServer:
    server = HTTPServer(host="127.0.0.1", threaded=True)
    server.expect_request(re.compile(".*")).respond_with_handler(answer)
    server.start()
    return server


def _token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token if scheme == "Bearer" and token else None
