"""An engine whose answers about adapters are too large, endless, or made to be slow to read."""

from __future__ import annotations

import gzip
import itertools
import json
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import pytest

from lora.engine.client import APIS, EngineClient
from lora.errors import EngineRefusedError, EngineUnavailableError
from simulators.adapters import make_adapter
from simulators.misbehaving.engine import BadEngine, Behaviour
from simulators.misbehaving.pages import chunk, head, response
from simulators.waiting import PATIENCE
from tests.harness.health import HealthWatch
from tests.harness.memory import MIB, Watch, limited
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from simulators.misbehaving.exchange import Exchange

pytestmark = [pytest.mark.faults, pytest.mark.slow]

MODELS: Final = json.dumps({"data": [{"id": "demo", "root": "demo", "parent": None}]}).encode()
CHUNKED: Final = head("200 OK", {"Transfer-Encoding": "chunked"})
NAME: Final = b'{"id":"%08d","root":"/a","parent":"demo"},'
# What the text of an error would have to be matched with: the square of its length, for a pattern such as `rank .* larger`.
LONG_ERROR: Final = b"LoRA rank " * 48_000


@cache
def bomb(size: int) -> bytes:
    """Return some hundred kB that decompress to `size` bytes of a list of names."""
    return gzip.compress(b'{"data":[' + NAME % 1 * (size // len(NAME % 1)), mtime=0)


def sends(*pieces: bytes) -> Callable[[Exchange], None]:
    def act(exchange: Exchange) -> None:
        for piece in pieces:
            exchange.send(piece)

    return act


def goes_on(beginning: bytes, pieces: Iterable[bytes]) -> Callable[[Exchange], None]:
    def act(exchange: Exchange) -> None:
        exchange.send(beginning)
        for piece in pieces:
            exchange.send(piece)

    return act


def gzipped(size: int, status: str = "200 OK") -> Callable[[Exchange], None]:
    return lambda exchange: exchange.send(response(bomb(size), status=status, headers={"Content-Encoding": "gzip"}))


def redirects(exchange: Exchange) -> None:
    """Lead back, with a body of 100 MiB."""
    headers = {"Location": "/v1/models"}
    exchange.send(response(bytes(100 * MIB), status="307 Temporary Redirect", headers=headers))


# What GET /v1/models answers, none of which can be used.
LISTS: Final = {
    "200 MB in gzip": gzipped(200 * MIB),
    "100 MB of names": goes_on(
        head("200 OK", {"Content-Length": "104857600"}), itertools.repeat(NAME * 1000, 104857600 // (1000 * len(NAME)))
    ),
    "names without end": goes_on(CHUNKED + chunk(b'{"data":['), itertools.repeat(chunk(NAME % 1 * 1000))),
    "a chunk of size -1": goes_on(CHUNKED + b"-1\r\n", itertools.repeat(NAME * 1000, 4000)),
    "a redirect with a long body": redirects,
    "lists in lists": sends(response(b'{"data":' + b"[" * 500_000)),
    "a number of many digits": sends(response(b'{"data":' + b"1" * 1_000_000)),
    "another type": sends(response(b'{"data":[{"id":["demo"],"root":3}]}')),
    "interim answers without end": goes_on(b"", itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)),
}

# What a load is refused with, and what must be made of it.
REFUSALS: Final = {
    "a 480 kB error": sends(response(LONG_ERROR, status="400 Bad Request")),
    "a 480 kB error in JSON": sends(
        response(b'{"error":{"message":"%b"}}' % LONG_ERROR, status="400 Bad Request", content_type="application/json")
    ),
    "an error that decompresses to 200 MB": gzipped(200 * MIB, "500 Internal Server Error"),
    "an error without end": goes_on(
        head("500 Internal Server Error", {"Transfer-Encoding": "chunked"}), itertools.repeat(chunk(LONG_ERROR))
    ),
}


def engine(
    *, models: Callable[[Exchange], None] | None = None, change: Callable[[Exchange], None] | None = None
) -> BadEngine:
    """Return an engine that answers so when it is asked for its list, or to load or unload."""
    well = sends(response(MODELS))

    def act(exchange: Exchange, _: int) -> None:
        ((models if exchange.path == "/v1/models" else change) or well)(exchange)

    return BadEngine(Behaviour("answers about adapters", act))


def load(runtime: Runtime, folder: Path, name: str = "sql") -> Any:
    body = {"lora_name": name, "lora_path": str(folder), "async_download": False}
    return runtime.session.post(f"{runtime.url}/v1/load_lora_adapter", json=body, timeout=PATIENCE)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "sql")


@pytest.mark.parametrize("answer", LISTS.values(), ids=LISTS)
def test_a_list_that_cannot_be_used_costs_little(answer: Callable[[Exchange], None], adapter: Path) -> None:
    """The load fails, the runtime stays small and answers, and ends when it is asked to."""
    with (
        limited(256 * MIB) as group,
        engine(models=answer) as peer,
        Runtime(peer.url, group=group) as runtime,
        Watch(runtime.pid) as watch,
        HealthWatch(runtime) as health,
    ):
        refused = load(runtime, adapter)
        listed = runtime.get("/v1/lora_adapters")

    assert (refused.status_code, refused.json()["code"]) in ((503, "engine_unavailable"), (502, "engine_refused"))
    assert [each["name"] for each in listed.json()["adapters"]] in ([], ["sql"])
    assert (health.failures, health.longest < 10) == (0, True)
    assert max(watch.peaks.values()) < 128 * MIB
    assert watch.proportional < 256 * MIB


@pytest.mark.parametrize("answer", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_matched_in_no_time(answer: Callable[[Exchange], None], adapter: Path) -> None:
    """Its beginning is enough, and nobody waits while it is read."""
    with (
        limited(256 * MIB) as group,
        engine(change=answer) as peer,
        Runtime(peer.url, group=group) as runtime,
        Watch(runtime.pid) as watch,
        HealthWatch(runtime) as health,
    ):
        refused = load(runtime, adapter)

    assert refused.status_code == 502, refused.text
    assert refused.json()["code"] == "engine_refused"
    assert len(refused.content) < 2000
    assert (health.failures, health.longest < 10) == (0, True)
    assert max(watch.peaks.values()) < 128 * MIB
    assert watch.proportional < 256 * MIB


def test_an_answer_that_drips_has_an_end() -> None:
    """The time is for all of an answer, head and body, not from one byte to the next."""
    for beginning in (b"HTTP/1.1 200 OK\r\nX-Padding: ", head("200 OK", {"Content-Length": "1000"})):

        def drip(exchange: Exchange, _: int, beginning: bytes = beginning) -> None:
            exchange.send(beginning)
            exchange.drip(itertools.repeat(b"x"))

        with BadEngine(Behaviour("drips", drip)) as peer:
            client = EngineClient(peer.url, APIS["vllm"])
            started = monotonic()
            with pytest.raises(EngineUnavailableError):
                client._send("GET", "/v1/models", timeout=0.5)
            assert monotonic() - started < 10


def test_many_names_are_listed() -> None:
    """A thousand adapters are nothing special."""
    cards = [{"id": f"adapter-{number}", "root": f"/adapters/{number}", "parent": "demo"} for number in range(3000)]
    answer = sends(response(gzip.compress(json.dumps({"data": cards}).encode()), headers={"Content-Encoding": "gzip"}))
    with engine(models=answer) as peer:
        models = EngineClient(peer.url, APIS["vllm"]).models()

    assert len(models.adapters) == 3000


def test_the_words_of_an_error_are_found_at_any_length() -> None:
    """What the engine says first decides; a row of words in order is found like a single one."""
    text = b"LoRA rank " * 5000 + b"64 is greater than max"
    with (
        engine(change=sends(response(text, status="400 Bad Request"))) as peer,
        pytest.raises(EngineRefusedError) as error,
    ):
        EngineClient(peer.url, APIS["vllm"]).unload("sql")

    assert error.value.code == "rank_too_large"
