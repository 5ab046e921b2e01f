"""Stores and Hubs whose answers have no end: a clear error, and a container that has room for all of it.

Two downloads from such a peer run at a time, beside the runtime that was asked for them, in a container of 256 MiB.
"""

from __future__ import annotations

import gzip
import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest

from tests.peers.bad_proxy import BadProxy
from tests.peers.memory import MIB, Watch, limited
from tests.peers.proxy_exchange import Answer
from tests.peers.proxy_faults import answers, endless
from tests.peers.runtime import Runtime
from tests.peers.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from tests.peers.proxy_exchange import Exchange
    from tests.peers.proxy_faults import Fault

COMMIT: Final = "c" * 40
REVISION: Final = "/api/models/org/model/revision/main"
TREE: Final = f"/api/models/org/model/tree/{COMMIT}"
FILES: Final = "/org/model/resolve/*"
HUB: Final = "org/model"
STORE: Final = "s3://models/model"
LIST: Final = "/models"
XML: Final = {"Content-Type": "application/xml"}
PAGE: Final = "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>{}"
PARTS: Final = {"ETag": f'"{"e" * 32}-9999"', "x-amz-mp-parts-count": "9999"}
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


@dataclass(frozen=True, slots=True)
class Row:
    """What a peer does, and what must come of it.

    Attributes:
        source: What is downloaded from it.
        faults: What it answers, by path.
        code: The job's error; none when it is done.
        words: What the error names.
        method: Which requests.
    """

    source: str
    faults: Mapping[str, Fault]
    code: str = "too_large"
    words: tuple[str, ...] = ()
    method: str = "GET"
    arguments: Mapping[str, Any] = field(default_factory=dict)


def hub(words: tuple[str, ...] = (), code: str = "too_large", **faults: Fault) -> Row:
    """A Hub, good but for these answers."""
    good = {"revision": answers(200, json.dumps({"sha": COMMIT}).encode()), "tree": answers(200, b"[]")}
    paths = {"revision": REVISION, "tree": TREE, "files": FILES, "elsewhere": "/elsewhere"}
    return Row(HUB, {paths[name]: fault for name, fault in (good | faults).items()}, code, words)


def store(fault: Fault, words: tuple[str, ...] = (), code: str = "too_large", **more: Any) -> Row:
    return Row(STORE, {LIST: fault} | more.pop("faults", {}), code, words, **more)


BILLION: Final = (
    '<!DOCTYPE x [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in itertools.pairwise("abcdefghij"))
    + "]>"
)
ROWS: Final = {
    "hub: the revision has no end": hub((REVISION, "16777216"), revision=endless(b"x", begin=b'{"sha": "')),
    "hub: the revision is an endless list": hub((REVISION, "16777216"), revision=endless(b"[],", begin=b"[")),
    "hub: the revision is compressed": hub(
        (REVISION, "gzip"), "network",
        revision=answers(200, gzip.compress(b" " * (64 * MIB)), {"Content-Encoding": "gzip"}),
    ),
    "hub: the revision is nested without end": hub((REVISION,), "corrupt", revision=answers(200, b"[" * (8 * MIB))),
    "hub: a page of the tree has no end": hub((TREE, "4194304"), tree=endless(b'{"type": "file"},', begin=b"[")),
    "hub: a page of the tree is full of nothing": hub((TREE,), "corrupt", tree=answers(200, b"[" + b"[]," * MIB)),
    "hub: every page has a next one": hub((TREE, "500 pages"), tree=next_page(0)),
    "hub: files without end": hub(("hf://org/model", "20480", "--worker-memory"), tree=next_page(1000)),
    "hub: a refusal without end": hub(("403",), "denied", revision=endless(b"x", status=403)),
    "hub: a redirect with an endless body": hub(
        code="",
        tree=answers(200, json.dumps([{"type": "file", "path": "a", "size": 2, "oid": ""}]).encode()),
        files=endless(b"x", status=302, headers={"Location": "/elsewhere"}),
        elsewhere=answers(200, b"{}"),
    ),
    "hub: headers without measure": hub(
        code="",
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
    "store: a compressed listing": store(
        answers(200, gzip.compress(b" " * (64 * MIB)), XML | {"Content-Encoding": "gzip"}), (LIST, "gzip"), "network"
    ),
    "store: a refusal without end": store(endless(b"x", status=403, headers=XML), ("403",), "denied"),
}  # fmt: skip


@dataclass(slots=True)
class Container:
    """A runtime within its limit, and the peer that its downloads ask."""

    runtime: Runtime
    peer: BadProxy
    folder: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def download(self, source: str, **more: Any) -> str:
        """Begin a download; return its address."""
        body = {"source": source, "output_dir": str(self.folder / str(next(self._numbers))), "async_download": True}
        answer = self.runtime.session.post(f"{self.runtime.url}/v1/download_model", json=body | more, timeout=30)
        assert answer.status_code == 202, answer.text
        return answer.headers["Location"]

    def ended(self, address: str) -> dict[str, Any]:
        """Wait for the end of a download."""
        job = self.runtime.get(address).json
        wait_until(lambda: self.runtime.get(address).json()["finished"], f"{address} ended", seconds=100, every=0.1)
        del job
        return self.runtime.get(address).json()


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A runtime as `deploy/sidecar.yaml` limits it."""
    folder = tmp_path_factory.mktemp("models")
    with BadProxy() as peer, limited(256 * MIB) as group:
        keys = {"ACCESS_KEY": "access", "SECRET_KEY": "secret"}
        variables = keys | {"HF_ENDPOINT": peer.url, "ENDPOINT": peer.url, "AWS_REGION": "us-east-1"}
        with Runtime("http://127.0.0.1:9", variables=variables, group=group) as runtime:
            yield Container(runtime, peer, folder)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_an_answer_without_end(container: Container, row: Row) -> None:
    """Two downloads at a time end with an error that names the address and the limit, or in spite of it all."""
    container.peer.behave()
    for path, fault in row.faults.items():
        container.peer.misbehave(fault, path, method=row.method)

    with Watch(container.runtime.pid) as watch:
        addresses = [container.download(row.source) for _ in range(2)]
        jobs = [container.ended(address) for address in addresses]

    assert watch.proportional < 256 * MIB, f"{watch.proportional / MIB:.0f} MiB"
    assert max(watch.peaks.values()) < 128 * MIB, {pid: f"{peak / MIB:.0f} MiB" for pid, peak in watch.peaks.items()}
    for job in jobs:
        assert (job["state"], job["retries"]) == ("failed" if row.code else "done", 0), job
        assert (job["error"] or {"code": ""})["code"] == row.code, job
        assert all(word in job["error"]["message"] for word in row.words), job
    assert container.runtime.get("/health").ok
