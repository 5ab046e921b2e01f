"""OpenMetrics, turned into text format 0.0.4: same series, same values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.page import openmetrics
from exporter.page.errors import Reason, ScrapeError
from exporter.page.parse import InvalidPageError, parse_page

pytestmark = pytest.mark.unit

LIMIT = 1_000_000
OPENMETRICS = """\
# HELP tokens Tokens.
# TYPE tokens counter
tokens_total{model_name="m"} 7.0 1764000000.123 # {trace_id="a1"} 1.0 1764000000.0
tokens_created{model_name="m"} 1764000000.5 1764000000.123
# HELP ttft_seconds Time to the first token.
# TYPE ttft_seconds histogram
# UNIT ttft_seconds seconds
ttft_seconds_bucket{le="0.5"} 1.0 # {trace_id="b2"} 0.3
ttft_seconds_bucket{le="+Inf"} 2.0
ttft_seconds_count 2.0
ttft_seconds_sum 0.75
ttft_seconds_created 1764000000.5
# HELP build Version.
# TYPE build info
build_info{version="0.32"} 1.0
# HELP state State.
# TYPE state stateset
state{state="awake"} 1.0
state{state="asleep"} 0.0
# HELP queue Queue.
# TYPE queue gaugehistogram
queue_bucket{le="1.0"} 4.0
queue_bucket{le="+Inf"} 5.0
queue_gcount 5.0
queue_gsum 12.0
# EOF
"""
TEXT = """\
# HELP tokens_total Tokens.
# TYPE tokens_total counter
tokens_total{model_name="m"} 7.0 1764000000123
# HELP tokens_created Tokens.
# TYPE tokens_created gauge
tokens_created{model_name="m"} 1764000000.5 1764000000123
# HELP ttft_seconds Time to the first token.
# TYPE ttft_seconds histogram
ttft_seconds_bucket{le="0.5"} 1.0
ttft_seconds_bucket{le="+Inf"} 2.0
ttft_seconds_count 2.0
ttft_seconds_sum 0.75
# HELP ttft_seconds_created Time to the first token.
# TYPE ttft_seconds_created gauge
ttft_seconds_created 1764000000.5
# HELP build_info Version.
# TYPE build_info gauge
build_info{version="0.32"} 1.0
# HELP state State.
# TYPE state gauge
state{state="awake"} 1.0
state{state="asleep"} 0.0
# HELP queue Queue.
# TYPE queue histogram
queue_bucket{le="1.0"} 4.0
queue_bucket{le="+Inf"} 5.0
# HELP queue_gcount Queue.
# TYPE queue_gcount gauge
queue_gcount 5.0
# HELP queue_gsum Queue.
# TYPE queue_gsum gauge
queue_gsum 12.0
"""


def as_text_format(body: bytes) -> bytes:
    return openmetrics.as_text_format(body, limit=LIMIT)


def test_all_types_have_a_place_in_the_older_format() -> None:
    """Exemplars and units go, _created and the sums of gauge histograms become gauges, timestamps milliseconds."""
    text = as_text_format(OPENMETRICS.encode())

    assert text.decode() == TEXT


def test_the_result_is_a_valid_page() -> None:
    """Nothing needs mending, and each family is found under its name."""
    page = parse_page(TEXT.encode())

    assert (page.raw, page.repairs) == (TEXT.encode(), {})
    assert [family.full_name for family in page.families()] == [
        "tokens_total",
        "tokens_created",
        "ttft_seconds",
        "ttft_seconds_created",
        "build_info",
        "state",
        "queue",
        "queue_gcount",
        "queue_gsum",
    ]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("# TYPE g gauge\ng 1\n", "# HELP g \n# TYPE g gauge\ng 1\n"),
        ("# TYPE g gauge\ng NaN\n", "# HELP g \n# TYPE g gauge\ng NaN\n"),
        ("# TYPE g gauge\ng -Inf\n", "# HELP g \n# TYPE g gauge\ng -Inf\n"),
        ("# TYPE g gauge\ng 1e+20\n", "# HELP g \n# TYPE g gauge\ng 1e+20\n"),
        ("# TYPE g gauge\ng 1 0.001\n", "# HELP g \n# TYPE g gauge\ng 1 1\n"),
        ("# TYPE g gauge\n", "# HELP g \n# TYPE g gauge\n"),
        ("# TYPE u unknown\nu 1\n", "# HELP u \n# TYPE u untyped\nu 1\n"),
        ("u 1\n", "# HELP u \n# TYPE u untyped\nu 1\n"),
        (
            '# TYPE s summary\ns{quantile="0.9"} 1\ns_count 2\ns_sum 3\n',
            '# HELP s \n# TYPE s summary\ns{quantile="0.9"} 1\ns_count 2\ns_sum 3\n',
        ),
        (
            '# HELP g C:\\\\dir\\n\\"q\\"\n# TYPE g gauge\ng{a="C:\\\\dir\\n\\"q\\""} 1\n',
            '# HELP g C:\\\\dir\\n"q"\n# TYPE g gauge\ng{a="C:\\\\dir\\n\\"q\\""} 1\n',
        ),
        (
            "# TYPE n histogram\nn {count:3,sum:5,schema:0,zero_threshold:0,zero_count:0}\n",
            "# HELP n \n# TYPE n histogram\n",
        ),
        ("", ""),
    ],
)
def test_each_line_is_turned_into_the_older_form(given: str, text: str) -> None:
    """Values, escapes and empty families included; the end mark goes."""
    turned = as_text_format(f"{given}# EOF\n".encode())

    assert turned.decode() == text
    assert parse_page(turned).raw == turned


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"# TYPE g gauge\ng 1\n",
        b"# TYPE g gauge\ng 1\n# EOF\ng 2\n",
        b"# TYPE g gauge\n# TYPE g gauge\ng 1\n# EOF\n",
        b"# TYPE g gouge\ng 1\n# EOF\n",
        b"# TYPE g gauge\ng 1 soon\n# EOF\n",
        b"# TYPE g gauge\ng 1 inf\n# EOF\n",
        b"# TYPE g gauge\ng 1 " + b"1" * 100 + b"\n# EOF\n",
        b"# TYPE g gauge\ng  1\n# EOF\n",
        b"# a comment\n# EOF\n",
        b'g{a="b} 1\n# EOF\n',
        b"g 1\x00\n# EOF\n",
        b"<html></html>\n",
        b"\xff\n# EOF\n",
    ],
)
def test_invalid_text_is_refused(body: bytes) -> None:
    """The engine's page cannot be read; the reason says so, and where."""
    with pytest.raises(ScrapeError) as caught:
        as_text_format(body)

    assert caught.value.reason is Reason.INVALID
    assert caught.value.detail.startswith("not valid OpenMetrics text: line ")


