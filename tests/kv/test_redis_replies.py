"""A Redis, or something in its place, that answers what no command is answered with."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import pytest

from simulators.misbehaving.engine import BadEngine
from simulators.misbehaving.pages import PAGE
from simulators.misbehaving.redis import BadRedis
from simulators.ports import free_port
from simulators.reading import samples
from simulators.waiting import wait_until
from tests.harness.health import HealthWatch
from tests.harness.memory import MIB, Watch, limited
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.misbehaving.redis import Misbehaviour

pytestmark = [pytest.mark.faults, pytest.mark.slow]

PIECE: Final = b"x" * 65_536
ERRORS: Final = "kthena_runtime_redis_errors_total"


def goes_on(first: bytes, again: bytes) -> Misbehaviour:
    def act(send: Callable[[bytes], None]) -> None:
        for piece in itertools.chain([first], itertools.repeat(again)):
            send(piece)

    return act


def says(reply: bytes) -> Misbehaviour:
    return lambda send: send(reply)


# To which command what is answered, and the reason that is counted.
REPLIES: Final = {
    "2 GB announced and sent": (b"INFO", goes_on(b"$2000000000\r\n", PIECE), "invalid_reply"),
    "a billion elements": (b"SSCAN", goes_on(b"*1000000000\r\n", b":1\r\n" * 1000), "invalid_reply"),
    "lists of many elements": (b"SSCAN", says(b"*2\r\n$1\r\n0\r\n*60000\r\n" + b"*60000\r\n" * 60_000), "invalid_reply"),
    "lists in lists": (b"SSCAN", says(b"*1\r\n" * 1_000_000), "invalid_reply"),
    "a line without end": (b"SADD", goes_on(b":1", b"1" * 65_536), "invalid_reply"),
    "an error without end": (b"SADD", goes_on(b"-ERR ", PIECE), "invalid_reply"),
    "a string in place of a number": (b"EXPIRE", says(b"$1\r\n1\r\n"), "invalid_reply"),
    "a negative length": (b"INFO", says(b"$-7\r\n"), "invalid_reply"),
    "HTTP": (b"INFO", says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "invalid_reply"),
    "a scan without end": (b"SSCAN", says(b"*2\r\n$1\r\n7\r\n*1\r\n$3\r\nm@1\r\n"), "invalid_reply"),
    "a scan that is a number": (b"SSCAN", says(b":7\r\n"), "invalid_reply"),
    "a redirection to nowhere": (b"SADD", says(b"-MOVED 1\r\n"), "invalid_reply"),
    "a question to nowhere": (b"SADD", says(b"-ASK 1 host:port\r\n"), "invalid_reply"),
    "silence within a reply": (b"SSCAN", lambda send: send(b"*2\r\n"), "timeout"),
}  # fmt: skip


@pytest.mark.parametrize(("command", "reply", "reason"), REPLIES.values(), ids=REPLIES)
def test_a_reply_that_cannot_be_is_refused(command: bytes, reply: Misbehaviour, reason: str) -> None:
    """It is counted and said, costs little memory, and neither scrapes nor the end wait for it."""
    variables = {"KV_EVENTS_ENDPOINT": f"tcp://127.0.0.1:{free_port()}"}
    with (
        BadRedis(reply, command=command) as redis,
        BadEngine.serving_page(PAGE) as engine,
        limited(256 * MIB) as group,
        Runtime(engine.url, variables=variables | {"REDIS_URL": redis.url}, group=group) as runtime,
        Watch(runtime.pid) as watch,
        HealthWatch(runtime) as health,
    ):

        def failures() -> float:
            page = samples(runtime.page("/metrics?name[]=" + ERRORS))
            return sum(value for series, value in page.items() if f'reason="{reason}"' in series)

        wait_until(failures, "the reply is refused", seconds=60)
        finding = runtime.get("/ready").json()["checks"]["redis"]

    assert finding["status"] == "failing"
    assert reason != "invalid_reply" or "no command" in finding["detail"]
    assert (health.failures, health.longest < 10) == (0, True)
    assert max(watch.peaks.values()) < 128 * MIB
    assert watch.proportional < 256 * MIB
