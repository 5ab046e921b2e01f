"""The index in a real Redis: exact keys, this pod's only, and what is done to them at the start and the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from time import time
from typing import TYPE_CHECKING, Final

import pytest

from exporter.kv.decode import Cleared, Removed, Stored
from exporter.kv.index import PodIndex
from exporter.kv.ledger import Ledger
from simulators.redis import RedisServer
from simulators.waiting import wait_until
from tests.kv.running import MODEL, POD, connect, pumping

if TYPE_CHECKING:
    from collections.abc import Iterator

SET: Final = f"kthena:kv:pod:{POD}"
OTHER: Final = "engine-1.default"
BLOCKS: Final = list(range(1000, 4500))

# A runtime that writes three blocks and then hangs, until it is killed.
_CRASHING: Final = """
import sys
from threading import Event
from exporter.kv.decode import Stored
from exporter.kv.ledger import Ledger
from tests.kv.running import pumping
from simulators.waiting import wait_until

ledger = Ledger("base-model")
ledger.apply(0, [Stored([1, 2, 3], [11, 12, 13]), Stored([4], [14], "lora@a")])
with pumping(ledger, sys.argv[1]) as (pump, recorder):
    wait_until(lambda: not ledger.pending and recorder.done["write"], "all is written")
    print("written", flush=True)
    Event().wait()
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    """A server that tests only use, and never harm."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    """The shared server, empty, and its counts at 0."""
    shared.client.flushall()
    shared.client.config_resetstat()
    return shared


def key(block: int, model: str = MODEL) -> str:
    return f"matrix:kv:block:{model}@{block}"


def held(ledger: Ledger) -> set[str]:
    return {key(block, model) for model, block in ledger.held()}


def wait_for(server: RedisServer, ledger: Ledger) -> None:
    """Wait until Redis has exactly what the ledger has."""
    wait_until(lambda: server.keys_of(POD) == held(ledger), "Redis has what the ledger has")


def test_fields_are_the_routers(server: RedisServer) -> None:
    """A block is a hash with the pod's field and unix seconds; the pod's set names it."""
    ledger = Ledger(MODEL)
    before = int(time())
    with pumping(ledger, server.url):
        ledger.apply(0, [Stored([1], [6615856733697512468]), Stored([2], [7], adapter="org/lora:v1@x")])
        wait_for(server, ledger)

        index = server.index()
        assert list(index) == [
            "matrix:kv:block:base-model@6615856733697512468",
            "matrix:kv:block:org/lora:v1@x@7",
        ]
        assert all(list(fields) == [POD] for fields in index.values())
        assert all(before <= fields[POD] <= time() for fields in index.values())
        assert all(server.client.ttl(name) == -1 for name in index)
        members = {member for member in server.members(SET) if not member.startswith(b"!")}
        assert members == {b"base-model@6615856733697512468", b"org/lora:v1@x@7"}
        assert 47 * 3600 < server.client.ttl(SET) <= 48 * 3600


def test_a_removed_blocks_field_goes(server: RedisServer) -> None:
    """A removal takes the field and the member; a clearing takes all."""
    ledger = Ledger(MODEL)
    with pumping(ledger, server.url):
        ledger.apply(0, [Stored([1, 2, 3], [11, 12, 13])])
        wait_for(server, ledger)
        ledger.apply(0, [Removed([2])])
        wait_for(server, ledger)
        assert server.keys_of(POD) == {key(11), key(13)}
        assert not server.client.sismember(SET, f"{MODEL}@12")

        ledger.apply(0, [Cleared()])
        wait_for(server, ledger)
        assert server.client.scard(SET) == 1


def test_many_blocks_are_written_and_removed(server: RedisServer) -> None:
    """More blocks than a pipeline holds, and names in bytes."""
    ledger = Ledger(MODEL)
    with pumping(ledger, server.url) as (_, recorder):
        ledger.apply(0, [Stored([block.to_bytes(32, "big") for block in BLOCKS], BLOCKS)])
        wait_for(server, ledger)
        ledger.apply(0, [Removed([block.to_bytes(32, "big") for block in BLOCKS[::2]])])
        wait_for(server, ledger)

    assert recorder.failed == {}
    assert server.index() == {}


def test_other_pods_are_left_alone(server: RedisServer) -> None:
    """Their fields, their sets and their values stay as they are, beside ours and after us."""
    for block in (11, 12):
        server.client.hset(key(block), OTHER, 1764000000)
    server.client.sadd(f"kthena:kv:pod:{OTHER}", f"{MODEL}@11")
    ledger = Ledger(MODEL)
    with pumping(ledger, server.url):
        ledger.apply(0, [Stored([1, 3], [11, 13])])
        wait_for(server, ledger)
        ledger.apply(0, [Removed([1])])
        wait_for(server, ledger)
        assert {name: fields.get(OTHER) for name, fields in server.index().items()} == {
            key(11): 1764000000, key(12): 1764000000, key(13): None,
        }  # fmt: skip

    assert server.index() == {key(11): {OTHER: 1764000000}, key(12): {OTHER: 1764000000}}
    assert server.client.smembers(f"kthena:kv:pod:{OTHER}") == {f"{MODEL}@11".encode()}


def test_a_clean_stop_leaves_nothing(server: RedisServer) -> None:
    """Fields and the set are gone, whatever was still to be written."""
    ledger = Ledger(MODEL)
    with pumping(ledger, server.url):
        ledger.apply(0, [Stored(list(BLOCKS), BLOCKS)])
        wait_until(lambda: server.client.scard(SET) > 1000, "some blocks are written")
        ledger.apply(1, [Stored([1], [11])])

    assert server.client.dbsize() == 0


def test_the_start_takes_out_what_a_former_runtime_left(server: RedisServer) -> None:
    """Old fields go, or are renewed where the engine holds the block; the old mark goes."""
    with server.client.pipeline() as pipeline:
        for block in range(100, 2500):
            pipeline.hset(key(block), POD, 1000)
            pipeline.sadd(SET, f"{MODEL}@{block}")
        pipeline.sadd(SET, "!former", "rubbish", "@", "model@rubbish", b"m@" + b"9" * 5000, b"\xff\xfe@5")
        pipeline.hset(b"matrix:kv:block:\xff\xfe@5", POD, 1000)
        pipeline.execute()
    ledger = Ledger(MODEL)
    ledger.apply(0, [Stored([1], [101]), Stored([2], [9])])

    with pumping(ledger, server.url):
        wait_until(lambda: server.client.scard(SET) == 7, "the set has two blocks, a mark and the rubbish")
        wait_for(server, ledger)
        assert server.index()[key(101)][POD] > 1764000000
        assert not server.client.sismember(SET, "!former")


def test_nothing_scans_the_keyspace(server: RedisServer) -> None:
    """Start, work, checks and end use commands that cost in proportion to this pod's blocks."""
    server.client.hset(key(5), OTHER, 1)
    server.client.config_resetstat()
    ledger = Ledger(MODEL)
    with pumping(ledger, server.url) as (_, recorder):
        ledger.apply(0, [Stored([1, 2], [11, 12])])
        wait_until(lambda: recorder.done["check"] > 2 and recorder.done["write"], "it is written and checked")
        ledger.apply(0, [Removed([2])])
        wait_until(lambda: recorder.done["write"] > 1, "it is removed")

    commands = {name.partition("|")[0] for name in server.calls()}
    assert commands - {"config", "info"} <= {
        "sadd", "srem", "hset", "hdel", "sscan", "sismember", "expire", "unlink", "client",
    }  # fmt: skip
    assert commands >= {"sadd", "srem", "hset", "hdel", "sscan", "unlink"}


