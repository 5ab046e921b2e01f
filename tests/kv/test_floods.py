"""An engine that publishes too much: large messages, many of them, more blocks than there can be, replays without end."""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final

import pytest

from exporter.kv.ledger import MOST_BLOCKS
from exporter.kv.limits import MAX_PAYLOAD
from simulators.kv.frames import Store, form, pack
from simulators.kv.publisher import KvPublisher
from simulators.kv.router import block_key
from simulators.misbehaving.engine import BadEngine
from simulators.misbehaving.kv_replays import EndlessReplays
from simulators.misbehaving.pages import PAGE
from simulators.reading import samples
from simulators.redis import RedisServer
from simulators.waiting import wait_until
from tests.harness.health import HealthWatch
from tests.harness.memory import MIB, Watch, limited
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.faults, pytest.mark.slow]

MODEL: Final = "test-model"
POD: Final = "pod-0.default"
WIRE: Final = form("vllm-0.33")
DROPPED: Final = "kthena_runtime_kv_events_dropped_total"


def store(number: int) -> Store:
    return Store([number], range(number * 16 + 1, number * 16 + 17))


def key(number: int) -> str:
    return block_key(MODEL, range(number * 16 + 1, number * 16 + 17))


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis(shared: RedisServer) -> RedisServer:
    shared.client.flushall()
    return shared


@contextmanager
def confined(
    publisher: KvPublisher, redis: RedisServer, *, replay: str = "", peak: int = 256 * MIB
) -> Iterator[Runtime]:
    """Run a runtime under the memory limit that listens to a publisher; check what it took, and that it answered."""
    variables = {"REDIS_URL": redis.url, "KV_EVENTS_ENDPOINT": publisher.endpoint}
    if replay:
        variables["KV_EVENTS_REPLAY_ENDPOINT"] = replay
    with (
        BadEngine.serving_page(PAGE) as engine,
        limited(256 * MIB) as group,
        Runtime(engine.url, variables=variables, group=group) as runtime,
        Watch(runtime.pid) as watch,
        HealthWatch(runtime) as health,
    ):
        publisher.wait_for_subscriber()
        yield runtime
    assert (health.failures, health.longest < 10) == (0, True)
    assert max(watch.peaks.values()) < peak
    assert watch.proportional < 256 * MIB


def dropped(runtime: Runtime, reason: str) -> float:
    page = samples(runtime.page(f"/metrics?name[]={DROPPED}"))
    return page[f'{DROPPED}{{reason="{reason}"}}']


def wait_for_key(redis: RedisServer, number: int) -> None:
    wait_until(lambda: redis.client.hexists(key(number), POD), "a good event is taken", seconds=60)


def publish_until_taken(publisher: KvPublisher, redis: RedisServer, number: int) -> None:
    """Publish an event again and again: at first there may be no connection, or no room."""

    def is_taken() -> bool:
        publisher.publish(store(number))
        return bool(redis.client.hexists(key(number), POD))

    wait_until(is_taken, "a good event is taken", seconds=60, every=0.1)


def finding(runtime: Runtime) -> Any:
    return runtime.get("/ready").json()["checks"]["kv_events"]


@contextmanager
def going_on(publish: Any) -> Iterator[None]:
    """Publish again and again meanwhile."""
    stopping = Event()

    def run() -> None:
        while not stopping.is_set():
            publish()

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def test_messages_of_forty_megabytes_are_refused(redis: RedisServer) -> None:
    """They are never held; that is said and counted, and what comes after them is taken."""
    with KvPublisher(WIRE) as publisher, confined(publisher, redis, peak=128 * MIB) as runtime:
        publisher.publish(store(0))
        wait_for_key(redis, 0)
        large = bytes(40 * MIB)
        for _ in range(25):
            publisher.publish_payload(large)
        wait_until(lambda: dropped(runtime, "too_large"), "the large messages are refused")
        refused = finding(runtime)
        publish_until_taken(publisher, redis, 1)

    assert (refused["status"], str(MAX_PAYLOAD) in refused["detail"]) == ("failing", True)


