"""The Hub peer speaks what huggingface_hub speaks; the real library is the client, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests

from simulators.hub.server import Hub
from simulators.misbehaving.proxy import BadProxy
from simulators.misbehaving.proxy_faults import cut
from tests.harness.runtime import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG: Final = b'{"model_type": "test"}'
WEIGHTS: Final = bytes(range(256)) * 4096
FILES: Final = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "extra/a b+ü.json": b"", "extra/deep/x.bin": b"x"}
CLIENT: Final = """\
import json, sys
from huggingface_hub import snapshot_download
try:
    print(json.dumps({"path": snapshot_download(**json.load(sys.stdin))}))
except Exception as error:
    print(json.dumps({"error": type(error).__name__}))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub with small pages."""
    with Hub(tree_page=3) as hub:
        yield hub


def snapshot(hub: Hub, folder: Path, **options: Any) -> str | None:
    """Download `org/model` to `folder` with the library; return the name of the error, if there was one."""
    variables = {"HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": hub.public_url, "HF_HOME": str(folder.parent / "home")}
    ended = subprocess.run(
        [sys.executable, "-c", CLIENT],
        input=json.dumps({"repo_id": "org/model", "local_dir": str(folder)} | options),
        env=environment(variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    error: str | None = json.loads(ended.stdout).get("error")
    return error


def contents(folder: Path) -> dict[str, bytes]:
    """Return what lies in a folder, without the library's own notes."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("revision", [None, "main", "v1", "commit"])
def test_a_snapshot_is_downloaded(hub: Hub, tmp_path: Path, revision: str | None) -> None:
    """Every byte, by branch, tag and commit."""
    repository = hub.create("org/model")
    sha = repository.commit(FILES)
    repository.refs["v1"] = sha

    failed = snapshot(hub, tmp_path / "model", revision=sha if revision == "commit" else revision)

    assert failed is None
    assert contents(tmp_path / "model") == FILES


def test_a_private_snapshot_needs_its_token(hub: Hub, tmp_path: Path) -> None:
    """The token goes to the Hub, and never to the CDN, which would refuse it."""
    hub.create("org/model", token="hf_secret").commit(FILES)

    assert snapshot(hub, tmp_path / "without") == "RepositoryNotFoundError"
    assert snapshot(hub, tmp_path / "with", token="hf_secret") is None
    assert contents(tmp_path / "with") == FILES
    assert {request.headers.get("Authorization") for request in hub.cdn_requests()} == {None}
    assert "Bearer hf_secret" in {request.headers.get("Authorization") for request in hub.requests()}


@pytest.mark.parametrize(
    ("options", "revision", "expected"),
    [
        ({"gated": "all"}, "main", "GatedRepoError"),
        ({"gated": "files"}, "main", "GatedRepoError"),
        ({"gated": "all", "granted": frozenset({"hf_good"})}, "main", None),
        ({}, "nope", "RevisionNotFoundError"),
        ({"token": "hf_other"}, "main", "RepositoryNotFoundError"),
    ],
)
def test_refusals_are_the_hubs(
    hub: Hub, tmp_path: Path, options: dict[str, Any], revision: str, expected: str | None
) -> None:
    """The library takes each for what it is."""
    hub.create("org/model", **options).commit(FILES)

    assert snapshot(hub, tmp_path / "model", revision=revision, token="hf_good") == expected


def test_links_can_lead_through_a_proxy(hub: Hub, tmp_path: Path) -> None:
    """What passes is counted, and a body that is cut is fetched again by its library."""
    repository = hub.create("org/model")
    repository.commit(FILES)
    with BadProxy(hub.netloc) as front, BadProxy(hub.cdn_netloc) as cdn:
        hub.public_url, hub.cdn_url = front.url, cdn.url
        cdn.misbehave(cut(after=1000), f"*/{repository.files()['model.safetensors'].sha256}", times=1)

        assert snapshot(hub, tmp_path / "model") is None

        assert contents(tmp_path / "model") == FILES
        assert cdn.sent() == 1000 + len(WEIGHTS) + 1
        assert len(front.exchanges("/api/models/org/model/tree/*")) == 2


def test_large_files_are_linked(hub: Hub) -> None:
    """With their digest, their size, and Xet's headers where the repository has it; links expire."""
    repository = hub.create("org/model", xet=True)
    sha = repository.commit(FILES)
    url = f"{hub.url}/org/model/resolve/main/model.safetensors"

    answer = requests.head(url, timeout=10)
    link = answer.headers["Location"]

    assert (answer.status_code, answer.headers["X-Repo-Commit"]) == (302, sha)
    assert answer.headers["X-Linked-Etag"] == f'"{repository.files()["model.safetensors"].sha256}"'
    assert answer.headers["X-Linked-Size"] == str(len(WEIGHTS))
    assert answer.links["xet-auth"]["url"] == f"{hub.url}/api/models/org/model/xet-read-token/{sha}"
    assert requests.get(link, headers={"Range": "bytes=5-9"}, timeout=10).content == WEIGHTS[5:10]
    hub.expire_links()
    assert requests.get(link, timeout=10).status_code == 403


@pytest.mark.parametrize(
    ("headers", "status", "body"),
    [
        ({"Range": "bytes=2-"}, 206, CONFIG[2:]),
        ({"Range": "bytes=2-1000"}, 206, CONFIG[2:]),
        ({"Range": "bytes=1000-"}, 416, b""),
        ({"If-Match": '"other"'}, 412, b""),
        ({}, 200, CONFIG),
    ],
)
def test_small_files_have_ranges(hub: Hub, headers: dict[str, str], status: int, body: bytes) -> None:
    """Behind a redirect that stays on the Hub."""
    hub.create("org/model").commit(FILES)

    answer = requests.get(f"{hub.url}/org/model/resolve/main/config.json", headers=headers, timeout=10)

    assert (answer.status_code, answer.content) == (status, body)
    assert [earlier.status_code for earlier in answer.history] == [307]


def test_a_missing_file_is_told(hub: Hub) -> None:
    """As the Hub does, in a header."""
    hub.create("org/model").commit(FILES)

    answer = requests.head(f"{hub.url}/org/model/resolve/main/nope.json", timeout=10)

    assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "EntryNotFound")
