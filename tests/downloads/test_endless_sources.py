"""Stores and Hubs whose answers have no end: a clear error, and a container that has room for all of it."""

from __future__ import annotations

import gzip
import itertools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from simulators.misbehaving.proxy import BadProxy
from simulators.misbehaving.proxy_exchange import Answer
from simulators.misbehaving.proxy_faults import answers, endless
from simulators.waiting import PATIENCE, wait_until
from tests.harness.downloader import Downloader
from tests.harness.memory import MIB, Watch, limited
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from simulators.misbehaving.proxy_exchange import Exchange
    from simulators.misbehaving.proxy_faults import Fault

pytestmark = [pytest.mark.faults, pytest.mark.slow]

COMMIT: Final = "c" * 40
REVISION: Final = "/api/models/org/model/revision/main"
TREE: Final = f"/api/models/org/model/tree/{COMMIT}"
FILES: Final = "/org/model/resolve/*"
HUB: Final = "org/model"
STORE: Final = "s3://models/model"
LIST: Final = "/models"
XML: Final = {"Content-Type": "application/xml"}
PAGE: Final = "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>{}"
FLOOD: Final = {f"X-Flood-{number}": "x" * 60_000 for number in range(90)}


def entries(numbers: range) -> list[dict[str, Any]]:
    return [{"type": "file", "path": f"{number}.json", "size": 2, "oid": "0" * 40} for number in numbers]


def rows(numbers: range) -> str:
    row = "<Contents><Key>model/{}.json</Key><Size>2</Size><ETag>&quot;{:032x}&quot;</ETag></Contents>"
    return "".join(row.format(number, number) for number in numbers)


def next_page(size: int) -> Fault:
    """A tree that always has another page, of `size` files."""
    numbers = itertools.count()

    def act(exchange: Exchange) -> None:
        number = next(numbers)
        link = {"Link": f'<http://{exchange.request.headers["host"]}{TREE}?cursor={number}>; rel="next"'}
        body = json.dumps(entries(range(number * size, number * size + size))).encode()
        exchange.reply(Answer.of(200, body, link))

    return act


def next_rows(size: int, more: str = "") -> Fault:
    """A listing that always has another page, of `size` objects."""
    numbers = itertools.count()

    def act(exchange: Exchange) -> None:
        number = next(numbers)
        body = PAGE.format(f"token-{number}", rows(range(number * size, number * size + size)) + more)
        exchange.reply(Answer.of(200, f"{body}</ListBucketResult>".encode(), XML))

    return act


def listing(more: str, prolog: str = "") -> Fault:
    return answers(200, f"{prolog}<ListBucketResult>{more}</ListBucketResult>".encode(), XML)


def compressed(headers: dict[str, str]) -> Fault:
    """Blanks in gzip, made when they are asked for."""

    def act(exchange: Exchange) -> None:
        answers(200, gzip.compress(b" " * (64 * MIB)), headers | {"Content-Encoding": "gzip"})(exchange)

    return act


@dataclass(frozen=True, slots=True)
class Row:
    """What a peer does, and what must come of it.

    Attributes:
        source: What is downloaded from it.
        faults: What it answers, by path.
        codes: What the job's error may be; "" is none.
        words: What the error names.
    """

    source: str
    faults: Mapping[str, Fault]
    codes: tuple[str, ...]
    words: tuple[str, ...]


def hub(words: tuple[str, ...], *codes: str, **faults: Fault) -> Row:
    """A Hub, good but for these answers."""
    good = {
        "revision": answers(200, json.dumps({"id": "org/model", "sha": COMMIT}).encode()),
        "tree": answers(200, b"[]"),
    }
    paths = {"revision": REVISION, "tree": TREE, "files": FILES, "elsewhere": "/elsewhere"}
    return Row(HUB, {paths[name]: fault for name, fault in (good | faults).items()}, codes or ("too_large",), words)


def store(fault: Fault, words: tuple[str, ...], *codes: str) -> Row:
    return Row(STORE, {LIST: fault}, codes or ("too_large",), words)


