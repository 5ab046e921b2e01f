"""Families of exposition text: in a registry they are what prometheus_client would have parsed."""

from __future__ import annotations

import re
from math import inf, isnan
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from exporter.page.family import TextFamily, sample_lines
from exporter.page.parse import parse_page
from tests.harness.strategies import pages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.metrics_core import Metric

pytestmark = pytest.mark.unit

HISTOGRAM = b"""\
# HELP ttft_seconds Time to the first token.
# TYPE ttft_seconds histogram
ttft_seconds_bucket{le="0.5",model_name="m"} 1.0
ttft_seconds_bucket{le="+Inf",model_name="m"} 2.0
ttft_seconds_count{model_name="m"} 2.0
ttft_seconds_sum{model_name="m"} 0.75
"""


class Fixed(Collector):
    """Collects the families it was given."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def exposed(*families: Metric) -> bytes:
    """Render families as prometheus_client does, out of a registry."""
    registry = CollectorRegistry()
    registry.register(Fixed(families))
    return generate_latest(registry)


def only_sample(line: bytes, name: str = "foo") -> tuple[str, dict[str, str], float, object]:
    (sample,) = TextFamily(name, "gauge", line + b"\n").samples
    return sample.name, sample.labels, sample.value, sample.timestamp


def test_a_histogram_is_a_metric_of_prometheus_client() -> None:
    """Name, type, help and samples are those of the text."""
    family = TextFamily("ttft_seconds", "histogram", HISTOGRAM)

    assert (family.name, family.type, family.documentation) == ("ttft_seconds", "histogram", "Time to the first token.")
    assert [(sample.name, sample.labels, sample.value) for sample in family.samples] == [
        ("ttft_seconds_bucket", {"le": "0.5", "model_name": "m"}, 1.0),
        ("ttft_seconds_bucket", {"le": "+Inf", "model_name": "m"}, 2.0),
        ("ttft_seconds_count", {"model_name": "m"}, 2.0),
        ("ttft_seconds_sum", {"model_name": "m"}, 0.75),
    ]


@pytest.mark.parametrize(
    ("full_name", "kind", "name", "type_"),
    [
        ("foo_total", "counter", "foo", "counter"),
        ("foo", "counter", "foo", "unknown"),
        ("foo_total", "gauge", "foo_total", "gauge"),
        ("foo_total", "histogram", "foo_total", "histogram"),
        ("foo", "summary", "foo", "summary"),
        ("foo", "untyped", "foo", "unknown"),
    ],
)
def test_names_and_types_are_prometheus_clients(full_name: str, kind: str, name: str, type_: str) -> None:
    """A counter loses its _total, and what prometheus_client has no type for is unknown."""
    family = TextFamily(full_name, kind, b"")

    assert (family.full_name, family.kind, family.name, family.type) == (full_name, kind, name, type_)


def test_samples_are_only_parsed_when_they_are_read() -> None:
    """A family can be made and written at no cost; bad text shows at the first look."""
    family = TextFamily("foo", "gauge", b"{no sample}\n")

    assert family.text == b"{no sample}\n"
    with pytest.raises(ValueError, match="must be valid before it is read"):
        _ = family.samples


def test_samples_are_parsed_once() -> None:
    """Two readers of one family get the same list."""
    family = TextFamily("ttft_seconds", "histogram", HISTOGRAM)

    assert family.samples is family.samples


@pytest.mark.parametrize(
    ("line", "sample"),
    [
        (b"foo 1", ("foo", {}, 1.0, None)),
        (b"foo{} 1e3", ("foo", {}, 1000.0, None)),
        (b"foo\t+1", ("foo", {}, 1.0, None)),
        (b'foo { a = "b" , c = "d" , } 1 ', ("foo", {"a": "b", "c": "d"}, 1.0, None)),
        (b'foo{a="}",b="{x=\\"y\\"}"} 1', ("foo", {"a": "}", "b": '{x="y"}'}, 1.0, None)),
        (b'foo{a="C:\\\\dir\\n\\"q\\""} 1', ("foo", {"a": 'C:\\dir\n"q"'}, 1.0, None)),
        (b'foo{a="\\\\n"} 1', ("foo", {"a": "\\n"}, 1.0, None)),
        ('foo{a="größe 模型"} 1'.encode(), ("foo", {"a": "größe 模型"}, 1.0, None)),
        (b"foo +Inf", ("foo", {}, inf, None)),
        (b"foo -Inf", ("foo", {}, -inf, None)),
        (b"foo 1 1764000000123", ("foo", {}, 1.0, 1764000000.123)),
        (b"foo 1 0", ("foo", {}, 1.0, 0.0)),
    ],
)
def test_each_form_of_a_sample_is_read(line: bytes, sample: object) -> None:
    """Labels are unescaped, values floats, timestamps seconds."""
    assert only_sample(line) == sample


def test_nan_is_read() -> None:
    """NaN is a value, not a mistake."""
    assert isnan(only_sample(b"foo NaN")[2])


@pytest.mark.parametrize(
    ("text", "documentation"),
    [
        (b"# HELP foo Text.\n# TYPE foo gauge\nfoo 1\n", "Text."),
        (b"# TYPE foo gauge\n# HELP foo After the type.\nfoo 1\n", "After the type."),
        (b"# HELP foo C:\\\\dir\\nand more\nfoo 1\n", "C:\\dir\nand more"),
        (b"# HELP foo\nfoo 1\n", ""),
        (b"# TYPE foo gauge\nfoo 1\n", ""),
        (b"# a comment\n#\t HELP \tfoo\ttabs\nfoo 1\n", "tabs"),
    ],
)
def test_the_help_text_is_unescaped(text: bytes, documentation: str) -> None:
    """HELP knows two escapes, and may be missing or empty."""
    assert TextFamily("foo", "gauge", text).documentation == documentation


def test_only_sample_lines_are_samples() -> None:
    """Comments and blank lines are not."""
    assert list(sample_lines(b"# HELP foo x\n\nfoo 1\n#note\n \t\nfoo 2\n")) == [b"foo 1", b"foo 2"]


def test_a_registry_renders_the_text() -> None:
    """generate_latest gives canonical text back as it was."""
    assert exposed(TextFamily("ttft_seconds", "histogram", HISTOGRAM)) == HISTOGRAM


def test_a_registry_renders_what_prometheus_client_would_have_parsed(captures: dict[str, bytes]) -> None:
    """A real vLLM's page comes out as with that parser, which only drops blanks at the end of a HELP text."""
    for raw in captures.values():
        ours = exposed(*parse_page(raw).families())

        assert ours.replace(b" \n", b"\n") == exposed(*text_string_to_metric_families(raw.decode()))


@given(pages())
def test_any_page_has_the_samples_of_prometheus_clients_parser(raw: bytes) -> None:
    """Law: names, labels, values and timestamps are those that prometheus_client finds."""
    ours = [sample for family in parse_page(raw).families() for sample in family.samples]

    # Without types that parser renames nothing: it would add _total to a counter's name.
    untyped = re.sub(rb"(?m)^# TYPE .*\n", b"", raw).decode()
    parsed = [sample for family in text_string_to_metric_families(untyped) for sample in family.samples]
    assert [repr((s.name, s.labels, float(s.value), s.timestamp)) for s in ours] == [
        repr((s.name, s.labels, float(s.value), s.timestamp)) for s in parsed
    ]