@pytest.mark.parametrize("line", [b"g one", b"g 1.0.0", b'g{a="1",a="2"} 1', b'g{a="\xff"} 1', b"g 1 -1"])
def test_what_is_wrong_in_both_formats_is_found_behind(line: bytes) -> None:
    """Values, labels and encoding are checked on the result, as those of any page are."""
    with pytest.raises(InvalidPageError):
        parse_page(as_text_format(b"# TYPE g gauge\n" + line + b"\n# EOF\n"))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("# TYPE c counter\nc 1\n", "# HELP c_total \n# TYPE c_total counter\nc 1\n"),
        ("# TYPE c_total counter\nc_total 1\n", "# HELP c_total \n# TYPE c_total counter\nc_total 1\n"),
        ('# TYPE h histogram\nh_bucket{le="1.0"} 1\n', '# HELP h \n# TYPE h histogram\nh_bucket{le="1.0"} 1\n'),
    ],
)
def test_what_prometheus_takes_is_passed_on(given: str, text: str) -> None:
    """Rules that its own reader does not check are not checked here."""
    assert as_text_format(f"{given}# EOF\n".encode()).decode() == text


def test_a_text_that_costs_too_much_is_refused() -> None:
    """Before it is read, or when it grows: a HELP is repeated for each family that comes apart."""
    long = b"# HELP h " + b"x" * (LIMIT // 2) + b"\n# TYPE h histogram\nh_count 1\nh_created 1\n"
    for body in (b"g 1\n" * (LIMIT // 60), long + b"g 1\n# EOF\n"):
        with pytest.raises(ScrapeError) as caught:
            as_text_format(body)

        assert caught.value.reason is Reason.TOO_LARGE


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """The page above with a few bytes changed, cut out or put in."""
    mutant = bytearray(OPENMETRICS.encode())
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, len(mutant) - 1))
        length = draw(st.integers(0, 6))
        mutant[position : position + length] = draw(
            st.binary(max_size=2) | st.sampled_from([b"{", b'"', b" ", b"\n", b"#", b"\\", b"="])
        )
    return bytes(mutant)


@given(mutants())
def test_no_text_breaks_the_reader(body: bytes) -> None:
    """Law: a damaged page is either read or refused, and what was read is judged as any other page."""
    try:
        parse_page(as_text_format(body))
    except (ScrapeError, InvalidPageError):
        return