def test_a_killed_runtime_is_cleaned_up_by_the_next(server: RedisServer) -> None:
    """After kill -9 the fields stay; the next start takes them out."""
    server.client.hset(key(11), OTHER, 5)
    runtime = subprocess.Popen(
        [sys.executable, "-c", _CRASHING, server.url], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."}
    )
    with runtime:
        assert runtime.stdout is not None
        assert runtime.stdout.readline() == b"written\n"
        runtime.send_signal(signal.SIGKILL)
    assert server.keys_of(POD) == {key(11), key(12), key(13), key(14, "lora@a")}

    ledger = Ledger(MODEL)
    ledger.apply(0, [Stored([2], [12])])
    with pumping(ledger, server.url):
        wait_for(server, ledger)
        assert server.keys_of(POD) == {key(12)}
        assert server.index()[key(11)] == {OTHER: 5}


def test_fields_are_renewed_before_the_router_drops_them(server: RedisServer) -> None:
    """What is still true is written again with a new time, and nothing else happens to it."""
    ledger = Ledger(MODEL)
    ledger.apply(0, [Stored([1], [11])])
    with pumping(ledger, server.url, refresh_every=0.3) as (_, recorder):
        wait_for(server, ledger)
        server.client.hset(key(11), POD, 1000)
        wait_until(lambda: server.index()[key(11)][POD] > 1000, "the field is renewed")

    assert "refresh" in recorder.resyncs


def test_another_runtime_of_the_same_pod_is_noticed(server: RedisServer) -> None:
    """The mark of this very process is what a check looks for."""
    index = PodIndex(connect(server.url), POD, "one")
    index.claim()
    assert index.is_claimed()

    other = PodIndex(connect(server.url), POD, "two")
    other.claim()

    assert not index.is_claimed()
    assert other.is_claimed()
    assert server.client.smembers(SET) == {b"!two"}
    index.close()
    other.close()