BILLION: Final = (
    '<!DOCTYPE x [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in itertools.pairwise("abcdefghij"))
    + "]>"
)
ROWS: Final = {
    "hub: the revision has no end": hub((REVISION, "8388608"), revision=endless(b"x", begin=b'{"sha": "')),
    "hub: the revision is an endless list": hub((REVISION, "8388608"), revision=endless(b"[],", begin=b"[")),
    "hub: the revision is compressed": hub(
        (REVISION, "gzip"), "network",
        revision=compressed({}),
    ),
    "hub: the revision is nested without end": hub((REVISION,), "corrupt", revision=answers(200, b"[" * (8 * MIB))),
    "hub: a page of the tree has no end": hub((TREE, "4194304"), tree=endless(b'{"type": "file"},', begin=b"[")),
    "hub: a page of the tree is full of nothing": hub((), "corrupt", "out_of_memory", tree=answers(200, b"[" + b"[]," * MIB)),
    "hub: every page has a next one": hub((TREE, "500 pages"), tree=next_page(0)),
    "hub: files without end": hub(("hf://org/model", "20480", "--worker-memory"), tree=next_page(1000)),
    "hub: a refusal without end": hub(("403",), "denied", revision=endless(b"x", status=403)),
    "hub: a redirect with an endless body": hub(
        (), "",
        tree=answers(200, json.dumps([{"type": "file", "path": "a", "size": 2, "oid": ""}]).encode()),
        files=endless(b"x", status=302, headers={"Location": "/elsewhere"}),
        elsewhere=answers(200, b"{}"),
    ),
    "hub: a redirect without end": hub(("redirects without end",), "network", revision=answers(302, b"", {"Location": REVISION})),
    "hub: headers without measure": hub(
        (), "", "out_of_memory",
        tree=answers(200, json.dumps([entry | {"oid": ""} for entry in entries(range(32))]).encode()),
        files=answers(200, b"{}", FLOOD),
    ),
    "store: a page has no end": store(endless(b"<a/>", begin=b"<ListBucketResult>", headers=XML), (LIST, "4194304")),
    "store: every page has a next one": store(next_rows(0), (LIST, "500 pages")),
    "store: objects without end": store(next_rows(1000), (STORE, "20480", "--worker-memory")),
    "store: pages without end, full of nothing": store(next_rows(0, " " * 4_000_000), (LIST, "83886080 bytes")),
    "store: a listing of entities": store(listing("&j;", BILLION), ("listing",), "network"),
    "store: elements within elements": store(listing("<a>" * MIB), ("listing",), "network"),
    "store: rows without end on a page": store(listing("<Contents/>" * 300_000), ("listing",), "network"),
    "store: elements without end on a page": store(listing("<a/>" * 900_000), ("listing",), "network"),
    "store: a size of many digits": store(listing(f"<Contents><Size>{'9' * MIB}</Size></Contents>"), (), "network"),
    "store: a size below nothing": store(listing("<Contents><Size>-1</Size></Contents>"), ("listing",), "network"),
    "store: a name without end": store(
        listing(f"<Contents><Key>model/{'k' * 3 * MIB}</Key><Size>2</Size></Contents>"), ("too long",), "unsafe_name"
    ),
    "store: a compressed listing": store(compressed(XML), (LIST, "gzip"), "network"),
    "store: a refusal without end": store(endless(b"x", status=403, headers=XML), ("403",), "denied"),
}  # fmt: skip


@pytest.fixture
def peer() -> Iterator[BadProxy]:
    """A store and a Hub that misbehave as the test asks."""
    with BadProxy() as peer:
        yield peer


def pod(peer: BadProxy) -> dict[str, str]:
    """Return the variables of a pod that has it as its store and as its Hub."""
    keys = {"ACCESS_KEY": "access-key", "SECRET_KEY": "secret-key"}
    return keys | {"HF_ENDPOINT": peer.url, "ENDPOINT": peer.url, "AWS_REGION": "us-east-1"}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_an_answer_without_end(peer: BadProxy, tmp_path: Path, row: Row) -> None:
    """Ends in an error that names the address and the limit, or does no harm."""
    for path, fault in row.faults.items():
        peer.misbehave(fault, path)

    with Downloader(tmp_path).start(row.source, tmp_path / "model", variables=pod(peer)) as running:
        with Watch(running.process.pid) as watch:
            running.process.wait(timeout=PATIENCE)
        ended = running.end()

    assert watch.proportional < 128 * MIB, f"{watch.proportional / MIB:.0f} MiB"
    found = re.search(r"\[(\w+)\]$", ended.stderr.strip())
    assert (found[1] if found else "") in row.codes, ended.stderr
    assert all(word in ended.stderr for word in row.words), ended.stderr
    assert bool(found) == bool(ended.code)


def test_a_container_has_room_for_two_of_them(peer: BadProxy, tmp_path: Path) -> None:
    """Beside the runtime that was asked for them, which goes on; neither is tried again."""
    peer.misbehave(endless(b"x", begin=b'{"sha": "'), REVISION)
    peer.misbehave(endless(b" ", begin=b"<ListBucketResult>", headers=XML), LIST)
    with limited(256 * MIB) as group, Runtime("http://127.0.0.1:9", variables=pod(peer), group=group) as runtime:
        with Watch(runtime.pid) as watch:
            for source in (HUB, STORE):
                body = {"source": source, "output_dir": str(tmp_path / source[:2]), "async_download": True}
                answer = runtime.session.post(f"{runtime.url}/v1/download_model", json=body, timeout=PATIENCE)
                assert answer.status_code == 202, answer.text
            jobs = wait_until(lambda: _ended(runtime), "both have ended", every=0.1)
        assert runtime.get("/health").ok

    assert watch.proportional < 256 * MIB, f"{watch.proportional / MIB:.0f} MiB"
    assert [(job["state"], job["error"]["code"], job["retries"]) for job in jobs] == [("failed", "too_large", 0)] * 2


def _ended(runtime: Runtime) -> list[dict[str, Any]]:
    """Return all downloads when they have ended."""
    jobs = runtime.get("/v1/downloads").json()["downloads"]
    return jobs if all(job["finished"] for job in jobs) else []
