"""What a vLLM finds an adapter's blocks by, told from its version."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora.engine.cache_key import CacheKey, vllm_key

pytestmark = pytest.mark.unit

BY_PATH = [
    "0.31.0",
    "0.31.0+cu129",
    "0.31.0.post1",
    "0.31.1",
    "0.31.1.dev3+g12ab",
    "0.32.0",
    "0.33.0rc2",
    "0.100.0",
    "1.0.0",
    "v0.32.0",
]
BY_NAME = [
    "0.30.0",
    "0.30.2.dev9",
    "0.31.0rc1",
    "0.31.0.dev12+gabcdef",
    "0.31.0b1",
    "0.9.2",
    "0.1.dev1+g0a1b2c3",
    "0.31rc1",
]
UNREADABLE = ["", "dev", "main", "0", "31", "0.x.1", "-1.32.0", "\u0660.\u0663\u0662", "0.32" * 3000]


@pytest.mark.parametrize("version", BY_PATH)
def test_a_version_that_tells_paths_apart(version: str) -> None:
    """From 0.31.0 on, whatever is built from it."""
    assert vllm_key(version) is CacheKey.NAME_AND_PATH


@pytest.mark.parametrize("version", [*BY_NAME, *UNREADABLE], ids=lambda version: version[:20])
def test_a_version_that_does_not(version: str) -> None:
    """Older ones, those on the way to 0.31.0, and what cannot be read."""
    assert vllm_key(version) is CacheKey.NAME


@given(st.text())
def test_any_text_is_one_or_the_other(version: str) -> None:
    """No text is an error, and no adapter's blocks are ever found by the load with vLLM."""
    assert vllm_key(version) in {CacheKey.NAME, CacheKey.NAME_AND_PATH}
