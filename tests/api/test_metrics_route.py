"""GET /metrics: the engine's page to the byte, its standard twins, the runtime's own families; all or a selection."""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING, Final, TypeAlias

import pytest

from exporter.telemetry.names import EXTENDED, KV, OWN, PROCESS, STANDARD
from simulators.engine.__main__ import Engine
from simulators.page_server import PageServer
from simulators.reading import family_names, samples
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from simulators.engine.api import FlavourName

Start: TypeAlias = "Callable[..., Runtime]"

PLAIN: Final = {"Accept-Encoding": "identity"}
WAITING: Final = "vllm:num_requests_waiting"
TTFT: Final = "vllm:time_to_first_token_seconds"
TOKENS: Final = "vllm:generation_tokens_total"
# Without Redis there are no metrics of KV events.
OWN_NAMES: Final = {description.name for description in OWN if description not in KV}


@pytest.fixture(scope="module")
def capture(captures: dict[str, bytes]) -> bytes:
    return captures["vllm-0.32-traffic"]


@pytest.fixture(scope="module")
def runtime(capture: bytes) -> Iterator[Runtime]:
    """A runtime before an engine that always has the same page, that of a real vLLM."""
    with PageServer({"/metrics": capture}) as engine, Runtime(engine.url) as running:
        yield running


def test_the_page_begins_with_the_engines_own_bytes(runtime: Runtime, capture: bytes) -> None:
    """What the engine sent is passed on to the byte; all that is added comes after."""
    body = runtime.get(headers=PLAIN).content

    assert body.startswith(capture)
    assert body[len(capture) :].startswith(b"# HELP kthena:generation_tokens_total ")


def test_the_standard_families_follow_then_the_runtimes_own(runtime: Runtime, capture: bytes) -> None:
    """The added families come in a fixed order, and no family is there twice."""
    names = family_names(runtime.page())
    added = names[len(family_names(capture.decode())) :]

    assert added[: len(STANDARD)] == list(STANDARD)
    assert {*STANDARD, *EXTENDED, *OWN_NAMES} <= set(added)
    assert all(name.startswith(("kthena:", "kthena_runtime_")) for name in added)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", ["num_requests_waiting", "generation_tokens_total", "time_to_first_token_seconds"])
def test_twins_have_the_samples_of_their_source(runtime: Runtime, name: str) -> None:
    """A twin's series differ from their source's in the prefix only."""
    parts = re.compile(rf"(kthena|vllm):({name}(?:_bucket|_sum|_count)?\{{.*)")
    series: dict[str, dict[str, float]] = {"kthena": {}, "vllm": {}}
    for text, value in samples(runtime.page()).items():
        if found := parts.fullmatch(text):
            series[found[1]][found[2]] = value

    assert series["kthena"]
    assert series["kthena"] == series["vllm"]


def test_the_runtimes_process_is_told_from_the_engines(runtime: Runtime) -> None:
    """Both processes' metrics are there: `process_*` is the engine's, the runtime's has its own prefix."""
    page = samples(runtime.page())

    assert page["process_resident_memory_bytes"] == 650985472.0
    assert {description.name for description in PROCESS} <= set(page)
    assert 20e6 < page["kthena_runtime_process_resident_memory_bytes"] < 80e6


def test_a_page_without_raw_families(start_runtime: Start, capture: bytes) -> None:
    """With --no-raw-metrics the engine's own families stay away; what is made of them is there."""
    with PageServer({"/metrics": capture}) as engine:
        names = family_names(start_runtime(engine.url, "--no-raw-metrics").page())

    assert {*STANDARD, *EXTENDED, *OWN_NAMES} <= set(names)
    assert all(name.startswith(("kthena:", "kthena_runtime_")) for name in names)


def test_standard_families_of_the_engines_own_stay_without_raw_ones(start_runtime: Start) -> None:
    """A standard family that the engine has itself is exported as it has it, also when it is asked for by name."""
    own = b"# HELP kthena:num_requests_waiting W.\n# TYPE kthena:num_requests_waiting gauge\nkthena:num_requests_waiting 7\n"
    page = own + b"# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 3\n"
    with PageServer({"/metrics": page}) as engine:
        runtime = start_runtime(engine.url, "--no-raw-metrics")
        whole = runtime.page()
        selected = runtime.page(params={"name[]": "kthena:num_requests_waiting"})

    assert selected.encode() == own
    assert own.decode() in whole
    assert WAITING not in family_names(whole)


