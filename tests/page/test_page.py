"""The page: valid text goes through to the byte, other text is mended or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from exporter.page.errors import ScrapeError
from exporter.page.family import sample_lines
from exporter.page.parse import InvalidPageError, parse_page
from tests.harness.strategies import colliding_pages, mutated_pages, pages, stamped_pages

if TYPE_CHECKING:
    from exporter.page.page import Page

pytestmark = pytest.mark.unit

PAGE = b"""\
# HELP vllm:num_requests_waiting Number of requests waiting.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
# HELP vllm:num_requests_waiting_by_reason By reason.
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{reason="capacity"} 2.0
# HELP vllm:e2e_request_latency_seconds Latency.
# TYPE vllm:e2e_request_latency_seconds histogram
vllm:e2e_request_latency_seconds_bucket{le="0.3",model_name="m"} 1.0
vllm:e2e_request_latency_seconds_bucket{le="+Inf",model_name="m"} 2.0
vllm:e2e_request_latency_seconds_count{model_name="m"} 2.0
vllm:e2e_request_latency_seconds_sum{model_name="m"} 0.75
# HELP vllm:iteration_tokens_total Tokens by step.
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{le="+Inf"} 0.0
vllm:iteration_tokens_total_count 0.0
vllm:iteration_tokens_total_sum 0.0
bare_untyped 42 1764000000000
"""


def text_of(page: Page, name: str) -> bytes:
    """Return the lines of a family that must be there."""
    family = page.get(name)
    assert family is not None
    return family.text


def test_families_are_found_by_whole_names() -> None:
    """A family ends where another begins, even when one name begins like the other."""
    page = parse_page(PAGE)

    assert [family.full_name for family in page.families()] == [
        "vllm:num_requests_waiting",
        "vllm:num_requests_waiting_by_reason",
        "vllm:e2e_request_latency_seconds",
        "vllm:iteration_tokens_total",
        "bare_untyped",
    ]
    assert page.samples == 10
    assert page.raw == PAGE
    assert text_of(page, "vllm:num_requests_waiting") == b"".join(PAGE.splitlines(keepends=True)[:3])
    assert text_of(page, "bare_untyped") == b"bare_untyped 42 1764000000000\n"


def test_a_page_of_the_same_shape_fits() -> None:
    """A later page that differs in values only is recognised, and split in the same places."""
    shape = parse_page(PAGE).shape
    later = PAGE.replace(b" 3.0\n", b" 1.25e+09\n").replace(b" 0.75\n", b" 1234567.5\n")

    page = shape.fit(later)

    assert page is not None
    assert page.raw == later
    assert [family.text for family in page.families()] == [family.text for family in parse_page(later).families()]


@pytest.mark.parametrize(
    "change",
    [
        (b'engine="0"', b'engine="1"'),
        (b" 3.0\n", b"\n"),
        (b" 3.0\n", b" 3.0.0\n"),
        (b" 3.0\n", b" --3\n"),
        (b" 3.0\n", b" 3.0 4.0 5\n"),
        (b"reason=", b"rea5on="),
        (b"\nbare_untyped", b"\n1bare_untyped"),
        (b" 3.0\n", b" 1e999\n"),
        (b" 3.0\n", b" " + b"9" * 400 + b"\n"),
    ],
)
def test_a_page_of_another_shape_does_not_fit(change: tuple[bytes, bytes]) -> None:
    """Whatever is not a mere change of values is read in full."""
    assert parse_page(PAGE).shape.fit(PAGE.replace(*change, 1)) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"foo 1\nfoo 2", "line 2: the page ends in the middle of a line"),
        (b"foo 1\nfoo \n", "line 2: not a sample, HELP or TYPE line of the text format"),
        (b"foo 1.2.3\n", "line 1: not a sample"),
        (b"foo{a=b} 1\n", "line 1: not a sample"),
        (b'foo{a="b"', "line 1: the page ends"),
        (b'foo{a="b} 1\n', "line 1: not a sample"),
        (b'# HELP b {a,a}\nfoo{a="1",a="2"} 1\n', "line 2: a label name that is repeated or reserved"),
        (b'foo{__name__="x"} 1\n', "line 1: a label name that is repeated or reserved"),
        (b"# TYPE foo sometype\n", "line 1: not a sample"),
        (b"# HELP 1foo text\n", "line 1: not a sample"),
        (b"#TYPE foo sometype\n", "line 1: not a sample"),
        (b"#HELP 1foo text\n", "line 1: not a sample"),
        (b"foo 1\nfoo 2\nfoo 1e999\nfoo 4\n", "line 3: a value beyond the range of a float64"),
        (b"foo 1\r\n", "line 1: not a sample"),
        (b"foo 1\nfoo\x00 1\n", "line 2: a NUL byte"),
        (b'foo 1\nfoo{a="\xff"} 1\n', "line 2: not valid UTF-8"),
        (b'# TYPE h histogram\nh_bucket{le="low"} 1\n', "line 2: a bucket or quantile that is not a number"),
        (b'# TYPE a histogram\na_total 5\na_bucket{le="x"} 1\n', "line 3: a bucket or quantile that is not a number"),
        (b'a_bucket{le="x"} 1\n# TYPE a histogram\na_sum 1\n', "line 1: a bucket or quantile that is not a number"),
        (
            b'# TYPE a histogram\na_sum 1\n# TYPE a_bucket gauge\na_bucket{le="x"} 1\n',
            "line 4: a bucket or quantile that is not a number",
        ),
        (b'# TYPE s summary\ns{quantile="half"} 1\n', "line 2: a bucket or quantile that is not a number"),
        (b"<html></html>\n", "line 1: not a sample"),
    ],
)
def test_invalid_text_is_refused(text: bytes, problem: str) -> None:
    """The error says where and what, without the page's content."""
    with pytest.raises(InvalidPageError) as caught:
        parse_page(text)

    assert str(caught.value).startswith(problem)


