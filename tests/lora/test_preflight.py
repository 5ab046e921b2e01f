"""Preflight: what is no whole, safe adapter is told from one before an engine sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora.adapter import Facts, check_name
from lora.errors import InvalidAdapterError
from lora.files.preflight import inspect
from simulators.adapters import make_adapter, safetensors

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


def test_a_whole_adapter_says_what_it_is(tmp_path: Path) -> None:
    """Rank, base model and size come from its files."""
    folder = make_adapter(tmp_path / "a", rank=16)

    assert inspect(folder) == Facts(16, "demo", len(safetensors()))


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"r": None}, "has no rank"),
        ({"r": 0}, "has no rank"),
        ({"r": "8"}, "has no rank"),
        ({"r": True}, "has no rank"),
        ({"target_modules": None}, "names no target_modules"),
        ({"target_modules": []}, "names no target_modules"),
        ({"target_modules": 7}, "names no target_modules"),
    ],
)
def test_a_configuration_must_have_what_engines_read(tmp_path: Path, config: dict[str, Any], problem: str) -> None:
    """Without rank or modules there is no adapter."""
    folder = make_adapter(tmp_path / "a", **config)

    with pytest.raises(InvalidAdapterError, match=problem):
        inspect(folder)


@pytest.mark.parametrize(
    ("text", "problem"),
    [(b"{", "is not JSON"), (b"[]", "is not a JSON object"), (b"\xff\xfe", "is not JSON")],
)
def test_a_configuration_must_be_an_object(tmp_path: Path, text: bytes, problem: str) -> None:
    """What does not parse is named with its path."""
    folder = make_adapter(tmp_path / "a")
    (folder / "adapter_config.json").write_bytes(text)

    with pytest.raises(InvalidAdapterError, match=problem) as caught:
        inspect(folder)
    assert str(folder) in caught.value.message


def test_a_directory_without_an_adapter_is_refused(tmp_path: Path) -> None:
    """It says what is missing."""
    with pytest.raises(InvalidAdapterError, match=r"there is no adapter_config\.json"):
        inspect(tmp_path)


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"\x01",
        safetensors()[:-1],
        safetensors() + b"\0",
        safetensors()[:20],
        (10**15).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"nope",
    ],
)
def test_weights_that_are_not_whole_are_refused(tmp_path: Path, weights: bytes) -> None:
    """Header and size of a safetensors file must agree."""
    folder = make_adapter(tmp_path / "a")
    (folder / "adapter_model.safetensors").write_bytes(weights)

    with pytest.raises(InvalidAdapterError) as caught:
        inspect(folder)
    assert caught.value.code == "invalid_adapter"


@given(cut=st.integers(0, len(safetensors()) - 1))
def test_no_cut_goes_unseen(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """Law: a file that lost its end, anywhere, is never taken for whole."""
    folder = make_adapter(tmp_path_factory.mktemp("cut"))
    (folder / "adapter_model.safetensors").write_bytes(safetensors()[:cut])

    with pytest.raises(InvalidAdapterError):
        inspect(folder)


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_pickled_weights_need_permission(tmp_path: Path, name: str) -> None:
    """They may run code when an engine reads them."""
    folder = make_adapter(tmp_path / "a", weights=name)

    with pytest.raises(InvalidAdapterError) as caught:
        inspect(folder)
    assert caught.value.code == "pickled_adapter"
    assert inspect(folder, allow_pickle=True).rank == 8


@pytest.mark.parametrize("name", ["a", "lora-a", "org/name", "a.b_c-d", "x" * 255, "a/b/c", "...", "..a"])
def test_names_that_can_be(name: str) -> None:
    """Letters, digits, dots, dashes, and slashes between parts."""
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "x" * 256, "..", ".", "a/../b", "/a", "a/", "a//b", "a b", "ä", "a\n", "a\x00", "./a"]
)
def test_names_that_cannot_be(name: str) -> None:
    """A name never climbs, and never breaks a line or a path."""
    with pytest.raises(InvalidAdapterError) as caught:
        check_name(name)
    assert caught.value.code == "invalid_name"
