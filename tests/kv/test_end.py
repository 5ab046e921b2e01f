"""The end of the runtime while one side of the KV events does not answer, or is busy."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

from simulators.kv.frames import Store, form
from simulators.kv.publisher import KvPublisher
from simulators.misbehaving.engine import BadEngine
from simulators.misbehaving.pages import PAGE
from simulators.redis import RedisServer
from simulators.waiting import PATIENCE, wait_until
from tests.harness.runtime import Runtime

pytestmark = [pytest.mark.faults, pytest.mark.slow]

WIRE: Final = form("vllm-0.33")
STAY: Final = "3 fields of this pod stay in Redis until its next start"
# A program whose subscriber is busy with one message for longer than the end may take.
BUSY: Final = """
import sys
from threading import Event
from exporter.kv.events import KvEvents, KvOptions
from tests.kv.observer import KvRecorder

busy = Event()

class Busy(KvRecorder):
    def received(self, tally):
        busy.set()
        Event().wait()

options = KvOptions("vllm", "m", "p.d", "redis://127.0.0.1:1/0", sys.argv[1], "", None, 1)
events = KvEvents(options, Busy())
events.start()
print("started", flush=True)
busy.wait()
events.stop()
events.join()
print("ended", flush=True)
"""


def test_what_stays_in_a_redis_that_hangs_is_logged() -> None:
    """The runtime ends in time, and says how many fields it could not remove."""
    with RedisServer() as redis, BadEngine.serving_page(PAGE) as engine, KvPublisher(WIRE) as publisher:
        variables = {"REDIS_URL": redis.url, "KV_EVENTS_ENDPOINT": publisher.endpoint}
        with Runtime(engine.url, variables=variables) as runtime:
            publisher.wait_for_subscriber()
            publisher.publish(Store([1, 2, 3], range(1, 49)))
            wait_until(lambda: redis.client.dbsize() == 4, "the fields and the set are there")
            redis.pause()
            code, seconds = runtime.stop()
            redis.resume()

    assert (code, seconds < 10) == (0, True)
    assert runtime.log.count(STAY) == 1


def test_a_busy_subscriber_does_not_disturb_the_end() -> None:
    """Its sockets are left to it, and the process ends all the same."""
    with KvPublisher(WIRE) as publisher:
        command = [sys.executable, "-c", BUSY, publisher.endpoint]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
            publisher.wait_for_subscriber()
            publisher.publish(Store([1], range(1, 17)))
            said, errors = program.communicate(timeout=PATIENCE)

    assert (program.returncode, said.split()) == (0, ["started", "ended"])
    assert "Traceback" not in errors
