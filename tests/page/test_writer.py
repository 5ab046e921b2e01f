"""Writing the page: untouched, or only the families that were asked for, and compressed when asked."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.page.family import TextFamily
from exporter.page.parse import parse_page
from exporter.page.text_format import CONTENT_TYPE
from exporter.page.writer import accepts_gzip, compress, write, write_selected
from tests.harness.strategies import pages

pytestmark = pytest.mark.unit

GAUGE = b"# TYPE e:wait gauge\ne:wait 3\n"
BY_REASON = b'# TYPE e:wait_by_reason gauge\ne:wait_by_reason{r="c"} 2\n'
COUNTER = b"# TYPE e:tokens_total counter\ne:tokens_total 7\n"
HISTOGRAM = b'# TYPE e:ttft histogram\ne:ttft_bucket{le="+Inf"} 2\ne:ttft_sum 0.5\ne:ttft_count 2\n'
SUMMARY = b"# TYPE e:gc summary\ne:gc_sum 0.5\ne:gc_count 2\n"
UNTYPED = b"e:raw_sum 1\n"
PAGE = GAUGE + BY_REASON + COUNTER + HISTOGRAM + SUMMARY + UNTYPED
TWIN = b"# HELP k:wait Waiting. (from e:wait)\n# TYPE k:wait gauge\nk:wait 3\n"


def selected(*names: str) -> bytes:
    return b"".join(write_selected(parse_page(PAGE), [TextFamily("k:wait", "gauge", TWIN)], names))


def test_the_format_is_always_the_same() -> None:
    """Readers are told 0.0.4, whatever they would rather have."""
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"


def test_a_page_is_written_untouched_with_the_families_behind_it() -> None:
    """The engine's bytes are one chunk, not a copy; the rest is another."""
    page = parse_page(PAGE)

    chunks = write(page, [TextFamily("k:wait", "gauge", TWIN), TextFamily("k:y", "gauge", b"k:y 1\n")])

    assert chunks == [PAGE, TWIN + b"k:y 1\n"]
    assert chunks[0] is page.raw


def test_nothing_is_written_of_nothing() -> None:
    """An engine that is away leaves no trace."""
    assert b"".join(write(parse_page(b""), [])) == b""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("e:wait", GAUGE),
        ("e:wait_by_reason", BY_REASON),
        ("e:tokens_total", COUNTER),
        ("e:tokens", COUNTER),
        ("e:ttft", HISTOGRAM),
        ("e:ttft_bucket", HISTOGRAM),
        ("e:ttft_sum", HISTOGRAM),
        ("e:ttft_count", HISTOGRAM),
        ("e:gc_count", SUMMARY),
        ("e:raw_sum", UNTYPED),
        ("k:wait", TWIN),
        ("e:wai", b""),
        ("wait", b""),
        ("e:wait_sum", b""),
        ("e:tokens_total_count", b""),
        ("e:raw", b""),
        ("", b""),
    ],
)
def test_a_family_is_selected_by_its_own_and_its_samples_names(name: str, expected: bytes) -> None:
    """Whole names only; a counter's also without _total."""
    assert selected(name) == expected


def test_selected_families_keep_their_order() -> None:
    """Each once, however many of its names were given."""
    assert selected("k:wait", "e:ttft_count", "e:ttft_sum", "e:wait", "unknown") == GAUGE + HISTOGRAM + TWIN


@given(pages())
def test_selecting_all_families_gives_the_whole_page(raw: bytes) -> None:
    """Law: no line gets lost between families."""
    page = parse_page(raw)
    names = {family.full_name for family in page.families()}

    assert b"".join(write_selected(page, [], names)) == (raw if names else b"")


@given(pages(), st.data())
def test_any_selection_is_a_valid_page(raw: bytes, data: st.DataObject) -> None:
    """Law: what is left of a page can be read by itself, with exactly the chosen families."""
    names = [family.full_name for family in parse_page(raw).families()]
    chosen = data.draw(st.lists(st.sampled_from(names), unique=True) if names else st.just([]))

    part = parse_page(b"".join(write_selected(parse_page(raw), [], set(chosen))))

    assert [family.full_name for family in part.families()] == [name for name in names if name in chosen]


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("GZip", True),
        ("gzip, deflate, br, zstd", True),
        ("deflate,gzip;q=0.5", True),
        ("deflate , gzip ; q=0.5", True),
        ("gzip;q=1.000", True),
        ("gzip;Q=0.001", True),
        ("*", True),
        ("identity;q=0, *;q=0.1", True),
        ("*;q=0, gzip", True),
        (None, False),
        ("", False),
        (",", False),
        ("identity", False),
        ("deflate, br", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("gzip;q=0, *", False),
        ("*;q=0", False),
        ("gzipped", False),
        ("gzip;q=yes", False),
        ("gzip;q=-1", False),
        ("gzip;q=nan", False),
    ],
)
def test_gzip_is_sent_to_those_who_take_it(header: str | None, *, accepted: bool) -> None:
    """A weight of 0 is a no, a star a yes for what is not named; what makes no sense is a no."""
    assert accepts_gzip(header) is accepted


@given(st.text())
def test_no_header_breaks_the_reader(header: str) -> None:
    """Law: any header is either a yes or a no."""
    assert accepts_gzip(header) in (True, False)


@given(st.lists(st.binary()))
def test_compressed_chunks_come_back_whole(chunks: list[bytes]) -> None:
    """Law: the chunks are one gzip stream."""
    assert gzip.decompress(compress(chunks)) == b"".join(chunks)


def test_a_page_gets_much_smaller(captures: dict[str, bytes]) -> None:
    """The fastest level is enough for pages: a real vLLM's shrinks to less than a sixth."""
    raw = captures["vllm-0.32-traffic"]

    assert len(compress([raw])) * 6 < len(raw)
