"""From an engine's sockets to the router's lookup: everything in between, in one process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import pytest

from exporter.kv.decode import Drop
from simulators.kv.frames import FORMS, Clear, Form, Remove, Store, captured, form
from simulators.kv.publisher import KvPublisher
from simulators.kv.router import block_key, find_prefixes
from simulators.redis import RedisServer
from simulators.waiting import wait_until
from tests.kv.running import MODEL, POD, kv_events

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kv.observer import KvRecorder

PROMPT: Final = [number * 7 % 50_000 for number in range(1, 65)]
NAMES: Final = [0xFFFF_0000_0000_0001, 2, 3, 4]


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    """A server that all tests of this file use."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis(shared: RedisServer) -> RedisServer:
    """The shared server, empty."""
    shared.client.flushall()
    return shared


def matched(redis: RedisServer, prompt: list[int] = PROMPT, model: str = MODEL) -> int:
    return find_prefixes(redis.client, model, prompt).get(POD, 0)


def wait_for_prefix(redis: RedisServer, blocks: int, model: str = MODEL) -> None:
    wait_until(lambda: matched(redis, model=model) == blocks, f"the router finds {blocks} blocks")


def wait_for_drop(recorder: KvRecorder, reason: Drop, count: int = 1) -> None:
    wait_until(lambda: recorder.dropped[reason] >= count, f"{count} are dropped for {reason}")


def store(number: int) -> Store:
    return Store([number], range(number * 100 + 1, number * 100 + 17))


def keys(*numbers: int) -> set[str]:
    return {block_key(MODEL, range(number * 100 + 1, number * 100 + 17)) for number in numbers}


@pytest.mark.parametrize("wire", FORMS, ids=lambda wire: wire.name)
def test_every_wire_form_ends_as_the_routers_keys(redis: RedisServer, wire: Form) -> None:
    """The router finds a prompt's prefix, shorter after an eviction, and gone after a reset."""
    with KvPublisher(wire) as engine, kv_events(engine, redis.url) as (_, recorder):
        engine.publish(Store(NAMES[:3], PROMPT[:48]))
        engine.publish(Store(NAMES[3:], PROMPT[48:], parent=NAMES[2]))
        wait_for_prefix(redis, 4)
        assert matched(redis, [0, *PROMPT]) == 0
        assert len(redis.keys_of(POD)) == 4

        engine.publish(Remove(NAMES[2:]))
        wait_for_prefix(redis, 2)
        engine.publish(Clear())
        wait_for_prefix(redis, 0)
        assert recorder.faults == {}


def test_a_real_engines_frames_end_as_the_routers_keys(redis: RedisServer) -> None:
    """What a vLLM 0.32 sent is replayed in order; in the end nothing is held but what it held."""
    with KvPublisher() as engine, kv_events(engine, redis.url) as (events, recorder):
        frames = captured("kv-main")
        for message in frames:
            engine.send(*message)
        wait_until(lambda: recorder.tally["batches"] == len(frames), "all frames are taken")
        wait_until(lambda: not events.ledger.pending, "all is written")
        wait_until(lambda: len(redis.keys_of(POD)) == len(events.ledger.held()), "Redis has what is held")
        assert recorder.faults == {}
        assert recorder.tally["gaps"] == 0


def test_an_adapters_prefix_is_found_under_its_name(redis: RedisServer) -> None:
    """A request to the adapter finds its blocks, a request to the model does not."""
    with KvPublisher(form("vllm-0.33")) as engine, kv_events(engine, redis.url):
        engine.publish(Store(NAMES, PROMPT, adapter="lora-a"))
        wait_for_prefix(redis, 4, model="lora-a")
        assert matched(redis) == 0


@pytest.mark.parametrize("name", ["vllm-0.24", "vllm-0.33", "sglang-0.5.20", "sglang-0.5.22"])
def test_what_came_before_the_runtime_is_replayed(redis: RedisServer, name: str) -> None:
    """Both forms of the replay socket's replies are read."""
    with KvPublisher(form(name)) as engine:
        engine.publish(Store(NAMES, PROMPT), send=False)
        with kv_events(engine, redis.url) as (_, recorder):
            wait_for_prefix(redis, 4)
            wait_until(lambda: recorder.tally["replayed"] == 1, "the replay is counted")
            assert recorder.tally["gaps"] == 0


