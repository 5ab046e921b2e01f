"""Whatever happens to Redis: events are kept, the reason is told, and afterwards Redis is right again."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from exporter.kv.decode import Removed, Stored
from exporter.kv.diagnosis import diagnose_redis
from exporter.kv.ledger import Ledger
from simulators.redis import RedisServer
from simulators.waiting import wait_until
from tests.kv.running import MODEL, POD, pumping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.kv.ledger import Change
    from exporter.kv.pump import Pump
    from tests.kv.observer import KvRecorder

FIRST = range(1000, 3000)
NEEDED = "+hset +hdel +sadd +srem +sscan +sismember +expire +unlink"


def keys(ledger: Ledger) -> set[str]:
    return {f"matrix:kv:block:{model}@{block}" for model, block in ledger.held()}


def wait_for(server: RedisServer, ledger: Ledger) -> None:
    wait_until(lambda: server.keys_of(POD) == keys(ledger), "Redis has what the ledger has")


def go_on(ledger: Ledger) -> None:
    """Let the engine drop half of its blocks and store others."""
    ledger.apply(0, [Removed(FIRST[::2]), Stored(range(5000, 6500), range(5000, 6500)), Removed([5001, 5002])])


@contextmanager
def settled(server: RedisServer, **options: float) -> Iterator[tuple[Ledger, Pump, KvRecorder]]:
    """Run a pump that has written its first blocks."""
    ledger = Ledger(MODEL)
    ledger.apply(0, [Stored(FIRST, FIRST)])
    with pumping(ledger, server.url, **options) as (pump, recorder):
        wait_for(server, ledger)
        yield ledger, pump, recorder


def fail_with(recorder: KvRecorder, reason: str) -> None:
    wait_until(lambda: reason in recorder.reasons, f"the reason {reason} is told")


@pytest.mark.parametrize("keep", [True, False])
def test_redis_is_killed_and_comes_back(*, keep: bool) -> None:
    """With its data or without: what the engine did meanwhile is there, and what it dropped is not."""
    with RedisServer() as server, settled(server) as (ledger, pump, recorder):
        if keep:
            server.client.save()
        server.kill()
        go_on(ledger)
        fail_with(recorder, "connection")
        wait_until(lambda: diagnose_redis(pump).fails, "the failure is diagnosed")
        assert len(ledger.held()) == 2498

        server.start()
        wait_for(server, ledger)

        wait_until(lambda: pump.failure is None, "the failure is over")
        assert recorder.resyncs == ["start", "restarted" if keep else "emptied"]
        assert recorder.reasons == {"connection"}


@pytest.mark.parametrize("rename", [{}, {"INFO": ""}], ids=["", "no-info"])
def test_redis_comes_back_with_older_data(rename: dict[str, str]) -> None:
    """What it lost since its last save is noticed, even where it does not tell who it is."""
    with RedisServer(rename=rename) as server, settled(server) as (ledger, _, recorder):
        server.client.save()
        go_on(ledger)
        wait_for(server, ledger)

        server.kill()
        server.start()
        assert server.client.hexists(f"matrix:kv:block:{MODEL}@{FIRST[0]}", POD) or "restarted" in recorder.resyncs
        wait_for(server, ledger)

        assert "restarted" in recorder.resyncs


def test_redis_is_silent_for_a_while() -> None:
    """A server that answers nothing is a timeout; what was under way is written again."""
    with RedisServer() as server, settled(server, answer_seconds=0.5) as (ledger, _, recorder):
        server.pause()
        go_on(ledger)
        fail_with(recorder, "timeout")
        server.resume()

        wait_for(server, ledger)


@pytest.mark.parametrize("command", ["flushall", "flushdb"])
def test_redis_is_emptied(command: str) -> None:
    """A check finds the mark gone, and everything is written again."""
    with RedisServer() as server, settled(server) as (ledger, _, recorder):
        getattr(server.client, command)()
        wait_for(server, ledger)

        assert recorder.resyncs == ["start", "emptied"]
        assert recorder.failed == {}


def test_redis_is_emptied_while_blocks_come() -> None:
    """Nothing that was written before or during the loss is missing afterwards."""
    with RedisServer() as server, settled(server) as (ledger, _, recorder):
        for start in range(10_000, 16_000, 100):
            ledger.apply(0, [Stored(range(start, start + 100), range(start, start + 100))])
            if start % 2000 == 0:
                server.client.flushall()
        wait_until(lambda: "emptied" in recorder.resyncs, "the loss is noticed")
        wait_for(server, ledger)


def test_redis_becomes_a_replica_and_is_promoted() -> None:
    """A demoted server refuses writes; promoted again, with what it then has, it gets everything."""
    with RedisServer() as primary, RedisServer() as server, settled(server) as (ledger, pump, recorder):
        server.client.replicaof("127.0.0.1", primary.port)
        go_on(ledger)
        fail_with(recorder, "read_only")
        wait_until(lambda: "point REDIS_HOST at the primary" in diagnose_redis(pump).detail, "it is diagnosed")

        server.client.replicaof("NO", "ONE")
        wait_for(server, ledger)


def test_a_demotion_that_keeps_the_mark_loses_nothing() -> None:
    """The replica's data may be older than its mark: after refusing writes it gets everything again."""
    at_once = {"repl-diskless-sync-delay": "0"}
    with RedisServer(options=at_once) as primary, RedisServer() as server, settled(server) as (ledger, _, recorder):
        primary.client.sadd(f"kthena:kv:pod:{POD}", *server.client.smembers(f"kthena:kv:pod:{POD}"))
        server.client.replicaof("127.0.0.1", primary.port)
        wait_until(lambda: not server.keys_of(POD), "the server has its primary's data")
        go_on(ledger)
        fail_with(recorder, "read_only")

        server.client.replicaof("NO", "ONE")
        wait_for(server, ledger)


