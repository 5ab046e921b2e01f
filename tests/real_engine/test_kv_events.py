"""KV events of a real vLLM in a real Redis, found by the router's own lookup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from simulators.kv.router import find_prefixes
from simulators.redis import RedisServer
from simulators.waiting import wait_until
from tests.harness.runtime import Runtime
from tests.real_engine.conftest import BLOCK_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.real_engine.conftest import EventfulEngine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

POD: Final = "pod-0.default"  # what tests.harness.runtime starts runtimes with
MODEL: Final = "test-model"
WORDS: Final = "the of and to in is it that for you was on with as are this have from one had by word but not".split()


def prompt(number: int, words: int = 150) -> str:
    """Return a text of its own, several blocks long."""
    return f"number {number} " + " ".join(WORDS[(number * 7 + i * (number + 1)) % len(WORDS)] for i in range(words))


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def runtime(vllm: EventfulEngine, redis: RedisServer) -> Iterator[Runtime]:
    variables = {
        "REDIS_URL": redis.url,
        "KV_EVENTS_ENDPOINT": vllm.events,
        "KV_EVENTS_REPLAY_ENDPOINT": vllm.replays,
        "KV_EVENTS_TOPIC_FILTER": "kv-events",
    }
    with Runtime(vllm.url, variables=variables) as running:
        wait_until(lambda: 'subscriber_connected{dp_rank="0"} 1.0' in running.page(), "the events are subscribed to")
        yield running


def tokens_of(vllm: EventfulEngine, text: str) -> list[int]:
    """Return what the engine makes of a prompt, as the router asks for it."""
    answer = vllm.post("/tokenize", {"model": "tiny-llama", "prompt": text})
    assert answer.status_code == 200, answer.text
    tokens: list[int] = answer.json()["tokens"]
    return tokens


def matched(vllm: EventfulEngine, redis: RedisServer, text: str, model: str = MODEL) -> int:
    """Return how many of a prompt's whole blocks the router finds on our pod."""
    tokens = tokens_of(vllm, text)
    whole = tokens[: len(tokens) // BLOCK_SIZE * BLOCK_SIZE]
    return find_prefixes(redis.client, model, whole, block_size=BLOCK_SIZE).get(POD, 0)


def fields(redis: RedisServer) -> int:
    """Return how many blocks Redis has for our pod."""
    return sum(redis.client.hexists(key, POD) for key in redis.client.scan_iter("matrix:kv:block:*"))


@pytest.mark.usefixtures("runtime")
def test_the_router_finds_the_whole_prefix(vllm: EventfulEngine, redis: RedisServer) -> None:
    """Every whole block of a prompt that went through the engine."""
    text = prompt(1)
    vllm.complete(text, max_tokens=1)
    whole = len(tokens_of(vllm, text)) // BLOCK_SIZE

    assert whole >= 3
    wait_until(lambda: matched(vllm, redis, text) == whole, "the prefix is found")


@pytest.mark.usefixtures("runtime")
def test_what_the_engine_evicts_leaves_redis(vllm: EventfulEngine, redis: RedisServer) -> None:
    """More prompts than the cache holds: the newest is there, the first is not, and the sizes agree."""
    texts = [prompt(number) for number in range(10, 30)]
    for text in texts:
        vllm.complete(text, max_tokens=1)

    wait_until(lambda: matched(vllm, redis, texts[-1]) >= 3, "the newest prefix is found")
    wait_until(lambda: matched(vllm, redis, texts[0]) == 0, "the first is gone")
    assert 0 < fields(redis) <= 60


@pytest.mark.usefixtures("runtime")
def test_a_reset_cache_is_gone_from_redis(vllm: EventfulEngine, redis: RedisServer) -> None:
    """AllBlocksCleared leaves with the next request, whose own blocks stay."""
    vllm.complete(prompt(40), max_tokens=1)
    wait_until(lambda: matched(vllm, redis, prompt(40)) >= 3, "the prefix is found")

    assert vllm.post("/reset_prefix_cache").status_code == 200
    vllm.complete(prompt(41), max_tokens=1)

    wait_until(lambda: matched(vllm, redis, prompt(40)) == 0, "the old prefix is gone")
    wait_until(lambda: matched(vllm, redis, prompt(41)) >= 3, "the new one is there")
    assert fields(redis) == matched(vllm, redis, prompt(41))


def test_an_engine_that_restarts_has_an_empty_cache(vllm: EventfulEngine, redis: RedisServer, runtime: Runtime) -> None:
    """Killed and started again: its old blocks go, its new ones come."""
    vllm.complete(prompt(50), max_tokens=1)
    wait_until(lambda: matched(vllm, redis, prompt(50)) >= 3, "the prefix is found")

    vllm.stop()
    vllm.start()
    vllm.complete(prompt(51), max_tokens=1)

    wait_until(lambda: matched(vllm, redis, prompt(51)) >= 3, "the new prefix is found", seconds=60)
    wait_until(lambda: matched(vllm, redis, prompt(50)) == 0, "the old one is gone")
    page = runtime.page()
    assert 'kthena_runtime_kv_resyncs_total{reason="engine_restart"} 1.0' in page
    assert 'kthena_runtime_kv_events_dropped_total{reason="invalid"} 0.0' in page
    assert 'kthena_runtime_kv_events_dropped_total{reason="payload"} 0.0' in page


def test_a_runtime_that_starts_late_learns_what_is_cached(
    vllm: EventfulEngine, redis: RedisServer, runtime: Runtime
) -> None:
    """From the replay socket; and the one before left nothing behind when it ended."""
    vllm.complete(prompt(60), max_tokens=1)
    wait_until(lambda: matched(vllm, redis, prompt(60)) >= 3, "the prefix is found")
    code, seconds = runtime.stop()
    assert (code, fields(redis)) == (0, 0)
    assert seconds < 10

    variables = {
        "REDIS_URL": redis.url,
        "KV_EVENTS_ENDPOINT": vllm.events,
        "KV_EVENTS_REPLAY_ENDPOINT": vllm.replays,
    }
    with Runtime(vllm.url, variables=variables):
        wait_until(lambda: matched(vllm, redis, prompt(60)) >= 3, "the prefix is found again")
