"""Models from the Hugging Face Hub, from a peer that speaks its protocol: pinned, verified, and plainly refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from simulators.hub.server import Hub
from simulators.misbehaving.proxy import BadProxy
from simulators.misbehaving.proxy_faults import answers, corrupts, first, ignores_range, rewrites
from simulators.ports import free_port
from tests.harness.downloader import contents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.harness.downloader import Downloader

pytestmark = pytest.mark.slow

WEIGHTS: Final = bytes(range(256)) * 8192
MODEL: Final = {
    "config.json": b'{"model_type": "test"}',
    "model-00001-of-00002.safetensors": WEIGHTS,
    "model-00002-of-00002.safetensors": WEIGHTS[::-1],
    "extra/a b+ü 模型.json": b"{}",
    "extra/deep/empty.bin": b"",
    "empty.txt": b"",
}
TOKEN: Final = "hf_token_that_nobody_may_see"
CDN: Final = "/repos/*"


def pod(hub: Hub, token: str | None = None, **more: str) -> dict[str, str]:
    """Return the variables of a pod that uses this hub."""
    return {"HF_ENDPOINT": hub.public_url} | ({"HF_AUTH_TOKEN": token} if token else {}) | more


@pytest.fixture
def proxies(hub: Hub) -> Iterator[tuple[BadProxy, BadProxy]]:
    """A proxy before the Hub, and one before its CDN, which all links go through."""
    with BadProxy(hub.netloc) as front, BadProxy(hub.cdn_netloc) as cdn:
        hub.public_url, hub.cdn_url = front.url, cdn.url
        yield front, cdn


@pytest.mark.parametrize("source", ["org/model", "hf://org/model", "hf://org/model@main", "org/model@v1"])
def test_a_repository_is_a_model(downloader: Downloader, hub: Hub, target: Path, source: str) -> None:
    """Written either way, by branch or tag; names of every kind and empty files."""
    repository = hub.create("org/model")
    repository.refs["v1"] = repository.commit(MODEL)

    run = downloader.run(source, target, variables=pod(hub))

    assert run.code == 0, run.stderr
    assert contents(target) == MODEL


@pytest.mark.parametrize("how", ["source", "variable", "config"])
def test_a_revision_is_pinned(downloader: Downloader, hub: Hub, target: Path, how: str) -> None:
    """By a commit that no branch holds any more, said in the source, in the environment or in the config."""
    repository = hub.create("org/model")
    sha = repository.commit({"config.json": b"old"})
    repository.refs["old"] = sha
    repository.commit(MODEL)
    source = f"org/model@{sha}" if how == "source" else "org/model"
    variables = pod(hub) | ({"HF_REVISION": sha} if how == "variable" else {})

    run = downloader.run(source, target, variables=variables, config={"hf_revision": sha} if how == "config" else None)

    assert run.code == 0, run.stderr
    assert contents(target) == {"config.json": b"old"}


def test_a_branch_that_moves_changes_nothing(
    downloader: Downloader, hub: Hub, proxies: tuple[BadProxy, BadProxy], target: Path
) -> None:
    """The commit that was resolved first is downloaded to the end."""
    front, _ = proxies
    repository = hub.create("org/model")
    repository.commit(MODEL)
    front.misbehave(
        first(lambda: repository.commit({"config.json": b"new"})), "/org/model/resolve/*", times=1, method="*"
    )

    run = downloader.run("org/model", target, variables=pod(hub))

    assert run.code == 0, run.stderr
    assert contents(target) == MODEL


def test_a_token_goes_to_the_hub_only(
    downloader: Downloader, hub: Hub, proxies: tuple[BadProxy, BadProxy], target: Path
) -> None:
    """The CDN has signed links, and would refuse a token besides."""
    front, cdn = proxies
    hub.create("org/model", token=TOKEN).commit(MODEL)

    run = downloader.run("org/model", target, variables=pod(hub, TOKEN))

    assert run.code == 0, run.stderr
    assert contents(target) == MODEL
    assert TOKEN in front.heard()
    assert TOKEN not in cdn.heard()


@pytest.mark.parametrize("tree_page", [2, 1000])
def test_trees_of_many_pages(downloader: Downloader, target: Path, tree_page: int) -> None:
    """Every file, however many pages the listing has."""
    files = {f"{number % 3}/{number}.json": b"%d" % number for number in range(50)}
    with Hub(tree_page=tree_page) as hub:
        hub.create("org/model").commit(files)

        run = downloader.run("org/model", target, variables=pod(hub))

    assert run.code == 0, run.stderr
    assert contents(target) == files


def test_links_to_other_pages_lead_nowhere_else(downloader: Downloader, target: Path) -> None:
    """A mirror may name the Hub that it mirrors: the pages, and the token, stay where they were asked for."""
    files = {f"{number}.json": b"%d" % number for number in range(5)}
    with Hub(tree_page=2) as hub, BadProxy() as elsewhere:
        hub.create("org/model", token=TOKEN).commit(files)
        variables = pod(hub, TOKEN)
        hub.public_url = elsewhere.url

        run = downloader.run("org/model", target, variables=variables)

        assert run.code == 0, run.stderr
        assert contents(target) == files
        assert elsewhere.exchanges() == []


@pytest.mark.parametrize(
    ("options", "source", "token", "code", "words"),
    [
        ({"gated": "all"}, "org/model", None, 4, "gated|terms|access"),
        ({"gated": "all"}, "org/model", "hf_stranger", 4, "gated|terms|access"),
        ({"gated": "files"}, "org/model", None, 4, "gated|terms|access"),
        ({"gated": "files"}, "org/model", "hf_stranger", 4, "gated|terms|access"),
        ({"token": TOKEN}, "org/model", "hf_stranger", 3, "org/model"),
        ({}, "org/missing", None, 3, "org/missing"),
        ({}, "org/missing", "hf_stranger", 3, "org/missing"),
        ({}, "org/model@nope", None, 3, "nope"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
def test_refusals_are_told(
    downloader: Downloader, hub: Hub, target: Path, options: dict[str, Any], source: str, token: str | None,
    code: int, words: str, *, used: bool,
) -> None:  # fmt: skip
    """In plain words, and never as a success, also where files lie in the target already."""
    hub.create("org/model", **options).commit(MODEL)
    if used:
        target.mkdir(parents=True)
        (target / "notes.txt").write_text("somebody's")

    run = downloader.run(source, target, variables=pod(hub, token))

    assert run.code == code, run.stderr
    assert any(word in run.stderr for word in words.split("|")), run.stderr
    assert (contents(target) if target.exists() else {}) == ({"notes.txt": b"somebody's"} if used else {})


def test_a_missing_private_repository_names_the_token(downloader: Downloader, hub: Hub, target: Path) -> None:
    """The Hub says 401 for what may be private: that a token may be missing must be said."""
    hub.create("org/model", token=TOKEN).commit(MODEL)

    run = downloader.run("org/model", target, variables=pod(hub))

    assert run.code in {3, 4}, run.stderr
    assert "token" in run.stderr.lower()


@pytest.mark.parametrize(
    ("status", "code"), [(500, 6), (503, 6), (403, 4)], ids=["failing", "unavailable", "forbidden"]
)
def test_a_hub_that_fails(
    downloader: Downloader, hub: Hub, proxies: tuple[BadProxy, BadProxy], target: Path, *, status: int, code: int
) -> None:
    """Is no success either, which it is to the library when the folder has any file."""
    hub.create("org/model").commit(MODEL)
    proxies[0].misbehave(answers(status), method="*")
    target.mkdir(parents=True)
    (target / "config.json").write_text("somebody's")

    run = downloader.run("org/model", target, "--retries", "1", variables=pod(hub))

    assert run.code == code, run.stderr


def test_a_hub_that_is_not_there(downloader: Downloader, target: Path) -> None:
    """Is named."""
    url = f"http://127.0.0.1:{free_port()}"

    run = downloader.run("org/model", target, "--retries", "1", variables={"HF_ENDPOINT": url})

    assert run.code == 6, run.stderr
    assert url.removeprefix("http://") in run.stderr


def test_an_empty_repository(downloader: Downloader, hub: Hub, target: Path) -> None:
    """Is an error."""
    hub.create("org/model").commit({})

    assert downloader.run("org/model", target, variables=pod(hub)).code == 3


@pytest.mark.parametrize("large", [True, False], ids=["sha256", "git-sha1"])
def test_one_wrong_bit_is_found(
    downloader: Downloader, hub: Hub, proxies: tuple[BadProxy, BadProxy], target: Path, *, large: bool
) -> None:
    """In a large file, and in a small one; nothing of the model is published."""
    hub.create("org/model").commit(MODEL)
    front, cdn = proxies
    if large:
        cdn.misbehave(corrupts(at=1000), CDN)
    else:
        front.misbehave(corrupts(at=5), "*/config.json")

    run = downloader.run("org/model", target, variables=pod(hub))

    assert run.code == 7, run.stderr
    assert contents(target) == {}


@pytest.mark.parametrize(
    ("size", "lie"), [(22, 21), (22, 23), (len(WEIGHTS), len(WEIGHTS) - 1), (len(WEIGHTS), len(WEIGHTS) + 1)]
)
def test_sizes_that_are_lies(
    downloader: Downloader, hub: Hub, proxies: tuple[BadProxy, BadProxy], target: Path, *, size: int, lie: int
) -> None:
    """Of a small file or a large one, too small or too large: no file is cut or padded to fit."""
    hub.create("org/model").commit(MODEL)
    proxies[0].misbehave(rewrites(b'"size": %d,' % size, b'"size": %d,' % lie), "/api/models/org/model/tree/*")

    run = downloader.run("org/model", target, "--retries", "2", variables=pod(hub))

    assert run.code == 7, run.stderr
    assert not target.exists() or contents(target) == {}


def test_a_link_that_expires(
    downloader: Downloader, hub: Hub, proxies: tuple[BadProxy, BadProxy], target: Path
) -> None:
    """Is asked for anew."""
    hub.create("org/model").commit(MODEL)
    proxies[1].misbehave(first(hub.expire_links), CDN, times=2)

    run = downloader.run("org/model", target, variables=pod(hub))

    assert run.code == 0, run.stderr
    assert contents(target) == MODEL


def test_a_cdn_that_ignores_ranges(
    downloader: Downloader, hub: Hub, proxies: tuple[BadProxy, BadProxy], target: Path
) -> None:
    """As some mirrors do: the bytes are right all the same."""
    hub.create("org/model").commit({"model.safetensors": WEIGHTS})
    proxies[1].misbehave(ignores_range(WEIGHTS), CDN)

    run = downloader.run("org/model", target, variables=pod(hub))

    assert run.code == 0, run.stderr
    assert contents(target) == {"model.safetensors": WEIGHTS}


def test_xet_repositories_have_a_plain_way(
    downloader: Downloader, hub: Hub, proxies: tuple[BadProxy, BadProxy], target: Path
) -> None:
    """Through the CDN, when the storage of Xet is not there."""
    hub.create("org/model", xet=True).commit(MODEL)

    run = downloader.run("org/model", target, variables=pod(hub))

    assert run.code == 0, run.stderr
    assert contents(target) == MODEL
    assert not [
        path for proxy in proxies for path in (e.request.path for e in proxy.exchanges()) if "reconstruct" in path
    ]


def test_a_second_run_fetches_nothing(
    downloader: Downloader, hub: Hub, proxies: tuple[BadProxy, BadProxy], target: Path
) -> None:
    """And one after a commit fetches what is new."""
    repository = hub.create("org/model")
    repository.commit(MODEL)
    assert downloader.run("org/model", target, variables=pod(hub)).code == 0
    front, cdn = proxies
    fetched = []
    for files in (MODEL, MODEL | {"config.json": b"new", "new.bin": b"new"}):
        repository.commit(files)
        front.behave()
        cdn.behave()

        run = downloader.run("org/model", target, variables=pod(hub))

        assert run.code == 0, run.stderr
        assert contents(target) == files
        fetched.append(front.sent("*/resolve-cache/*") + cdn.sent())
    assert fetched == [0, 6]


def test_patterns(downloader: Downloader, hub: Hub, proxies: tuple[BadProxy, BadProxy], target: Path) -> None:
    """What is excluded is not asked for."""
    hub.create("org/model").commit(MODEL)

    run = downloader.run(
        "org/model", target, "--include", "*.json", "--include", "*.bin", "--exclude", "extra/a*", variables=pod(hub)
    )

    assert run.code == 0, run.stderr
    assert set(contents(target)) == {"config.json", "extra/deep/empty.bin"}
    assert proxies[1].sent() == 0


def test_patterns_that_match_nothing(downloader: Downloader, hub: Hub, target: Path) -> None:
    """Are an error, not an empty model."""
    hub.create("org/model").commit(MODEL)

    run = downloader.run("org/model", target, "--include", "*.gguf", variables=pod(hub))

    assert run.code == 3, run.stderr
    assert "*.gguf" in run.stderr
