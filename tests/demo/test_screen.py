"""The demo's arithmetic and looks, without its programs."""

from __future__ import annotations

import math
import re
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.history import METRICS, History, Reading
from demo.layout import plain_line, table
from demo.scrape import Histogram, Snapshot, read_snapshot
from demo.sparkline import sparkline
from demo.style import Span, plain, render
from demo.welcome import farewell, legend, links
from exporter.telemetry.names import STANDARD

pytestmark = pytest.mark.unit

INF: Final = math.inf
TOKENS, WAITING, TTFT, _, E2E = STANDARD
PAGE: Final = """\
# TYPE kthena:generation_tokens_total counter
kthena:generation_tokens_total{engine="0"} 40.0
kthena:generation_tokens_total{engine="1"} 2.0
# TYPE kthena:num_requests_waiting gauge
kthena:num_requests_waiting{engine="0"} 3.0
# TYPE kthena:time_to_first_token_seconds histogram
kthena:time_to_first_token_seconds_bucket{engine="0",le="0.1"} 1.0
kthena:time_to_first_token_seconds_bucket{engine="0",le="+Inf"} 2.0
kthena:time_to_first_token_seconds_count{engine="0"} 2.0
kthena:time_to_first_token_seconds_sum{engine="0"} 0.75
kthena:time_to_first_token_seconds_bucket{engine="1",le="0.1"} 1.0
kthena:time_to_first_token_seconds_bucket{engine="1",le="+Inf"} 1.0
kthena:time_to_first_token_seconds_count{engine="1"} 1.0
kthena:time_to_first_token_seconds_sum{engine="1"} 0.05
"""
READINGS: Final = tuple(
    Reading(metric, cells, (0.0, cells[0], cells[2]))
    for metric, cells in zip(
        METRICS,
        [
            (1043.2, 990.0, 1554.0),
            (0.0, 1.25, 12.0),
            (35.0, 30.0, 37.0),
            (0.5, 0.25, 1.0),
            (0.0452, 0.04, 0.12),
            (0.00234, 0.002, 0.0999),
            (2.0, 1.5, 12.34),
        ],
        strict=True,
    )
)
UNKNOWN: Final = tuple(Reading(metric, (None, None, None), (None,)) for metric in METRICS)


def snapshot(time: float, *, tokens: float = 0.0, waiting: float = 0.0, ttft: Histogram | None = None) -> Snapshot:
    return Snapshot(time, {TOKENS: tokens, WAITING: waiting}, {TTFT: ttft or Histogram()})


def reading(history: History, name: str) -> Reading:
    return next(each for each in history.readings() if each.metric.name == name)


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ({}, 0.5, None),
        ({1.0: 0.0, INF: 0.0}, 0.5, None),
        ({INF: 7.0}, 0.5, None),
        ({1.0: 0.0, INF: 7.0}, 0.5, 1.0),
        ({1.0: 10.0, INF: 10.0}, 0.5, 0.5),
        ({1.0: 0.0, 2.0: 10.0, INF: 10.0}, 0.5, 1.5),
        ({1.0: 5.0, 2.0: 5.0, 4.0: 10.0, INF: 10.0}, 0.95, 3.8),
        ({4.0: 10.0, 1.0: 5.0, INF: 10.0}, 0.5, 1.0),
        ({1.0: 5.0, 2.0: 9.0, INF: 10.0}, 0.95, 2.0),
    ],
)
def test_a_quantile_is_promqls(buckets: dict[float, float], share: float, expected: float | None) -> None:
    """It lies between a bucket's bounds, at the last finite one beyond, and nowhere without observations."""
    assert Histogram(buckets).quantile(share) == (None if expected is None else pytest.approx(expected))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_share_has_no_lower_quantile(counts: list[int], one: float, other: float) -> None:
    """Law: quantiles rise with their share, and never leave the bounds."""
    bounds = [*(float(bound) for bound in range(1, len(counts) + 1)), INF]
    totals = [float(sum(counts[:place])) for place in range(1, len(counts) + 1)]
    histogram = Histogram(dict(zip(bounds, [*totals, totals[-1] + 1.0], strict=True)))

    low, high = histogram.quantile(min(one, other)), histogram.quantile(max(one, other))

    assert low is not None
    assert high is not None
    assert 0.0 <= low <= high <= len(counts)


def test_a_histogram_since_another_has_only_what_came_later() -> None:
    """Counts and sum are differences; a bucket that is new starts from nothing."""
    older = Histogram({1.0: 2.0, INF: 3.0}, 4.0)
    newer = Histogram({0.5: 1.0, 1.0: 4.0, INF: 7.0}, 10.0)

    assert newer.since(older) == Histogram({0.5: 1.0, 1.0: 2.0, INF: 4.0}, 6.0)
    assert newer.since(older).mean == 1.5
    assert newer.since(newer).mean is None


