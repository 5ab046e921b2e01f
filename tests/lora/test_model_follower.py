"""The file that a Model is read from: whatever it is, the runtime starts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lora.model.follower import ModelSource
from simulators.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lora.adapter import Wanted

pytestmark = pytest.mark.unit

MODEL = "kind: Model\nspec: {backend: {loraAdapters: [{name: sql, artifactURL: 's3://adapters/sql'}]}}\n"


class Names:
    """Keeps the names that are wanted."""

    def __init__(self) -> None:
        self.wanted: list[str] = []

    def want_exactly(self, wanted: Iterable[Wanted]) -> None:
        self.wanted = [one.name for one in wanted]


def started(path: Path) -> tuple[str | None, list[str]]:
    """Return what is wrong with a file, and the adapters that it asks for."""
    names = Names()
    source = ModelSource(path, backend=None, lora_dir=path.parent, manager=names)
    source.start()
    wait_until(lambda: source.problem != "not read yet", "it was read")
    source.stop()
    return source.problem, names.wanted


def test_a_link_is_followed(tmp_path: Path) -> None:
    """Files of a ConfigMap are links."""
    (tmp_path / "data").write_text(MODEL)
    (tmp_path / "model.yaml").symlink_to("data")

    assert started(tmp_path / "model.yaml") == (None, ["sql"])


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "it is not a regular file"), (MODEL + "#" * (1 << 20), "it has more than 1048576 bytes")],
    ids=["pipe", "large"],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, text: str | None, words: str) -> None:
    """And nothing is waited for."""
    path = tmp_path / "model.yaml"
    path.write_text(text) if text else os.mkfifo(path)

    problem, wanted = started(path)

    assert problem == f"{path} cannot be read: {words}"
    assert wanted == []
