"""Sources: texts in, frozen values or an error that names the rule out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import SourceError
from storage.request.source import HubSource, PvcSource, S3Source, Source, parse_source

pytestmark = pytest.mark.unit

GOOD: list[tuple[str, Source]] = [
    ("hf://org/model", HubSource("org/model")),
    ("hf://org/model@v1.0", HubSource("org/model", "v1.0")),
    ("org/model@refs/pr/3", HubSource("org/model", "refs/pr/3")),
    ("Qwen/Qwen2.5-7B_x", HubSource("Qwen/Qwen2.5-7B_x")),
    ("s3://models/llama/", S3Source("models", "llama")),
    ("s3://aios_models/a b/c+d", S3Source("aios_models", "a b/c+d")),
    ("S3://models", S3Source("models")),
    ("obs://models/llama", S3Source("models", "llama", "obs")),
    ("pvc://claim/path", PvcSource("/claim/path")),
    ("pvc:///claim//path/", PvcSource("/claim/path")),
]
BAD = [
    ("", "namespace/repo"),
    ("model", "namespace/repo"),
    ("/models/llama", "pvc://"),
    ("a/b/c", "namespace/repo"),
    ("org/mo del", "letters"),
    ("org/model@", "revision"),
    ("org/model@a/../b", "revision"),
    ("gs://bucket/x", "scheme"),
    ("s3://b/x", "bucket"),
    ("s3:///x", "bucket"),
    ("s3://bucket/../x", "'..'"),
    ("s3://bucket/a\nb", "control"),
    ("pvc://", "no path"),
    ("pvc://claim/../etc", "'..'"),
]


@pytest.mark.parametrize(("text", "expected"), GOOD)
def test_a_source_is_a_value(text: str, expected: Source) -> None:
    """Every form there is."""
    assert expected == parse_source(text)


@pytest.mark.parametrize(("text", "rule"), BAD)
def test_an_error_names_the_text_and_the_rule(text: str, rule: str) -> None:
    """So that nobody has to guess which of many sources was wrong."""
    with pytest.raises(SourceError) as raised:
        parse_source(text)

    assert repr(text) in raised.value.message
    assert rule in raised.value.message
    assert (raised.value.code, raised.value.exit_code) == ("invalid_source", 2)


@pytest.mark.parametrize("source", [source for _, source in GOOD])
def test_a_uri_reads_back(source: Source) -> None:
    """What is shown can be given."""
    assert source == parse_source(source.uri)


@given(st.text(max_size=60), st.sampled_from(["", "hf://", "s3://", "obs://", "pvc://"]))
def test_any_text_is_a_source_or_an_error(text: str, scheme: str) -> None:
    """And what is a source reads back as itself."""
    try:
        source = parse_source(scheme + text)
    except SourceError:
        return
    assert source == parse_source(source.uri)