def test_the_error_holds_nothing_of_the_page() -> None:
    """It is kept and logged: the text, or a family name of any length, is not."""
    name = b"h" * 200_000
    for text in (b'# TYPE %b histogram\n%b_bucket{le="x"} 1\n' % (name, name), name + b"\xff\n"):
        with pytest.raises(InvalidPageError) as caught:
            parse_page(text)

        assert len(str(caught.value)) < 100
        assert caught.value.__context__ is None


def test_a_bound_is_only_looked_for_in_samples() -> None:
    """HELP texts and other labels' values may look like a bucket's bound."""
    text = b'# HELP h the {le="low"} bucket\n# TYPE h histogram\nh_bucket{a="{le=",b="x",le="1.0"} 1\n'

    assert parse_page(text).raw == text


@pytest.mark.parametrize(
    "value", [b"1", b"-1", b"+1", b"1.", b".5", b"1e5", b"1E-05", b"NaN", b"nan", b"+Inf", b"-Inf", b"Inf", b"1e-400"]
)
def test_all_forms_of_numbers_are_valid(value: bytes) -> None:
    """What Prometheus reads as a float64 goes through as it stands."""
    assert parse_page(b"foo " + value + b"\n").raw == b"foo " + value + b"\n"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"# just a comment\n",
        b"# EOF\n",
        b"# HELP foo\n# TYPE foo gauge\n",
        b'foo{a="b",} 1\n',
        b"foo{} 1\n",
        b'foo { a = "b" , c = "d" } 1 123\n',
        b"#comment\nfoo\t1\n",
        b"# TYPE foo counter\nfoo_total 1\n",
    ],
)
def test_unusual_but_valid_text_goes_through(text: bytes) -> None:
    """What the format allows is not rewritten."""
    assert parse_page(text).raw == text


def test_a_duplicate_family_is_merged() -> None:
    """Go's readers fail a page with a second HELP or TYPE line: samples join the first."""
    block = b'# HELP foo Text.\n# TYPE foo gauge\nfoo{a="%d"} 1\n'

    page = parse_page(block % 1 + b"bar 2\n" + block % 2)

    assert page.raw == b'# HELP foo Text.\n# TYPE foo gauge\nfoo{a="1"} 1\nfoo{a="2"} 1\nbar 2\n'
    assert page.repairs == {"duplicate_family": 1}
    assert page.shape.fit(page.raw) is None


def test_a_type_after_samples_comes_first() -> None:
    """A TYPE line that follows its samples is put before them."""
    page = parse_page(b"foo 1\nbar 2\n# TYPE foo gauge\nfoo 3\n")

    assert page.raw == b"# TYPE foo gauge\nfoo 1\nfoo 3\nbar 2\n"


