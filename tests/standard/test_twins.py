"""Twins: the engine's own lines under a standard name, from the first source that fits."""

from __future__ import annotations

import re
from fractions import Fraction
from math import isfinite
from typing import cast

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from exporter.page.parse import parse_page
from exporter.standard.rules import Kind, Rule, RuleSet, Source
from exporter.standard.twins import Standardized, WrongType, standardize
from tests.harness.strategies import pages, values

pytestmark = pytest.mark.unit

HISTOGRAM = b"""\
# TYPE e:ms histogram
e:ms_bucket{a="x",le="500"} 1 1764000000000
e:ms_bucket{a="x",le="+Inf"} 3 1764000000000
e:ms_sum{a="x"} 2500 1764000000000
e:ms_count{a="x"} 3 1764000000000
"""


def standardized(page: bytes, *rules: Rule) -> Standardized:
    return standardize(parse_page(page), RuleSet("test", rules))


def twin(page: bytes, kind: Kind, *sources: Source | str, name: str = "k:x") -> str | None:
    """Return the twin's sample lines."""
    named = tuple(Source(source) if isinstance(source, str) else source for source in sources)
    families = standardized(page, Rule(name, kind, "Help.", named)).families
    if not families:
        return None
    (family,) = families
    found = re.match(r"((?:#.*\n)*)((?:.|\n)*)", family.text.decode())
    assert found is not None
    assert found[1].endswith(f"# TYPE {name} {kind}\n")
    return found[2]


def test_a_twin_is_the_same_lines_under_another_name() -> None:
    """Labels, their order, float text and timestamps are the engine's; the HELP names the source."""
    page = b'# HELP e:wait Waiting.\n# TYPE e:wait gauge\ne:wait{b="2",a="1"} 3.50 1764000000000\ne:wait{} 1e3\n'

    result = standardized(page, Rule("k:wait", "gauge", "Requests that wait.", (Source("e:wait"),)))

    (family,) = result.families
    assert (family.full_name, family.kind, result.missing, result.taken) == ("k:wait", "gauge", (), ())
    assert family.text.decode() == (
        "# HELP k:wait Requests that wait. (from e:wait)\n"
        "# TYPE k:wait gauge\n"
        'k:wait{b="2",a="1"} 3.50 1764000000000\n'
        "k:wait{} 1e3\n"
    )


def test_all_parts_of_a_histogram_are_renamed() -> None:
    """Buckets, sum and count go together."""
    assert twin(HISTOGRAM, "histogram", "e:ms") == HISTOGRAM.decode().partition("\n")[2].replace("e:ms", "k:x")


def test_only_names_are_replaced() -> None:
    """A label's value that looks like the name stays as it is."""
    assert twin(b'# TYPE e gauge\ne{e="e"} 1\ne{a="\\ne 2"} 2\n', "gauge", "e") == 'k:x{e="e"} 1\nk:x{a="\\ne 2"} 2\n'


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (b"# TYPE a gauge\na 1\n# TYPE b gauge\nb 2\n", "k:x 1\n"),
        (b"# TYPE b gauge\nb 2\n# TYPE a gauge\na 1\n", "k:x 1\n"),
        (b"# TYPE b gauge\nb 2\n", "k:x 2\n"),
        (b"# TYPE a gauge\n# TYPE b gauge\nb 2\n", "k:x 2\n"),
        (b"# TYPE a counter\na 1\n# TYPE b gauge\nb 2\n", "k:x 2\n"),
        (b"# TYPE c gauge\nc 1\n", None),
        (b"", None),
    ],
)
def test_the_first_source_that_is_present_wins(page: bytes, expected: str | None) -> None:
    """Never two, in the rule's order; one without samples or of the wrong type is not there."""
    assert twin(page, "gauge", "a", "b") == expected


@pytest.mark.parametrize(
    ("page", "kind", "source"),
    [
        (b'# TYPE e:waiting_by_reason gauge\ne:waiting_by_reason{r="c"} 2\n', "gauge", "e:waiting"),
        (b"# TYPE e:waiting gauge\ne:waiting 2\n", "gauge", "waiting"),
        (b"# TYPE e:waiting gauge\ne:waiting 2\n", "gauge", "e:waiting_by_reason"),
        (b'# TYPE e:tokens_total histogram\ne:tokens_total_bucket{le="+Inf"} 0\n', "counter", "e:tokens_total"),
        (b"# TYPE e:x_total counter\ne:x_total 1\n", "gauge", "e:x_total"),
        (b"# TYPE e:x summary\ne:x_sum 1\ne:x_count 1\n", "histogram", "e:x"),
        (HISTOGRAM, "gauge", "e:ms_sum"),
        (HISTOGRAM, "counter", "e:ms_bucket"),
        (b"# TYPE e:ms gauge\ne:ms 1\n", "counter", "e:ms_sum"),
        (b"e:x 1\n", "histogram", "e:x"),
    ],
)
def test_other_names_and_types_are_no_source(page: bytes, kind: Kind, source: str) -> None:
    """Whole names only, and a histogram is not a counter whatever its name ends in."""
    assert twin(page, kind, source) is None