@pytest.mark.parametrize("name", ["vllm-0.24", "vllm-0.33"])
def test_a_gap_is_filled_by_a_lossy_replay(redis: RedisServer, name: str) -> None:
    """Replies that are lost are asked for again until nothing is missing."""
    with KvPublisher(form(name)) as engine, kv_events(engine, redis.url) as (_, recorder):
        engine.publish(store(0))
        wait_until(lambda: recorder.tally["batches"] == 1, "the first batch is there")
        engine.lose_every = 40
        for number in range(1, 200):
            engine.publish(store(number), send=False)
        engine.publish(Remove([7]))

        wait_until(lambda: redis.keys_of(POD) == keys(*range(7), *range(8, 200)), "every block is there but one")
        wait_until(lambda: recorder.tally["gaps"] == 1, "the gap is counted")
        assert recorder.faults == {}
        assert len(engine.asked) > 4


def test_a_replay_without_its_end_is_taken_as_far_as_it_came(redis: RedisServer) -> None:
    """The silence after it costs some seconds, and no block."""
    with KvPublisher(form("vllm-0.33")) as engine, kv_events(engine, redis.url) as (_, recorder):
        engine.publish(store(0))
        wait_until(lambda: recorder.tally["batches"] == 1, "the first batch is there")
        engine.lose_end = True
        engine.publish(store(1), send=False)
        engine.publish(store(2))
        wait_until(lambda: redis.keys_of(POD) == keys(0, 1, 2), "every block is there")
        engine.lose_end = False
        engine.publish(store(3))
        wait_until(lambda: redis.keys_of(POD) == keys(0, 1, 2, 3), "events come as before")
        assert recorder.faults == {}


def test_a_silent_replay_socket_costs_the_gap_only(redis: RedisServer) -> None:
    """What is missing is counted as lost and diagnosed; what comes is taken."""
    with KvPublisher(form("vllm-0.33")) as engine, kv_events(engine, redis.url) as (events, recorder):
        engine.publish(store(0))
        wait_until(lambda: recorder.tally["batches"] == 1, "the first batch is there")
        engine.silent = True
        engine.publish(store(1), send=False)
        engine.publish(store(2))
        wait_until(lambda: redis.keys_of(POD) == keys(0, 2), "what came is there")
        wait_for_drop(recorder, Drop.LOST)
        assert "replay_endpoint" in events.findings()["kv_events"].detail


@pytest.mark.parametrize("replay", [True, False])
def test_a_restarted_engine_begins_anew(redis: RedisServer, *, replay: bool) -> None:
    """Its old blocks leave Redis, its new ones come."""
    with KvPublisher(form("vllm-0.33")) as engine, kv_events(engine, redis.url, replay=replay) as (_, recorder):
        for number in range(3):
            engine.publish(store(number))
        wait_until(lambda: redis.keys_of(POD) == keys(0, 1, 2), "the first blocks are there")

        engine.restart()
        engine.wait_for_subscriber()
        engine.publish(store(5))

        wait_until(lambda: redis.keys_of(POD) == keys(5), "only the new block is there")
        assert recorder.resyncs.count("engine_restart") == 1
        assert recorder.connections == [(0, True), (0, False), (0, True)]


def test_a_lost_connection_loses_no_block(redis: RedisServer) -> None:
    """The same engine gives again what it sent meanwhile."""
    with KvPublisher(form("vllm-0.33")) as engine, kv_events(engine, redis.url) as (_, recorder):
        engine.publish(store(0))
        wait_until(lambda: redis.keys_of(POD) == keys(0), "the first block is there")
        engine.publish(store(1), send=False)
        engine.cut()
        engine.wait_for_subscriber()
        wait_until(lambda: redis.keys_of(POD) == keys(0, 1), "what was missed is there")
        assert "engine_restart" not in recorder.resyncs
        assert recorder.faults == {}


