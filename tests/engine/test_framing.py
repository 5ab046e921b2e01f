"""An engine whose answers have no end, or say so in a way that no reader should believe."""

from __future__ import annotations

import gzip
import itertools
import zlib
from time import monotonic
from typing import TYPE_CHECKING, Final

import pytest

from simulators.misbehaving.engine import BadEngine, Behaviour
from simulators.misbehaving.pages import PAGE, chunk, gzip_bomb, head, response
from simulators.reading import samples
from tests.harness.health import HealthWatch
from tests.harness.memory import MIB, Watch, limited
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.misbehaving.exchange import Exchange

pytestmark = [pytest.mark.faults, pytest.mark.slow]

SECONDS: Final = 3.0
SLACK: Final = 20.0
OK: Final = b"HTTP/1.1 200 OK\r\n"
CHUNKED: Final = head("200 OK", {"Transfer-Encoding": "chunked"})
PIECE: Final = b"a 1\n" * 16_384
NOTHING: Final = gzip.compress(b"", mtime=0)


def framed(body: bytes) -> bytes:
    return b"".join(chunk(body[start : start + 60_000]) for start in range(0, len(body), 60_000))


def packed(coding: str, *, chunked: bool = True) -> bytes:
    headers = {"Transfer-Encoding": "chunked"} if chunked else {}
    return head("200 OK", {"Content-Encoding": coding, **headers})


# What is sent first, what is sent again and again behind it (made when it is needed if that takes long), and the reasons that a scrape may then give.
ANSWERS: Final = {
    "a chunk of size -1": (CHUNKED + b"-1\r\n", PIECE, "connection"),
    "a chunk of size +ff": (CHUNKED + b"+ff\r\n", PIECE, "connection"),
    "a chunk that is longer than its size": (CHUNKED + b"1\r\n", PIECE, "connection"),
    "a very large chunk": (CHUNKED + b"7fffffffffffff\r\n", PIECE, "too_large"),
    "a chunk extension": (CHUNKED + b"5;", b"x" * 65_536, "connection"),
    "chunk extensions": (CHUNKED, b"1;" + b"x" * 4000 + b"\r\na\r\n", "connection"),
    "trailers": (CHUNKED + chunk(PAGE) + b"0\r\n", b"Trailer: 1\r\n" * 1000, "connection"),
    "chunks of one byte": (CHUNKED, b"1\r\na\r\n" * 10_000, "too_large timeout"),
    "header lines": (OK, b"X-Padding: 1\r\n" * 1000, "connection"),
    "a header line": (OK + b"X-Padding: ", b"x" * 65_536, "connection"),
    "a status line": (b"HTTP/1.1 200 ", b"x" * 65_536, "connection"),
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" * 1000, "connection"),
    "a body without a length": (head("200 OK", {}), PIECE, "too_large"),
    "a body with a negative length": (head("200 OK", {"Content-Length": "-5"}), PIECE, "connection"),
    "a body with two lengths": (head("200 OK", {"Content-Length": "5, 6"}), PIECE, "connection"),
    "a body with a length that is too large": (head("200 OK", {"Content-Length": "99999999999"}), PIECE, "too_large"),
    "gzip, much in little": (packed("gzip"), lambda: framed(gzip_bomb(200 * MIB)), "too_large"),
    "gzip, little in much": (packed("gzip"), lambda: framed(NOTHING * 3000), "encoding"),
    "gzip, nothing but zeros behind it": (packed("gzip") + chunk(NOTHING), chunk(bytes(60_000)), "too_large"),
    "deflate": (packed("deflate"), lambda: framed(zlib.compress(PIECE * 1000)), "too_large encoding"),
    "a redirect": (head("302 Found", {"Location": "/metrics"}), PIECE, "redirect"),
    "an error": (head("500 Internal Server Error", {}), PIECE, "http_status"),
}


@pytest.mark.parametrize(("first", "again", "reasons"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_without_end_costs_little(first: bytes, again: bytes | Callable[[], bytes], reasons: str) -> None:
    """The scrape fails in time with a reason, in little memory, and the next good page is read."""
    is_bad = [True]
    more = again() if callable(again) else again

    def act(exchange: Exchange, _: int) -> None:
        for piece in itertools.chain([first], itertools.repeat(more)) if is_bad[0] else [response(PAGE)]:
            exchange.send(piece)

    with (
        limited(256 * MIB) as group,
        BadEngine(Behaviour("has no end", act)) as engine,
        Runtime(engine.url, group=group) as runtime,
        Watch(runtime.pid) as watch,
        HealthWatch(runtime) as health,
    ):
        started = monotonic()
        bad = samples(runtime.page(headers={"X-Prometheus-Scrape-Timeout-Seconds": str(SECONDS)}))
        seconds = monotonic() - started
        is_bad[0] = False
        good = samples(runtime.page())

    errors = {
        reason: bad[f'kthena_runtime_engine_scrape_errors_total{{reason="{reason}"}}'] for reason in reasons.split()
    }
    assert bad["kthena_runtime_engine_up"] == 0
    assert sum(errors.values()) == 1, runtime.log
    assert good["kthena_runtime_engine_up"] == 1
    assert seconds < SECONDS + SLACK
    assert (health.failures, health.longest < SLACK) == (0, True)
    assert max(watch.peaks.values()) < 100 * MIB
    assert watch.proportional < 256 * MIB