@pytest.mark.parametrize(
    ("selected", "expected"),
    [
        (["kthena:num_requests_waiting"], ["kthena:num_requests_waiting"]),
        ([WAITING, "kthena_runtime_engine_up"], [WAITING, "kthena_runtime_engine_up"]),
        (["kthena_runtime_engine_up", WAITING], [WAITING, "kthena_runtime_engine_up"]),
        ([TOKENS], [TOKENS]),
        (["vllm:generation_tokens"], [TOKENS]),
        ([TTFT + "_bucket"], [TTFT]),
        ([TTFT + "_sum", TTFT + "_count"], [TTFT]),
        ([WAITING + "_bucket"], []),
        (["vllm:num_requests"], []),
        (["nobody_has_this"], []),
        ([WAITING, "nobody_has_this"], [WAITING]),
        ([""], []),
    ],
)
def test_families_can_be_selected(runtime: Runtime, selected: list[str], expected: list[str]) -> None:
    """`name[]` takes family names, a counter's without `_total`, and names of series; others find nothing."""
    answer = runtime.get(params={"name[]": selected})

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert family_names(answer.text) == expected


def test_a_selected_family_is_whole(runtime: Runtime, capture: bytes) -> None:
    """It comes with its header and all its lines, as the engine sent them."""
    block = runtime.get(params={"name[]": TTFT}, headers=PLAIN).content

    assert block.startswith(b"# HELP " + TTFT.encode())
    assert block.endswith(b'_sum{engine="0",model_name="tiny-llama"} 5.451819896697998\n')
    assert block in capture


@pytest.mark.parametrize("accepted", ["gzip", "gzip, deflate, br", "deflate, gzip;q=0.5", "*", "GZIP"])
def test_a_large_page_is_compressed_when_it_may_be(runtime: Runtime, capture: bytes, accepted: str) -> None:
    """The same page comes in a fraction of the bytes, and caches are told what it depended on."""
    answer = runtime.get(headers={"Accept-Encoding": accepted}, stream=True)
    packed = answer.raw.read(decode_content=False)

    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert len(packed) == int(answer.headers["Content-Length"]) < len(capture) / 4
    assert gzip.decompress(packed).startswith(capture)


@pytest.mark.parametrize("accepted", [None, "", "identity", "gzip;q=0", "deflate", "gzip;q=0, *", "*;q=0", "gzip;q=x"])
def test_a_large_page_is_plain_when_it_must_be(runtime: Runtime, capture: bytes, accepted: str | None) -> None:
    """Who does not take gzip gets the page as it is."""
    answer = runtime.get(headers={"Accept-Encoding": accepted})

    assert "Content-Encoding" not in answer.headers
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert answer.content.startswith(capture)


def test_a_small_page_is_never_compressed(runtime: Runtime) -> None:
    """A few lines are not worth the CPU."""
    answer = runtime.get(params={"name[]": WAITING}, headers={"Accept-Encoding": "gzip"})

    assert "Content-Encoding" not in answer.headers
    assert answer.headers["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize(
    "accepted",
    [
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
        "text/html",
    ],
)
def test_the_format_is_not_negotiated(runtime: Runtime, accepted: str) -> None:
    """Whatever the scraper would rather have, names keep their colons in the one format."""
    answer = runtime.get(headers={"Accept": accepted})

    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "\nkthena:num_requests_waiting{" in answer.text


def test_head_tells_the_headers_of_a_page(runtime: Runtime) -> None:
    """HEAD has the headers of GET, and no body."""
    answer = runtime.session.head(f"{runtime.url}/metrics", headers=PLAIN, timeout=60)

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert int(answer.headers["Content-Length"]) > 50_000
    assert answer.content == b""


@pytest.mark.parametrize("flavour", ["vllm", "sglang"])
def test_each_standard_metric_is_said_to_be_present_or_not(start_runtime: Start, flavour: FlavourName) -> None:
    """`standard_metric_present` is 1 for exactly the standard families that are on the page."""
    with Engine(flavour=flavour) as engine:
        runtime = start_runtime(engine.url, engine=flavour)
        idle = runtime.page()
        engine.run_requests(20)
        busy = runtime.page()

    for page in (idle, busy):
        said = {series.split('"')[1]: value for series, value in samples(page).items() if "metric_present" in series}
        assert set(STANDARD) <= set(said)
        assert {name for name, value in said.items() if value} == {
            name for name in family_names(page) if name.startswith("kthena:")
        }
    assert set(STANDARD) <= set(family_names(busy))