@pytest.mark.parametrize(
    ("page", "source", "found"),
    [
        (b"# TYPE e summary\ne_sum 1\ne_count 1\n", Source("e"), [WrongType("k:x", "e", "summary", "histogram")]),
        (b"# TYPE e gauge\ne 1\n", Source("e", kind="counter"), [WrongType("k:x", "e", "gauge", "counter")]),
        (b"# TYPE e gauge\ne 1\n", Source("e", kind="gauge"), []),
        (b"# TYPE e gauge\n", Source("e"), []),
        (b"e 1\n", Source("e"), [WrongType("k:x", "e", "untyped", "histogram")]),
        (HISTOGRAM, Source("e:ms"), []),
        (HISTOGRAM, Source("e:ms_sum"), []),
    ],
)
def test_a_source_of_the_wrong_type_is_reported(page: bytes, source: Source, found: list[WrongType]) -> None:
    """It is there, and yet no source: its owner would look for the reason in vain."""
    result = standardized(page, Rule("k:x", "histogram", "Help.", (source,)))

    assert list(result.wrong_types) == found


def test_what_is_present_is_told_apart_from_what_is_missing() -> None:
    """A twin and a name that the engine has itself are present."""
    page = b"# TYPE e gauge\ne 1\n# TYPE k:x gauge\nk:x 9\n"
    rules = [
        Rule(name, "gauge", "Help.", (Source(source),)) for name, source in [("k:x", "e"), ("k:y", "e"), ("k:z", "f")]
    ]

    result = standardized(page, *rules)

    assert (result.present, result.missing) == (("k:y", "k:x"), ("k:z",))


@pytest.mark.parametrize("kind", ["counter", "gauge"])
def test_an_untyped_family_may_be_the_source_of_single_values(kind: Kind) -> None:
    """A family without a TYPE line gets the rule's type; it has no buckets."""
    assert twin(b"e:x 1\n", kind, "e:x") == "k:x 1\n"


def test_a_source_may_have_another_type() -> None:
    """A rule that says so takes a counter for a gauge."""
    page = b"# TYPE e:x counter\ne:x 1\n"

    assert twin(page, "gauge", Source("e:x", kind="counter")) == "k:x 1\n"


@pytest.mark.parametrize(
    ("part", "expected"),
    [("e:ms_sum", 'k:x{a="x"} 2500 1764000000000\n'), ("e:ms_count", 'k:x{a="x"} 3 1764000000000\n')],
)
def test_a_counter_may_be_part_of_a_histogram(part: str, expected: str) -> None:
    """Both parts only ever grow."""
    assert twin(HISTOGRAM, "counter", part) == expected


def test_comments_and_blank_lines_inside_a_block_are_left_out() -> None:
    """A twin has one HELP and one TYPE line, whatever stands between its source's samples."""
    page = b"# first\n# TYPE e gauge\n# note\ne 1\n# HELPFUL\n\ne 2 5\n# EOF\n"

    assert twin(page, "gauge", "e") == "k:x 1\nk:x 2 5\n"


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ('e{p="",q="0"} 3\ne{p="1",q="0"} 1\ne{p="2",q="0"} 2\n', 'k:x{p="",q="0"} 3\n'),
        ('e{q="0"} 3\n', 'k:x{q="0"} 3\n'),
        ('e{p="1"} 1\n', None),
    ],
)
def test_where_keeps_the_samples_with_these_labels(samples: str, expected: str | None) -> None:
    """A sample with another value is left out; one without the label passes."""
    page = b"# TYPE e gauge\n" + samples.encode()

    assert twin(page, "gauge", Source("e", where={"p": ""})) == expected


def test_where_means_the_value_and_not_its_spelling() -> None:
    """A rule has the value as people read it, the page has it escaped."""
    page = b'# TYPE e gauge\ne{p="C:\\\\\\"x\\""} 1\ne{p="C:"} 2\n'

    assert twin(page, "gauge", Source("e", where={"p": 'C:\\"x"'})) == 'k:x{p="C:\\\\\\"x\\""} 1\n'