def test_a_histogram_that_began_anew_counts_whole() -> None:
    """An engine that was restarted counts from zero: nothing is taken away."""
    fresh = Histogram({1.0: 1.0, INF: 1.0}, 0.5)

    assert fresh.since(Histogram({1.0: 9.0, INF: 9.0}, 9.0)) == fresh


def test_a_page_is_read_with_its_series_added_up() -> None:
    """Engines of one page count together, bucket by bucket."""
    seen = read_snapshot(PAGE, time=5.0)

    assert seen.values == {TOKENS: 42.0, WAITING: 3.0}
    assert seen.histograms == {TTFT: Histogram({0.1: 2.0, INF: 3.0}, 0.8)}


def test_a_rate_is_between_two_scrapes() -> None:
    """The last rate, the mean and the highest, in tokens a second; a reset is no negative rate."""
    history = History()
    for time, tokens in [(0.0, 100.0), (1.0, 200.0), (3.0, 800.0), (4.0, 50.0)]:
        history.add(snapshot(time, tokens=tokens))

    assert reading(history, TOKENS).cells == (50.0, 150.0, 300.0)
    assert reading(history, TOKENS).trend == (100.0, 300.0, 50.0)


def test_all_trends_begin_together() -> None:
    """With the second scrape, the first that a rate has; a gauge's trend stands below it, second by second."""
    history = History()
    for time in range(3):
        history.add(snapshot(float(time), tokens=100.0 * time, waiting=1.0))

    trends = [reading(history, name) for name in (TOKENS, WAITING)]
    assert [(each.trend, each.first) for each in trends] == [((100.0, 100.0), 1), ((1.0, 1.0), 1)]


def test_the_window_forgets() -> None:
    """After half a minute an observation or a high value is gone from the figures, after a minute from the trend."""
    history = History()
    slow = Histogram({1.0: 0.0, 2.0: 10.0, INF: 10.0}, 15.0)
    history.add(snapshot(0.0, waiting=9.0))
    for time in range(1, 61):
        history.add(snapshot(float(time), ttft=slow))
        if time == 30:
            assert reading(history, TTFT).cells == (1.5, 1.5, 1.95)
            assert reading(history, WAITING).cells[2] == 9.0

    assert reading(history, TTFT).cells == (None, None, None)
    assert reading(history, WAITING).cells == (0.0, 0.0, 0.0)
    assert len(reading(history, WAITING).trend) == 60
    assert reading(history, WAITING).first == 1


def test_before_two_scrapes_nothing_is_known_but_gauges() -> None:
    """Rates and latencies are of a time, and there is none yet; absent metrics are never known."""
    history = History()
    history.add(snapshot(0.0, tokens=5.0, waiting=2.0))

    assert reading(history, WAITING).cells == (2.0, 2.0, 2.0)
    for name in (TOKENS, TTFT, E2E, "kthena:kv_cache_usage_ratio"):
        assert reading(history, name).cells == (None, None, None)


@pytest.mark.parametrize(
    ("values", "width", "expected"),
    [
        ([], 8, ""),
        ([1.0], 0, ""),
        ([0.0, 0.0], 8, "▁▁"),
        ([0.0, 1.0, 2.0, 7.0], 8, "▁▂▃█"),
        ([None, 7.0, None, 0.0], 8, " █ ▁"),
        ([None, None], 8, "  "),
        ([0.0, 0.0, 7.0, 7.0], 4, "▁█"),
        ([None, 0.0, 7.0, 7.0], 4, "▁█"),
        ([float(n) for n in range(8)], 4, "▂▄▆█"),
    ],
)
def test_a_sparkline_rises_from_zero(values: list[float | None], width: int, expected: str) -> None:
    """Zero is the lowest block and the highest value the full one; the unknown is a gap."""
    assert sparkline(values, width, span=8) == expected


def test_a_sparkline_only_moves_on() -> None:
    """Values share a character by their place, so that later ones do not change it."""
    values = [0.0, 7.0, 7.0, 0.0, 7.0, 7.0]

    assert sparkline(values, 3, span=6) == "▅▅█"
    assert sparkline([*values[1:], 0.0], 3, span=6, first=1) == "▅█▁"
    assert sparkline([*values[2:], 0.0, 7.0], 3, span=6, first=2) == "▅█▅"


def test_a_sparkline_may_have_a_known_top() -> None:
    """A ratio is drawn against one, not against its own highest value."""
    assert sparkline([0.0, 0.5, 1.0, 3.0], 4, span=4, top=1.0) == "▁▅██"


