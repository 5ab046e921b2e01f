"""The runtime's own counters, gauges and histograms: exact text, and the numbers of prometheus_client."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from exporter.page.parse import parse_page
from exporter.page.text_format import series
from exporter.telemetry.instruments import LATENCY_BUCKETS, Histogram, Value, header_of
from exporter.telemetry.names import Description

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.page.family import TextFamily

pytestmark = pytest.mark.unit

REQUESTS = Description("k_requests_total", "counter", "Requests.", ("route", "status"))
UP = Description("k_up", "gauge", "Whether it is up.")
LATENCY = Description("k_seconds", "histogram", "Latency.", ("route",))

THREADS = 8
TIMES = 500

# What is done to a child, between two scrapes or not.
LABELS = st.sampled_from(["a", "b", 'c"\\\n'])
AMOUNTS = st.floats(0, 1e9) | st.integers(0, 1000).map(float)
STEPS = st.lists(st.tuples(LABELS, AMOUNTS) | st.just("scrape"), max_size=30)


def text(instrument: Value | Histogram) -> str:
    return instrument.family().text.decode()


def numbers(family: TextFamily) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in family.samples}


def in_parallel(work: Callable[[], None]) -> None:
    """Do the work in several threads that begin together."""
    barrier = Barrier(THREADS)

    def begin() -> None:
        barrier.wait()
        work()

    with ThreadPoolExecutor(THREADS) as pool:
        for future in [pool.submit(begin) for _ in range(THREADS)]:
            future.result()


def test_a_counter_is_written_as_it_counts() -> None:
    """Children come in the order in which they were made, with one header."""
    counter = Value(REQUESTS)
    counter.add("/metrics", "200", amount=0)
    counter.add("/", "200", amount=2.5)
    counter.add("/metrics", "200")

    assert text(counter) == (
        "# HELP k_requests_total Requests.\n"
        "# TYPE k_requests_total counter\n"
        'k_requests_total{route="/metrics",status="200"} 1.0\n'
        'k_requests_total{route="/",status="200"} 2.5\n'
    )


def test_a_gauge_is_written_as_it_was_set_last() -> None:
    """A child without labels has none in the text."""
    gauge = Value(UP)
    gauge.set(value=1.0)
    gauge.set(value=0.0)

    assert text(gauge) == "# HELP k_up Whether it is up.\n# TYPE k_up gauge\nk_up 0.0\n"


def test_a_family_without_children_is_its_header() -> None:
    """It is announced before anything has happened."""
    assert text(Value(UP)) == header_of(UP).decode() == "# HELP k_up Whether it is up.\n# TYPE k_up gauge\n"


def test_the_buckets_of_a_histogram_are_cumulative() -> None:
    """A value on a bound belongs to it; beyond the last one only +Inf counts."""
    histogram = Histogram(LATENCY, (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.observe("/", value=value)

    assert text(histogram) == (
        "# HELP k_seconds Latency.\n"
        "# TYPE k_seconds histogram\n"
        'k_seconds_bucket{route="/",le="0.1"} 2.0\n'
        'k_seconds_bucket{route="/",le="1.0"} 3.0\n'
        'k_seconds_bucket{route="/",le="+Inf"} 4.0\n'
        'k_seconds_sum{route="/"} 7.65\n'
        'k_seconds_count{route="/"} 4.0\n'
    )


def test_a_histogram_may_begin_with_nothing_observed() -> None:
    """`make` gives a child its zeros, and leaves one alone that is there."""
    histogram = Histogram(LATENCY, (1.0,))
    histogram.make("/")
    histogram.observe("/metrics", value=1.0)
    histogram.make("/metrics")

    assert text(histogram).partition("histogram\n")[2] == (
        'k_seconds_bucket{route="/",le="1.0"} 0.0\n'
        'k_seconds_bucket{route="/",le="+Inf"} 0.0\n'
        'k_seconds_sum{route="/"} 0.0\n'
        'k_seconds_count{route="/"} 0.0\n'
        'k_seconds_bucket{route="/metrics",le="1.0"} 1.0\n'
        'k_seconds_bucket{route="/metrics",le="+Inf"} 1.0\n'
        'k_seconds_sum{route="/metrics"} 1.0\n'
        'k_seconds_count{route="/metrics"} 1.0\n'
    )


def test_the_latency_buckets_are_ascending() -> None:
    """From a millisecond to half a minute."""
    assert (LATENCY_BUCKETS[0], LATENCY_BUCKETS[-1]) == (0.001, 30.0)
    assert sorted(set(LATENCY_BUCKETS)) == list(LATENCY_BUCKETS)


@pytest.mark.parametrize(
    ("value", "escaped"),
    [("plain", "plain"), ('say "hi"', r"say \"hi\""), ("C:\\dir", r"C:\\dir"), ("two\nlines", r"two\nlines")],
)
def test_label_values_are_escaped(value: str, escaped: str) -> None:
    """What a caller sends can never break the page."""
    assert series("k", ("a", "b"), (value, "x")) == f'k{{a="{escaped}",b="x"}}'


def test_each_child_needs_all_its_label_values() -> None:
    """A value too few is a mistake in the code, and shows."""
    counter = Value(REQUESTS)
    counter.add("/")

    with pytest.raises(ValueError, match="shorter"):
        counter.family()


def test_a_family_is_a_snapshot() -> None:
    """What happens later does not change one that is being written."""
    counter = Value(UP)
    counter.add()
    before = counter.family()
    counter.add()

    assert before.text.endswith(b"k_up 1.0\n")
    assert text(counter).endswith("k_up 2.0\n")


def test_only_changed_children_are_rendered_anew_and_all_are_right() -> None:
    """A scrape between two changes neither loses nor repeats a child."""
    counter = Value(REQUESTS)
    for route in ("/a", "/b", "/c"):
        counter.add(route, "200")
        counter.family()
    counter.add("/b", "200")

    assert [sample.value for sample in counter.family().samples] == [1.0, 2.0, 1.0]


def test_threads_lose_no_count() -> None:
    """Adding from many threads gives the exact total."""
    counter = Value(REQUESTS)

    def add() -> None:
        for _ in range(TIMES):
            counter.add("/", "200")

    in_parallel(add)

    assert text(counter).endswith('k_requests_total{route="/",status="200"} 4000.0\n')


def test_threads_lose_no_observation() -> None:
    """Observing and scraping from many threads gives the exact buckets, sum and count."""
    histogram = Histogram(LATENCY, (1.0,))

    def observe() -> None:
        for _ in range(TIMES):
            histogram.observe("/", value=0.5)
            histogram.family()

    in_parallel(observe)

    assert [sample.value for sample in histogram.family().samples] == [4000.0, 4000.0, 2000.0, 4000.0]


@given(STEPS)
def test_any_counting_gives_the_numbers_of_prometheus_client(steps: list[tuple[str, float] | str]) -> None:
    """Law: whatever is added, and whenever it is scraped, a counter says what prometheus_client's says."""
    ours = Value(Description("k_total", "counter", "Counted.", ("a",)))
    theirs = prometheus_client.Counter("k", "Counted.", ["a"], registry=CollectorRegistry())
    for step in steps:
        if isinstance(step, str):
            ours.family()
        else:
            ours.add(step[0], amount=step[1])
            theirs.labels(step[0]).inc(step[1])

    family = ours.family()
    (expected,) = theirs.collect()
    wanted = {(s.name, frozenset(s.labels.items())): s.value for s in expected.samples if s.name == "k_total"}
    assert numbers(family) == wanted
    assert parse_page(family.text).raw == family.text


@given(STEPS)
def test_any_observing_gives_the_numbers_of_prometheus_client(steps: list[tuple[str, float] | str]) -> None:
    """Law: the same for histograms, bucket by bucket."""
    ours = Histogram(Description("k", "histogram", "Observed.", ("a",)), (0.5, 1.0, 500.0))
    theirs = prometheus_client.Histogram(
        "k", "Observed.", ["a"], registry=CollectorRegistry(), buckets=(0.5, 1.0, 500.0)
    )
    for step in steps:
        if isinstance(step, str):
            ours.family()
        else:
            ours.observe(step[0], value=step[1])
            theirs.labels(step[0]).observe(step[1])

    family = ours.family()
    (expected,) = theirs.collect()
    wanted = {(s.name, frozenset(s.labels.items())): s.value for s in expected.samples if s.name != "k_created"}
    assert numbers(family) == wanted
    assert parse_page(family.text).raw == family.text