def test_a_source_without_a_sample_that_passes_is_not_there() -> None:
    """The next one is taken instead."""
    page = b'# TYPE a gauge\na{p="1"} 1\n# TYPE b gauge\nb 2\n'

    assert twin(page, "gauge", Source("a", where={"p": ""}), "b") == "k:x 2\n"


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (['{tp="0"} 5', '{tp="1"} 5'], ['{tp="0"} 5']),
        (['{tp="10"} 6', '{tp="9"} 5'], ['{tp="9"} 5']),
        (['{tp="0",dp="0"} 1', '{tp="1",dp="0"} 1', '{dp="1",tp="1"} 2'], ['{tp="0",dp="0"} 1', '{dp="1",tp="1"} 2']),
        (['{tp="1",pp="0"} 1', '{tp="0",pp="1"} 2'], ['{tp="0",pp="1"} 2']),
        (['{tp="1"} 1', " 2"], [" 2"]),
        (['{tp="%s"} 1' % ("2" * 5_000), '{tp="%s"} 2' % ("1" * 5_000)], ['{tp="%s"} 2' % ("1" * 5_000)]),
        (['{tp="007"} 1', '{tp="10"} 2'], ['{tp="007"} 1']),
    ],
)
def test_of_copies_only_the_lowest_rank_is_kept(samples: list[str], expected: list[str]) -> None:
    """Ranks are compared as numbers; labels that number no copies keep their samples apart."""
    page = "# TYPE e gauge\n" + "".join(f"e{sample}\n" for sample in samples)

    lines = twin(page.encode(), "gauge", Source("e", copies=("tp", "pp")))

    assert lines == "".join(f"k:x{sample}\n" for sample in expected)


def test_the_buckets_of_a_histogram_are_no_copies() -> None:
    """Each bucket of the lowest rank stays."""
    series = 'e_bucket{le="1",tp="%d"} 1\ne_bucket{le="+Inf",tp="%d"} 1\ne_sum{tp="%d"} 1\ne_count{tp="%d"} 1\n'
    page = "# TYPE e histogram\n" + series % (1, 1, 1, 1) + series % (0, 0, 0, 0)

    lines = twin(page.encode(), "histogram", Source("e", copies=("tp",)))

    assert lines == (series % (0, 0, 0, 0)).replace("e_", "k:x_")


def test_a_scaled_histogram_has_scaled_bounds_and_sum() -> None:
    """Milliseconds become seconds; counts, +Inf and timestamps stay."""
    assert twin(HISTOGRAM, "histogram", Source("e:ms", scale=0.001)) == (
        'k:x_bucket{a="x",le="0.5"} 1 1764000000000\n'
        'k:x_bucket{a="x",le="+Inf"} 3 1764000000000\n'
        'k:x_sum{a="x"} 2.5 1764000000000\n'
        'k:x_count{a="x"} 3 1764000000000\n'
    )


@pytest.mark.parametrize(
    ("bound", "scale", "expected"),
    [
        ("100000", 0.000001, "0.1"),
        ("9", 0.001, "0.009"),
        ("0.3", 10.0, "3.0"),
        ("1e5", 1e-6, "0.1"),
        ("1e300", 1e-6, "1e+294"),
        ("+Inf", 1e-6, "+Inf"),
        ("inf", 2.0, "inf"),
    ],
)
def test_a_scaled_bound_is_what_people_would_write(bound: str, scale: float, expected: str) -> None:
    """Numbers are multiplied as they are written, not as binary fractions near them."""
    page = f'# TYPE e histogram\ne_bucket{{le="{bound}"}} 1\n'.encode()

    assert twin(page, "histogram", Source("e", scale=scale)) == f'k:x_bucket{{le="{expected}"}} 1\n'


@given(values(), st.floats(min_value=1e-12, max_value=1e12, exclude_min=True))
def test_a_scaled_value_is_the_exact_product(value: str, scale: float) -> None:
    """Law: the float64 nearest to the product of the decimal numbers, in its shortest form; NaN and Inf stay."""
    lines = twin(f"e {value}\n".encode(), "gauge", Source("e", scale=scale))

    if not isfinite(float(value)) or scale == 1.0:
        assert lines == f"k:x {value}\n"
    else:
        product = Fraction(repr(float(value))) * Fraction(repr(scale))
        assume(abs(product) < 10**308)
        assert lines is not None
        scaled = lines.split()[1]
        assert (float(scaled), scaled) == (float(product), repr(float(scaled)))