@pytest.mark.parametrize(
    ("text", "mended", "repairs"),
    [
        (
            b'# TYPE h histogram\nh_bucket{le="1"} 1\nb 2\nh_sum 3\nh_count 4\n',
            b'# TYPE h histogram\nh_bucket{le="1"} 1\nh_sum 3\nh_count 4\nb 2\n',
            {"duplicate_family": 1},
        ),
        (
            b"s_count 1\n# TYPE s summary\ns_sum 2\n",
            b"# TYPE s summary\ns_count 1\ns_sum 2\n",
            {"duplicate_family": 1},
        ),
        (
            b"# TYPE h histogram\nh_sum 1\n# HELP h_sum x\n# TYPE h_sum gauge\nh_sum 2\n",
            b"# TYPE h histogram\nh_sum 1\nh_sum 2\n",
            {"shadowed_header": 1, "duplicate_family": 1},
        ),
        (
            b"# TYPE h_sum gauge\n# note\n# TYPE h histogram\nh_sum 1\n",
            b"# note\n# TYPE h histogram\nh_sum 1\n",
            {"shadowed_header": 1},
        ),
        (
            b'# TYPE h_sum histogram\nh_sum_bucket{le="1"} 1\n# TYPE h histogram\nh_sum 1\n',
            b'h_sum_bucket{le="1"} 1\n# TYPE h histogram\nh_sum 1\n',
            {"shadowed_header": 1},
        ),
    ],
)
def test_what_is_named_as_a_series_of_a_family_belongs_to_it(
    text: bytes, mended: bytes, repairs: dict[str, int]
) -> None:
    """As expfmt has it: a histogram's or summary's series are its own, wherever they stand."""
    page = parse_page(text)

    assert (page.raw, page.repairs) == (mended, repairs)
    assert parse_page(page.raw).repairs == {}


def test_a_header_without_its_blank_is_a_header() -> None:
    """To Prometheus `#TYPE` is a comment, to expfmt a header: with the blank it is one to both."""
    page = parse_page(b"#HELP foo x\n#TYPE foo gauge\nfoo 1\n#TYPES a\n#HELP\n")

    assert page.raw == b"# HELP foo x\n# TYPE foo gauge\nfoo 1\n#TYPES a\n#HELP\n"
    assert page.repairs == {"header_blank": 2}
    assert page.kind_of("foo") == "gauge"


@pytest.mark.parametrize(
    "text", [b'foo{a="\\d"} %d\n', b"foo %d \nbar 1\n", b"#TYPE foo gauge\nfoo %d\n", b"# HELP foo \\d\nfoo %d\n"]
)
def test_a_page_whose_lines_were_mended_fits_the_next_one(text: bytes) -> None:
    """Its shape is that of the mended text; the repairs are counted each time."""
    first = parse_page(text % 1)

    second = parse_page(text % 2, first.shape)

    assert second.shape is first.shape
    assert second.repairs == first.repairs != {}
    assert (second.raw, text_of(second, "foo")) == (parse_page(text % 2).raw, text_of(parse_page(text % 2), "foo"))


def test_comments_are_not_mended() -> None:
    """Nobody reads escapes there."""
    text = b"# C:\\dir\n# HELPFUL \\d\nfoo 1\n"

    assert parse_page(text).raw == text


@pytest.mark.slow
def test_many_unusual_numbers_are_read_in_one_go() -> None:
    """Lines are counted for an error alone: counted at each of these, the page would take an hour."""
    text = b"".join(b"foo_%d 1e-400\n" % i for i in range(600_000))

    assert parse_page(text).samples == 600_000


def test_lone_backslashes_are_escaped() -> None:
    r"""`\d` reads as `\d` in Prometheus and fails expfmt: `\\d` reads the same in both."""
    page = parse_page(b'# HELP foo C:\\dir\nfoo{path="C:\\dir\\\\x\\n"} 1\n')

    assert page.raw == b'# HELP foo C:\\\\dir\nfoo{path="C:\\\\dir\\\\x\\n"} 1\n'
    assert page.repairs == {"escape": 2}


def test_families_can_be_left_out() -> None:
    """`without` takes whole families and leaves the others as they are."""
    page = parse_page(PAGE).without(["vllm:e2e_request_latency_seconds", "bare_untyped"])

    assert b"e2e" not in page.raw
    assert page.samples == 5
    assert [family.full_name for family in page.families()][-1] == "vllm:iteration_tokens_total"


