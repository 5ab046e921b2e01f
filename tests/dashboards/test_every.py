"""Tests over many values in one case fail as a case for each value would."""

from __future__ import annotations

import pytest

from tests.harness.every import every

pytestmark = pytest.mark.unit


@every("number", range(5), lambda number: f"number {number}")
def over_numbers(number: int, limit: int) -> None:
    assert number < limit, f"{number} is too large"


def test_all_values_are_looked_at() -> None:
    """Each that fails is named, with its reason."""
    over_numbers(limit=5)

    with pytest.raises(AssertionError) as failed:
        over_numbers(limit=3)

    assert [line.split(":")[0] for line in str(failed.value).splitlines() if line.startswith("number")] == [
        "number 3",
        "number 4",
    ]
    assert "4 is too large" in str(failed.value)


def test_no_value_is_a_failure() -> None:
    """A test of nothing would pass."""
    with pytest.raises(AssertionError, match="no number to look at"):
        every("number", [])(over_numbers)(limit=1)
