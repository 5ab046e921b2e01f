"""Answers that a test needs only once, byte for byte: each is either read or refused for one reason."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final, TypeAlias

import pytest

from simulators.misbehaving.engine import BadEngine, Behaviour
from simulators.misbehaving.pages import HTML, OPENMETRICS, OPENMETRICS_TEXT, PAGE, gzipped, head, response
from simulators.reading import samples
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What a scrape of one answer brings: the reason why it failed, or the number of its samples.
Scrape: TypeAlias = "Callable[[bytes], str | int]"

WHOLE: Final = 7
NO_CONTENT: Final = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
UNFRAMED: Final = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n"
CHUNKED: Final = head("200 OK", {"Transfer-Encoding": "chunked"})


def found(location: str) -> bytes:
    return response(b"", status="302 Found", headers={"Location": location})


def encoded(body: bytes, coding: str) -> bytes:
    return response(body, headers={"Content-Encoding": coding})


ANSWERS: Final = {
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2p1\r\n", "connection"),
    "a page without HTTP": (PAGE, "connection"),
    "nothing at all": (b"", "connection"),
    "a status that is no number": (b"HTTP/1.1 fine OK\r\n\r\n", "connection"),
    "a status that nobody knows": (b"HTTP/1.1 999 Hm\r\nConnection: close\r\n\r\n", "http_status"),
    "no content": (NO_CONTENT, "http_status"),
    "a part": (response(PAGE, status="206 Partial Content"), "http_status"),
    "not signed in": (response(b"{}", status="401 Unauthorized"), "http_status"),
    "come later": (response(b"", status="503 Service Unavailable", headers={"Retry-After": "1"}), "http_status"),
    "continue first": (b"HTTP/1.1 100 Continue\r\n\r\n" + response(PAGE), WHOLE),
    "no length": (UNFRAMED + PAGE, WHOLE),
    "a header without end": (response(PAGE, headers={"X-Filler": "a" * 70_000}), "connection"),
    "headers without end": (response(PAGE, headers={f"X-{i}": "a" for i in range(200)}), "connection"),
    "cut within a chunk": (CHUNKED + b"%x\r\n" % len(PAGE) + PAGE[:200], "truncated"),
    "a chunk without a size": (CHUNKED + b"zz\r\n" + PAGE, "connection"),
    "a chunk that is longer than its size": (CHUNKED + b"5\r\n" + PAGE, "connection"),
    "a negative length": (response(PAGE, headers={"Content-Length": "-1"}), "connection"),
    "two lengths": (response(PAGE, headers={"Content-Length": f"{len(PAGE)}, 5"}), "connection"),
    "the same length twice": (response(PAGE, headers={"Content-Length": f"{len(PAGE)}, {len(PAGE)}"}), WHOLE),
    "a coding that nobody asked for": (response(PAGE, headers={"Transfer-Encoding": "gzip, chunked"}), "connection"),
    "hints first": (b"HTTP/1.1 103 Early Hints\r\n\r\n" + response(PAGE), WHOLE),
    "redirected to no URL": (found("http://[::1/metrics"), "redirect"),
    "redirected to a file": (found("file:///etc/hostname"), "redirect"),
    "redirected to no port": (found("http://127.0.0.1:99999/metrics"), "redirect"),
    "redirected to nowhere": (response(b"", status="302 Found"), "http_status"),
    "damaged deflate": (encoded(b"not deflate", "deflate"), "encoding"),
    "compressed twice": (encoded(gzipped(gzipped(PAGE)), "gzip, gzip"), "encoding"),
    "compressed with deflate": (encoded(zlib.compress(PAGE), "deflate"), WHOLE),
    "compressed as nobody asked": (encoded(PAGE, "br"), "encoding"),
    "half of a gzip stream": (encoded(gzipped(PAGE)[:-40], "gzip"), "truncated"),
    "gzip in two members": (encoded(gzipped(PAGE[:300]) + gzipped(PAGE[300:]), "gzip"), WHOLE),
    "zeros behind gzip": (encoded(gzipped(PAGE) + bytes(512), "gzip"), WHOLE),
    "something else behind gzip": (encoded(gzipped(PAGE) + b"more", "gzip"), "encoding"),
    "half of a second member": (encoded(gzipped(PAGE) + gzipped(PAGE)[:-40], "gzip"), "truncated"),
    "Windows lines": (response(PAGE.replace(b"\n", b"\r\n")), "invalid"),
    "a byte order mark": (response(b"\xef\xbb\xbf" + PAGE), "invalid"),
    "OpenMetrics called text": (response(OPENMETRICS), "invalid"),
    "text called OpenMetrics": (response(HTML, content_type=OPENMETRICS_TEXT), "invalid"),
    "OpenMetrics without its end": (
        response(OPENMETRICS.removesuffix(b"# EOF\n"), content_type=OPENMETRICS_TEXT),
        "invalid",
    ),
    "only white space": (response(b" \n\t\n\n"), 0),
}


@pytest.fixture(scope="module")
def scrape() -> Iterator[Scrape]:
    """Scrape one answer; all go through one runtime, as from an engine that never stays the same."""
    answers: list[bytes] = []
    behaviour = Behaviour("answers what it is told", lambda exchange, _: exchange.send(answers[-1]))
    with BadEngine(behaviour) as engine, Runtime(engine.url) as runtime:

        def once(answer: bytes) -> str | int:
            answers.append(answer)
            before, after = samples(runtime.page()), samples(runtime.page())
            errors = [series for series in after if "scrape_errors_total" in series]
            reasons = [series.split('"')[1] for series in errors if after[series] > before[series]]
            assert after["kthena_runtime_engine_up"] == 1.0 - len(reasons)
            return reasons[0] if reasons else int(after["kthena_runtime_engine_scrape_samples"])

        yield once


@pytest.mark.parametrize(("answer", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_an_odd_answer_is_read_or_refused(scrape: Scrape, answer: bytes, expected: str | int) -> None:
    """It has one outcome: all of its samples, or one reason; and the runtime goes on."""
    assert scrape(answer) == expected
    assert scrape(response(PAGE)) == WHOLE


def test_what_the_engine_sends_stays_on_one_line_of_the_log(start_runtime: Callable[..., Runtime]) -> None:
    """An engine cannot write lines of its own into the log, nor very long ones."""
    forged = b"SSH-2.0\r2026-01-01T00:00:00Z ERROR forged " + b"x" * 10_000 + b"\r\n"
    with BadEngine.serving(forged) as engine:
        runtime = start_runtime(engine.url)
        runtime.page()
        runtime.stop()

    assert not [line for line in runtime.log.splitlines() if line.startswith("2026-01-01")]
    assert max(map(len, runtime.log.splitlines())) < 500