def test_redis_is_full(caplog: pytest.LogCaptureFixture) -> None:
    """What goes is taken out nevertheless; what comes is kept, and written when there is room."""
    with RedisServer(options={"maxmemory-policy": "noeviction"}) as server, settled(server) as (ledger, _, recorder):
        server.client.config_set("maxmemory", 1)
        for gone, come in zip(FIRST[::2], range(5000, 6000), strict=True):
            ledger.apply(0, [Removed([gone]), Stored([come], [come])])
        fail_with(recorder, "out_of_memory")
        left = {f"matrix:kv:block:{MODEL}@{block}" for block in FIRST[1::2]}
        wait_until(lambda: server.keys_of(POD) == left, "what went is taken out")
        wait_until(lambda: recorder.failed["write", "out_of_memory"] > 5, "writes are refused time and again")
        assert caplog.text.count("does not take the KV index (out_of_memory)") == 1

        server.client.config_set("maxmemory", 0)
        wait_for(server, ledger)


def test_the_password_is_wrong_at_first() -> None:
    """No write gets through and none is lost; once the password is right all is well."""
    with RedisServer(password="right") as server:
        ledger = Ledger(MODEL)
        go_on(ledger)
        with pumping(ledger, server.url.replace("right", "other")) as (pump, recorder):
            fail_with(recorder, "auth")
            wait_until(lambda: "REDIS_PASSWORD" in diagnose_redis(pump).detail, "it is diagnosed")
            assert recorder.resyncs == []

            server.client.config_set("requirepass", "other")
            wait_for(server, ledger)
            server.client.config_set("requirepass", "right")


def test_no_password_is_given() -> None:
    """A server that wants one says so with each command."""
    with (
        RedisServer(password="right") as server,
        pumping(Ledger(MODEL), f"redis://127.0.0.1:{server.port}", stop_seconds=0.1) as (
            _,
            recorder,
        ),
    ):
        fail_with(recorder, "auth")
        assert recorder.reasons == {"auth"}


def test_a_user_lacks_a_right_at_first() -> None:
    """A forbidden command is told as such, and all is written when it is allowed."""
    with RedisServer(user=("runtime", "secret", "~* +@all -hset")) as server:
        ledger = Ledger(MODEL)
        go_on(ledger)
        with pumping(ledger, server.url) as (_, recorder):
            fail_with(recorder, "auth")
            server.client.acl_setuser("runtime", enabled=True, commands=["+hset"])
            wait_for(server, ledger)


def test_a_user_with_few_rights_suffices() -> None:
    """Eight commands on two prefixes are all that it takes: no INFO, no KEYS, no SCAN."""
    rules = f"~matrix:kv:block:* ~kthena:kv:pod:* {NEEDED}"
    with RedisServer(user=("runtime", "secret", rules)) as server:
        with settled(server) as (ledger, _, recorder):
            go_on(ledger)
            wait_for(server, ledger)
            server.client.flushall()
            wait_for(server, ledger)
        assert recorder.failed == {}
        assert server.client.dbsize() == 0