def test_ranks_are_subscribed_at_ports_of_their_own(redis: RedisServer) -> None:
    """Each rank counts and clears for itself; blocks of all are this pod's."""
    with KvPublisher(form("vllm-0.33"), ranks=3) as engine, kv_events(engine, redis.url, ranks=3) as (_, recorder):
        for rank in range(3):
            engine.publish(store(rank), store(9), rank=rank)
        wait_until(lambda: redis.keys_of(POD) == keys(0, 1, 2, 9), "the blocks of all ranks are there")
        engine.publish(Clear(), rank=1)
        wait_until(lambda: redis.keys_of(POD) == keys(0, 2, 9), "those of one rank are gone")
        assert recorder.tally["gaps"] == 0
        assert sorted(recorder.connections) == [(0, True), (1, True), (2, True)]


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([b"kv-events", b"\0" * 8], Drop.FRAMES),
        ([b"kv-events", b"\0" * 8, b"x", b"y"], Drop.FRAMES),
        ([b"kv-events", b"\0" * 7, b"x"], Drop.FRAMES),
        ([b""], Drop.FRAMES),
        ([b"kv-other", b"\0" * 7 + b"\1", b"x"], Drop.TOPIC),
        ([b"kv-events", b"\xff" * 8, b"x"], Drop.SEQUENCE),
        ([b"kv-events", b"\0" * 7 + b"\1", b"\xa1\xff"], Drop.PAYLOAD),
        ([b"kv-events", b"\0" * 7 + b"\1", b"\x91" * 100_000], Drop.PAYLOAD),
        ([b"kv-events", b"\0" * 7 + b"\1", bytes(50 * 1024 * 1024)], Drop.TOO_LARGE),
    ],
    ids=["two", "four", "short", "one", "topic", "sequence", "utf8", "deep", "50MB"],
)
def test_garbage_is_counted_and_passed_over(redis: RedisServer, frames: list[bytes], reason: Drop) -> None:
    """Events before and after it are taken."""
    with KvPublisher(form("vllm-0.33")) as engine, kv_events(engine, redis.url, topic="kv-events") as (_, recorder):
        engine.publish(store(0))
        engine.send(*frames)
        if reason in (Drop.PAYLOAD, Drop.TOO_LARGE):
            engine.publish_payload(frames[2], send=False)
        engine.publish(store(1))

        wait_until(lambda: redis.keys_of(POD) == keys(0, 1), "the good events are taken")
        wait_for_drop(recorder, reason)
        assert recorder.faults == {reason: 1}
        assert recorder.tally["gaps"] == 0


def test_a_filter_that_lets_nothing_through_is_diagnosed(redis: RedisServer) -> None:
    """Messages that come under another topic are counted, and named as the cause."""
    with (
        KvPublisher(topic="other") as engine,
        kv_events(engine, redis.url, topic="kv-events", replay=False) as (events, recorder),
    ):
        engine.publish(store(0))
        wait_for_drop(recorder, Drop.TOPIC)
        finding = events.findings()["kv_events"]
        assert finding.fails
        assert "KV_EVENTS_TOPIC_FILTER" in finding.detail
        assert redis.keys_of(POD) == set()


def test_a_publisher_that_drops_loses_nothing_for_good(redis: RedisServer) -> None:
    """What its high-water mark cuts off comes again from its replay socket."""
    with KvPublisher(form("vllm-0.33"), hwm=10) as engine, kv_events(engine, redis.url) as (_, recorder):
        for number in range(3000):
            engine.publish(store(number))

        def is_whole() -> bool:
            engine.publish()  # the last ones may be cut off, which only a later one shows
            return redis.keys_of(POD) == keys(*range(3000))

        wait_until(is_whole, "what was cut off is there", every=0.1)
        assert recorder.faults == {}


@pytest.mark.parametrize("state", ["idle", "unconnected", "asking"])
def test_the_end_leaves_no_thread_and_no_field(redis: RedisServer, state: str) -> None:
    """A stop ends every thread soon, whatever they wait for, and this pod leaves Redis."""
    before: set[Any] = set(threading.enumerate())
    with KvPublisher(form("vllm-0.33")) as engine:
        engine.silent = state == "asking"
        with kv_events(engine, redis.url) as (events, _):
            if state == "asking":
                wait_until(lambda: engine.asked, "a replay is asked for")
            else:
                engine.publish(store(0))
                wait_until(lambda: redis.keys_of(POD) == keys(0), "a block is there")
            if state == "unconnected":
                engine.close()
                wait_until(lambda: events.findings()["kv_events"].fails, "the connection is gone")
        after = set(threading.enumerate()) - before
        assert not [thread.name for thread in after if thread.name.startswith("kv-")]
    assert redis.client.dbsize() == 0


def test_an_endpoint_that_cannot_be_used_ends_its_thread_only(redis: RedisServer, caplog: Any) -> None:
    """The engine's own `*` is no address to connect to: that is said, and the end does not hang."""
    with KvPublisher() as engine:
        engine.address = "tcp://*:5557"
        with kv_events(engine, redis.url, wait=False) as (events, _):
            wait_until(lambda: "are no longer read" in caplog.text, "the thread says so")
            assert events.findings()["kv_events"].fails


def test_a_stop_right_after_the_start_ends() -> None:
    """Nobody is there, neither an engine nor Redis, and the threads have hardly begun."""
    with RedisServer() as server, KvPublisher() as engine:
        for _ in range(5):
            with kv_events(engine, server.url, wait=False):
                pass
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("kv-")]