def test_only_the_bound_itself_is_scaled() -> None:
    """A label whose name or value looks like a bound is left alone."""
    page = b'# TYPE e histogram\ne_bucket{scale="10",a="x,le=",b="7",le="10"} 1\n'

    assert twin(page, "histogram", Source("e", scale=0.1)) == 'k:x_bucket{scale="10",a="x,le=",b="7",le="1.0"} 1\n'


@pytest.mark.parametrize("name", ["e", "e_count", "e_bucket", "e_sum"])
def test_a_scaled_gauge_has_a_scaled_value(name: str) -> None:
    """Also when its name ends as a histogram's part; NaN and Inf stay as they are."""
    page = f'# TYPE {name} gauge\n{name}{{a="b"}} 50 7\n{name} NaN\n{name}{{a="c"}} -Inf\n'.encode()

    lines = twin(page, "gauge", Source(name, scale=0.01))

    assert lines == 'k:x{a="b"} 0.5 7\nk:x NaN\nk:x{a="c"} -Inf\n'


def test_a_name_that_the_engine_has_is_left_to_it() -> None:
    """Two families of one name would fail the page; the skipped name is reported."""
    page = b"# TYPE e gauge\ne 1\n# TYPE k:x gauge\nk:x 9\n"
    rules = [Rule(name, "gauge", "Help.", (Source(source),)) for name, source in [("k:x", "e"), ("k:y", "f")]]

    result = standardized(page, *rules)

    assert (result.families, result.missing, result.taken) == ((), ("k:y",), ("k:x",))


@pytest.mark.parametrize(
    ("page", "name", "kind"),
    [
        (b"# TYPE k:h_count gauge\nk:h_count 1\n", "k:h", "histogram"),
        (b"k:h_bucket 1\n", "k:h", "histogram"),
        (b"# TYPE k:h histogram\nk:h_bucket 1\n", "k:h_sum", "gauge"),
        (b"# TYPE k:h summary\nk:h_sum 1\n", "k:h_count", "gauge"),
        (b"# TYPE k:h_sum gauge\n", "k:h", "histogram"),
    ],
)
def test_a_name_of_which_the_engine_has_a_series_is_left_to_it(page: bytes, name: str, kind: Kind) -> None:
    """The series would be there twice, or under two types; the standard metric itself is missing."""
    source = b"# TYPE e %b\ne%b 1\n" % (kind.encode(), b"_count" if kind == "histogram" else b"")

    result = standardized(page + source, Rule(name, kind, "Help.", (Source("e"),)))

    assert (result.families, result.taken, result.missing, result.present) == ((), (name,), (name,), ())


@pytest.mark.parametrize(("page", "name"), [(b"k:h_bucket 1\n", "k:h"), (b"# TYPE k:h histogram\n", "k:h_total")])
def test_a_name_that_only_looks_like_a_series_is_free(page: bytes, name: str) -> None:
    """A gauge has no buckets, and a histogram no total."""
    result = standardized(page + b"e 1\n", Rule(name, "gauge", "Help.", (Source("e"),)))

    assert (result.present, result.taken) == ((name,), ())


def test_a_help_text_is_escaped() -> None:
    r"""A user's text of two lines or with a backslash stays one HELP line."""
    result = standardized(b"e 1\n", Rule("k:x", "gauge", "Two\nlines, C:\\dir", (Source("e"),)))

    text = result.families[0].text
    assert text == b"# HELP k:x Two\\nlines, C:\\\\dir (from e)\n# TYPE k:x gauge\nk:x 1\n"
    assert parse_page(text).raw == text


@given(pages(), st.data())
def test_the_twin_of_any_family_has_exactly_its_samples(raw: bytes, data: st.DataObject) -> None:
    """Law: the same samples in the same order, under the new name; a family without samples has no twin."""
    page = parse_page(raw)
    for family in page.families():
        kind = data.draw(st.sampled_from(["counter", "gauge"])) if family.kind == "untyped" else family.kind
        rule = Rule("twin:of_x", cast("Kind", kind), "Help.", (Source(family.full_name),))

        twins = standardize(page, RuleSet("test", (rule,))).families

        renamed = [repr((s.name.replace(family.full_name, "twin:of_x", 1), s[1:4])) for s in family.samples]
        assert [repr((s.name, s[1:4])) for twin in twins for s in twin.samples] == renamed
        assert b"".join(twin.text for twin in twins) == b"".join(parse_page(twin.text).raw for twin in twins)