def test_a_large_batch_costs_only_itself(redis: RedisServer) -> None:
    """With a replay socket nothing else is lost, though the engine has the large batch there, too."""
    with KvPublisher(WIRE) as publisher, confined(publisher, redis, replay=publisher.replay_endpoint) as runtime:
        publisher.publish(store(0))
        publisher.publish_payload(bytes(MAX_PAYLOAD + 1))
        publisher.publish(store(1))
        wait_for_key(redis, 1)
        assert [dropped(runtime, reason) for reason in ("too_large", "lost")] == [1, 0]
        publish_until_taken(publisher, redis, 2)


def test_a_message_of_very_many_frames(redis: RedisServer) -> None:
    """One is counted once and costs what ZeroMQ needs for it; what comes after it is taken."""
    with KvPublisher(WIRE) as publisher, confined(publisher, redis) as runtime:
        publisher.send(*[bytes(16)] * 200_000)
        publish_until_taken(publisher, redis, 0)
        assert dropped(runtime, "frames") == 1


def array(count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big")


def event(*fields: bytes) -> bytes:
    """Return a batch of one event that is an array."""
    return b"\x92\x01\x91" + bytes([0x90 + len(fields)]) + b"".join(fields)


STORED: Final = b"\xabBlockStored"
REMOVED: Final = b"\xacBlockRemoved"
FULL: Final = MAX_PAYLOAD - 100
# Payloads just under the limit, or of a few bytes that announce very much.
BOMBS: Final = {
    "an array of four billion events": b"\x92\x01\xdd\xff\xff\xff\xff",
    "a map of four billion fields": b"\xdf\xff\xff\xff\xff",
    "two million empty events": b"\x92\x01" + array(FULL) + b"\x90" * FULL,
    "two million nils": b"\x92\x01" + array(FULL) + b"\xc0" * FULL,
    "an event of empty lists": b"\x92\x01\x91" + array(FULL) + b"\x90" * FULL,
    "an event of empty maps": b"\x92\x01\x91" + array(FULL) + b"\x80" * FULL,
    "lists in lists": b"\x91" * FULL,
    "a store of empty lists": event(STORED, b"\x91\x01", b"\xc0", array(FULL) + b"\x90" * FULL),
    "a store of small numbers": event(STORED, b"\x91\x01", b"\xc0", array(FULL) + b"\x01" * FULL),
    "a store of numbers": event(STORED, b"\x91\x01", b"\xc0", array(FULL // 3) + b"\xcd\x10\x10" * (FULL // 3)),
    "a store of pairs": event(STORED, b"\x91\x01", b"\xc0", array(FULL // 3) + b"\x92\x01\x01" * (FULL // 3)),
    "a removal of hashes": event(REMOVED, array(FULL // 4) + b"\xc4\x02ab" * (FULL // 4)),
    "a hash of two megabytes": event(REMOVED, b"\x91\xc6" + FULL.to_bytes(4, "big") + b"x" * FULL),
    "a long name": pack(
        [1.0, [{"type": "BlockStored", "block_hashes": [1], "token_ids": [1], "lora_name": "x" * FULL}]]
    ),
    "as many events as are allowed": b"\x92\x01" + array(65_536) + (b"\x92" + REMOVED + b"\x91\x01") * 65_536,
}


def test_payloads_that_unfold_cost_little(redis: RedisServer) -> None:
    """A byte of theirs would become eighty; each kind comes three times, and good events between them are taken."""
    with KvPublisher(WIRE) as publisher, confined(publisher, redis) as runtime:
        for number, bomb in enumerate(BOMBS.values()):
            for _ in range(3):
                publisher.publish_payload(bomb)
            publisher.publish(store(number))
        for number in range(len(BOMBS)):
            wait_for_key(redis, number)
        assert dropped(runtime, "payload") >= 15
        assert dropped(runtime, "invalid") >= 15
        assert dropped(runtime, "too_large") == 0


def test_a_flood_waits_outside(redis: RedisServer) -> None:
    """Faster than they can be read come messages of two megabytes; they wait with the engine, or are dropped there."""
    flood = BOMBS["a store of numbers"]
    with KvPublisher(WIRE, hwm=10) as publisher, confined(publisher, redis) as runtime:
        publisher.publish(store(0))
        wait_for_key(redis, 0)
        with going_on(lambda: publisher.publish_payload(flood)):
            wait_until(
                lambda: dropped(runtime, "lost") + dropped(runtime, "invalid") > 0, "the flood is there", seconds=100
            )
        publish_until_taken(publisher, redis, 1)


def test_more_blocks_than_there_is_room_for(redis: RedisServer) -> None:
    """The index has as many as it may; the rest is counted, and what to do is said."""
    with KvPublisher(WIRE) as publisher, confined(publisher, redis) as runtime:
        for start in range(0, 2 * MOST_BLOCKS, 500):
            names = [(number * 0x9E3779B97F4A7C15) % (1 << 64) for number in range(start, start + 500)]
            publisher.publish(Store(names, range(start * 16 + 1, (start + 500) * 16 + 1)))
        wait_until(
            lambda: dropped(runtime, "full") == MOST_BLOCKS, "all that there is no room for is counted", seconds=90
        )
        full = finding(runtime)
        page = samples(runtime.page())

    assert page["kthena_runtime_kv_indexed_blocks"] == MOST_BLOCKS
    assert (full["status"], "KV_EVENTS_MAX_BLOCKS" in full["detail"]) == ("failing", True)


TINY: Final = WIRE.batch()
REPLAYS: Final = {
    "ever higher numbers": lambda start: ((number, TINY) for number in itertools.count(start)),
    "ever the same number": lambda start: itertools.repeat((start, TINY)),
    "numbers below": lambda start: ((number % max(start, 1), TINY) for number in itertools.count()),
    "large batches": lambda start: ((number, bytes(FULL)) for number in itertools.count(start)),
}


@pytest.mark.parametrize("replies", REPLAYS.values(), ids=REPLAYS)
def test_a_replay_without_end_is_left(redis: RedisServer, replies: Any) -> None:
    """What an engine cannot have is not read; live events go on, and the socket is left alone for a while."""
    with (
        KvPublisher(WIRE) as publisher,
        EndlessReplays(replies) as replays,
        confined(publisher, redis, replay=replays.endpoint) as runtime,
    ):
        wait_until(lambda: replays.asked, "a replay is asked for")
        for number in range(10, 20):
            publisher.publish(store(number), send=number % 3 != 0)
        wait_for_key(redis, 19)
        wait_until(lambda: finding(runtime)["status"] == "failing", "it is said")
        assert "replay" in finding(runtime)["detail"]
        assert len(replays.asked) < 10


def test_two_publishers_under_one_address(redis: RedisServer) -> None:
    """Their numbers alternate; /ready says what is wrong, and the log does not grow with the messages."""
    payload = WIRE.batch(Store([1], range(1, 17)))
    with KvPublisher(WIRE) as publisher, confined(publisher, redis) as runtime:
        for number in range(1000):
            publisher.send(b"kv-events", (5000 + number).to_bytes(8, "big"), payload)
            publisher.send(b"kv-events", number.to_bytes(8, "big"), payload)
        wait_until(lambda: "several publishers" in finding(runtime)["detail"], "it is said")
        resyncs = "kthena_runtime_kv_resyncs_total"
        restarts = resyncs + '{reason="engine_restart"}'
        wait_until(
            lambda: samples(runtime.page(f"/metrics?name[]={resyncs}"))[restarts] == 1000, "every message is taken"
        )
        assert runtime.log.count("\n") < 20