def test_captured_pages_go_through_untouched(captures: dict[str, bytes]) -> None:
    """Every byte of a real vLLM's pages is passed on, and each sample is found."""
    for raw in captures.values():
        page = parse_page(raw)
        assert page.raw == raw
        assert b"".join(family.text for family in page.families()) == raw
        parsed = [sample for family in text_string_to_metric_families(raw.decode()) for sample in family.samples]
        ours = [sample for family in page.families() for sample in family.samples]
        assert [(s.name, s.labels, s.value) for s in parsed] == [(s.name, s.labels, s.value) for s in ours]


@given(pages())
@example(b"# HELP foo in version 5\n# TYPE foo gauge\nfoo 1\n")
@example(b"foo 1 1700000000000\nfoo_5 3\n")
def test_any_valid_page_goes_through_byte_for_byte(raw: bytes) -> None:
    """Law: a valid page is passed on as it is, and fits its own shape."""
    page = parse_page(raw)

    assert page.raw == raw
    assert page.repairs == {}
    assert not page.shape.families or b"".join(family.text for family in page.families()) == raw
    again = page.shape.fit(raw)
    assert again is not None
    assert [family.text for family in again.families()] == [family.text for family in page.families()]


@given(mutated_pages() | mutated_pages(stamped_pages()) | mutated_pages(colliding_pages()))
@example((b"foo 1 1700000000000\n", b"foo 1 1.5\n"))
@example((b"foo 1 1700000000000\n", b"foo 1 -5\n"))
@example((b"foo 1 1700000000000\n", b"foo 1 1e5\n"))
@example((b"foo 1 1700000000000\n", b"foo 1 99999999999999999999999\n"))
@example((b"foo NaN 1700000000000\n", b"foo NaN 1.5\n"))
@example((b"foo -Infinity 1700000000000\n", b"foo -Infinity 1.5\n"))
@example((b'foo{a="b"}+inf 1700000000000\n', b'foo{a="b"}+inf 1.5\n'))
@example((b"foo 5. 1700000000000\n", b"foo 5. 1.5\n"))
@example((b"foo 1\nbar 2\n", b"foo\x00bar 2\n"))
@example((b'foo{a="1"} 1\n', b'foo{a="1"}\n'))
@example((b"a 1\n# HELP b x 1\nb 1\n", b"a 1\n# HELP b x\nb 1\n"))
@example((b"# x\na 1\n# x\nb 2\n# x\nc 3\n", b"# x\na 123456\n# x\nb 2\n# x\nc 3\n"))
@example((b"a 1\n# since 10\n\n# x\nb 2\nc 3\n", b"a 1\n# since 9\n\n# x\nb 2\nc 3\n"))
@example((b"a 1\nb 2\nc 3\n", b"a %b.%b\nb 2\nc 3\n" % (b"1" * 60, b"2" * 60)))
@example((b"a 1\na 1\nb 2\n", b"a 1\na 100\nb 2\n"))
def test_fitting_a_shape_is_as_strict_as_reading_in_full(pair: tuple[bytes, bytes]) -> None:
    """Law: what the fast way accepts, the full way accepts, with the same families."""
    page, mutant = pair
    try:
        shape = parse_page(page).shape
    except InvalidPageError:
        return
    quick = shape.fit(mutant)
    if quick is None:
        return
    full = parse_page(mutant)
    assert full.raw == mutant
    assert [(f.full_name, f.kind, f.text) for f in quick.families()] == [
        (f.full_name, f.kind, f.text) for f in full.families()
    ]


@given(colliding_pages())
def test_a_mended_page_needs_no_more_mending(raw: bytes) -> None:
    """Law: what is passed on is valid as it stands, and has every series that came."""
    try:
        page = parse_page(raw)
    except InvalidPageError:
        return
    assert (parse_page(page.raw).raw, parse_page(page.raw).repairs) == (page.raw, {})
    assert sorted(sample_lines(page.raw)) == sorted(sample_lines(raw))
    assert page.samples == len(list(sample_lines(raw)))


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(raw: bytes) -> None:
    """Law: any bytes are either valid or refused with InvalidPageError."""
    try:
        parse_page(raw)
    except InvalidPageError:
        return


def test_a_page_of_a_known_shape_may_not_cost_more() -> None:
    """Its values may be longer than those of the page before."""
    limit = 3500
    page = parse_page(b"a 1\n" * 29, limit=limit)
    longer = b"a %b\n" % (b"1" * 60) * 29

    assert page.shape.fit(longer) is not None
    with pytest.raises(ScrapeError, match="costs more than 3500 bytes"):
        parse_page(longer, page.shape, limit=limit)