def test_tls_is_spoken() -> None:
    """`rediss://` brings the same keys."""
    with RedisServer(tls=True) as server, settled(server) as (ledger, _, recorder):
        go_on(ledger)
        wait_for(server, ledger)
        assert recorder.failed == {}


def leave(server: RedisServer, blocks: range) -> None:
    """Write what an earlier runtime of this pod left."""
    pipeline = server.client.pipeline(transaction=False)
    for block in blocks:
        pipeline.sadd(f"kthena:kv:pod:{POD}", f"{MODEL}@{block}")
        pipeline.hset(f"matrix:kv:block:{MODEL}@{block}", POD, "1")
    pipeline.execute()


def test_more_is_left_than_the_ledger_has_room_for() -> None:
    """What an earlier runtime left goes part by part, while the engine's blocks take all the room."""
    with RedisServer() as server:
        leave(server, range(500))
        ledger = Ledger(MODEL, most=100)
        ledger.apply(0, [Stored(range(100), range(1000, 1100))])
        with pumping(ledger, server.url):
            wait_for(server, ledger)
            assert len(ledger.held()) == 100
        assert server.client.dbsize() == 0


def test_the_end_takes_out_what_was_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    """Fields that the ledger had no room for are in the pod's set, and go with it."""
    with RedisServer(user=("runtime", "secret", "~* +@all -hset -hdel")) as server:
        leave(server, range(500))
        ledger = Ledger(MODEL, most=100)
        with pumping(ledger, server.url) as (_, recorder):
            fail_with(recorder, "auth")
            ledger.apply(0, [Stored(range(100), range(1000, 1100))])
            assert (ledger.size <= 105, ledger.forgotten > 400) == (True, True)
            server.client.acl_setuser("runtime", enabled=True, commands=["+hset", "+hdel"])
        assert server.client.dbsize() == 0
    assert "stay in Redis" not in caplog.text


def test_a_redis_that_fails_again_and_again_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Each reason is logged once a minute, and so is that it is over."""
    with caplog.at_level(logging.INFO), RedisServer() as server, settled(server) as (ledger, pump, _):
        for number in range(5):
            server.client.config_set("min-replicas-to-write", 3)
            ledger.apply(0, [Stored([9000 + number], [9000 + number])])
            wait_until(lambda: pump.failure, "Redis refuses")
            server.client.config_set("min-replicas-to-write", 0)
            wait_until(lambda: pump.failure is None, "Redis takes it")

    assert caplog.text.count("does not take") == 1
    assert caplog.text.count("Redis takes the KV index") == 1


class Defective(Ledger):
    """A ledger that fails in its own way when changes are taken."""

    defects = 3

    def take(self, limit: int) -> list[Change]:
        changes = super().take(limit)
        if changes and self.defects:
            self.defects -= 1
            raise KeyError(limit)
        return changes


def test_a_defect_does_not_end_the_pump(caplog: pytest.LogCaptureFixture) -> None:
    """It is counted, logged once with its class, and what it cost is written again."""
    ledger = Defective(MODEL)
    go_on(ledger)
    with RedisServer() as server, pumping(ledger, server.url) as (pump, recorder):
        wait_for(server, ledger)
        wait_until(lambda: pump.failure is None, "the failure is over")

    assert recorder.failed == {("write", "internal"): 3}
    assert caplog.text.count("does not take the KV index (internal)") == 1
    assert "KeyError: 1000" in caplog.text


def test_the_end_does_not_wait_for_a_redis_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """After its deadline the pump ends, and says how much is left behind."""
    ledger = Ledger(MODEL)
    with RedisServer() as server, pumping(ledger, server.url, stop_seconds=0.5):
        ledger.apply(0, [Stored([1, 2], [11, 12])])
        wait_for(server, ledger)
        server.kill()
    assert "2 fields of this pod stay in Redis until its next start" in caplog.text


def test_the_end_does_not_storm_a_redis_that_refuses(caplog: pytest.LogCaptureFixture) -> None:
    """The set cannot be removed: that is tried a few times, and said once in a while, until the deadline."""
    with RedisServer(user=("runtime", "secret", "~* +@all -unlink")) as server:
        ledger = Ledger(MODEL)
        with caplog.at_level(logging.INFO), pumping(ledger, server.url, stop_seconds=1.0) as (_, recorder):
            ledger.apply(0, [Stored([1], [11])])
            wait_for(server, ledger)
        assert server.keys_of(POD) == set()
    assert 1 <= recorder.failed["write", "auth"] <= 60