def test_the_screen_at_80_columns() -> None:
    """Every metric stands there by its full name, with three figures and a trend."""
    assert plain(table(READINGS, 80)) == (
        "  Load over 30 s                            now     mean      max   last minute\n"
        "  kthena:generation_tokens_total        1,043/s    990/s  1,554/s   █\n"
        "  kthena:num_requests_waiting                 0      1.2       12   █\n"
        "  kthena:num_requests_running                35       30       37   █\n"
        "  kthena:kv_cache_usage_ratio               50%      25%     100%   ▅\n"
        "\n"
        "  Latency over 30 s                        mean      p50      p95   p95\n"
        "  kthena:time_to_first_token_seconds    45.2 ms  40.0 ms   120 ms   █\n"
        "  kthena:time_per_output_token_seconds  2.34 ms  2.00 ms  99.9 ms   █\n"
        "  kthena:e2e_request_latency_seconds     2.00 s   1.50 s   12.3 s   █\n"
        "\n"
        "  One GET /metrics?name[]=… a second. Ctrl-C or q ends it.\n"
    )


def test_the_screen_at_40_columns() -> None:
    """A narrow terminal gets short names and the same figures."""
    assert plain(table(READINGS, 40)) == (
        " Load        now   mean    max 1 minute\n"
        " tokens/s  1,043    990  1,554 █\n"
        " waiting       0    1.2     12 █\n"
        " running      35     30     37 █\n"
        " KV cache    50%    25%   100% ▅\n"
        "\n"
        " Latency    mean    p50    p95 p95\n"
        " TTFT     45.2ms 40.0ms  120ms █\n"
        " TPOT     2.34ms 2.00ms 99.9ms █\n"
        " e2e       2.00s  1.50s  12.3s █\n"
        "\n"
        " Ctrl-C or q ends it.\n"
    )


@pytest.mark.parametrize("width", [40, 78, 79, 80, 100, 200])
def test_a_full_minute_fits(width: int) -> None:
    """No line is wider than the terminal, however long the trends."""
    full = tuple(Reading(each.metric, each.cells, (1.0,) * 60, first=7) for each in READINGS)

    lines = plain(table(full, width)).splitlines()

    assert max(map(len, lines)) <= width
    assert sum("█" in line for line in lines) == len(METRICS)


@pytest.mark.parametrize("width", [1, 10, 30])
def test_a_terminal_may_be_narrower_than_anything(width: int) -> None:
    """Lines are cut at its edge."""
    assert all(len(render(line, colour=False, width=width)) <= width for line in table(READINGS, width))


def test_the_unknown_is_a_dash() -> None:
    """Not a zero, which would be a claim."""
    assert plain(table(UNKNOWN, 80)).count(" -") == 3 * len(METRICS)


def test_a_plain_line_says_it_all() -> None:
    """A log gets one line with every figure, latencies as mean, p50 and p95 in one unit."""
    assert plain_line(4.2, READINGS) == (
        "   4 s  tokens/s 1,043  waiting 0  running 35  KV cache 50%"
        "  TTFT 45.2/40.0/120 ms  TPOT 2.34/2.00/99.9 ms  e2e 2.00/1.50/12.3 s"
    )
    assert plain_line(0.0, UNKNOWN).endswith("KV cache -  TTFT -  TPOT -  e2e -")


def test_styles_are_escape_sequences_that_end_with_their_span() -> None:
    """A cut never leaves a style open, and without colour there is only text."""
    line = (Span("ab", "bold"), Span("cd"), Span("ef", "dim"))

    assert render(line, colour=True, width=5) == "\x1b[1mab\x1b[0mcd\x1b[2me\x1b[0m"
    assert render(line, colour=True, width=2) == "\x1b[1mab\x1b[0m"
    assert render(line, colour=False) == "abcdef"


def test_links_lead_to_everything_there_is() -> None:
    """Without a Prometheus one line says how to get it."""
    with_one = plain(links("http://h:1", "http://h:2/graph"))
    longest = plain(links("http://h:1", "http://127.0.0.1:65535/classic/graph"))
    without = plain(links("http://h:1", None))

    assert re.search("http://h:2/graph\n +query kthena:num_requests_running\n", with_one)
    assert max(len(line) for line in f"{longest}{without}".splitlines() if "rometheus" in line or "query" in line) < 80
    for text in (with_one, without):
        for url in (
            "http://h:1/\n",
            "http://h:1/metrics\n",
            "http://h:1/ready\n",
            "curl -g 'http://h:1/metrics?name[]=",
        ):
            assert url in text
    assert "apt-get install prometheus" in without


def test_the_legend_names_every_metric() -> None:
    """What a plain line shortens is explained once."""
    text = plain(legend())

    assert all(name in text for name in STANDARD)


def test_the_farewell_sums_up() -> None:
    """It counts what was watched, and nothing when there was nothing."""
    history = History()
    assert plain(farewell(history)) == "\n  All programs have ended.\n\n"

    history.add(snapshot(0.0, tokens=1000.0))
    history.add(snapshot(1.0, tokens=2500.0))

    assert "1,500 tokens and 0 finished requests in 2 scrapes." in plain(farewell(history))
