"""The state file: whatever happens, one whole version of the desired set is there."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora.adapter import Origin, Wanted
from lora.state_file import FILE, Kept, StateFile

pytestmark = pytest.mark.unit

SQL = Wanted("lora-sql", Path("/models/a"), "s3://bucket/a")
LOCAL = Wanted("org/local", Path("/models/b"), None, Origin.MODEL, allow_pickle=True, refresh=True)
KEPT = Kept((SQL, LOCAL), ("gone",))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Every field comes back, in a directory that is made if need be."""
    StateFile(tmp_path / "new" / "state").write(KEPT)

    assert StateFile(tmp_path / "new" / "state").read() == KEPT


def test_nothing_written_is_nothing_wanted(tmp_path: Path) -> None:
    """A first start begins empty."""
    assert StateFile(tmp_path).read() == Kept()


def test_no_trace_of_a_write_is_left(tmp_path: Path) -> None:
    """The temporary file becomes the file."""
    state = StateFile(tmp_path)
    state.write(KEPT)
    state.write(Kept())

    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@given(cut=st.integers(0, 400), change=st.integers(0, 255))
def test_a_damaged_file_counts_as_none_and_is_kept_aside(
    tmp_path_factory: pytest.TempPathFactory, cut: int, change: int
) -> None:
    """Law: cut off anywhere, or with any byte changed, it is never half believed."""
    folder = tmp_path_factory.mktemp("state")
    state = StateFile(folder)
    state.write(KEPT)
    text = bytearray((folder / FILE).read_bytes())
    place = cut % len(text)
    for damaged in (bytes(text[:place]), bytes(text[:place] + bytes([change]) + text[place + 1 :])):
        (folder / FILE).write_bytes(damaged)
        found = state.read()
        assert found in (Kept(), KEPT)
        if found == Kept():
            assert damaged in {path.read_bytes() for path in folder.glob("lora-adapters.damaged*")}


def test_a_killed_writer_leaves_the_old_set(tmp_path: Path) -> None:
    """A temporary file that was never renamed is passed over."""
    state = StateFile(tmp_path)
    state.write(KEPT)
    (tmp_path / "lora-adapters.new").write_bytes(b'{"version": 1, "adap')

    assert state.read() == KEPT


def test_another_version_is_not_guessed_at(tmp_path: Path) -> None:
    """A file of a newer runtime is put aside, not misread."""
    (tmp_path / FILE).write_text(json.dumps({"version": 2, "adapters": [], "removed": [], "check": ""}))

    assert StateFile(tmp_path).read() == Kept()


def test_what_cannot_be_read_is_kept_aside(tmp_path: Path) -> None:
    """Only once another set is written; a directory stands for a disk that gives errors. Nor is one aside replaced."""
    state = StateFile(tmp_path)
    for number, aside in enumerate(("lora-adapters.damaged", "lora-adapters.damaged-2"), 1):
        (tmp_path / FILE).unlink(missing_ok=True)
        (tmp_path / FILE).mkdir()
        assert state.read() == Kept()
        assert (tmp_path / FILE).is_dir()

        state.write(KEPT)

        assert state.read() == KEPT
        assert (tmp_path / aside).is_dir()
        assert len(list(tmp_path.glob("*.damaged*"))) == number


@pytest.mark.parametrize("row", ["sql", ["sql"], 1, None])
def test_a_row_that_is_no_adapter(tmp_path: Path, row: object) -> None:
    """The file counts as damaged although its checksum is right: the runtime starts."""
    state = {"version": 2, "adapters": [row], "removed": [], "served": []}
    check = sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
    (tmp_path / FILE).write_text(json.dumps(state | {"check": check}))

    assert StateFile(tmp_path).read() == Kept()
    assert (tmp_path / "lora-adapters.damaged").exists()


def test_a_file_that_could_not_be_read_and_is_gone(tmp_path: Path) -> None:
    """There is nothing to keep aside: the next set is written."""
    state = StateFile(tmp_path)
    (tmp_path / FILE).mkdir()
    assert state.read() == Kept()
    (tmp_path / FILE).rmdir()

    state.write(KEPT)

    assert state.read() == KEPT


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """It counts as a file that cannot be read, and is kept aside when there is a set to keep."""
    os.mkfifo(tmp_path / "lora-adapters.json")
    file = StateFile(tmp_path)

    assert file.read() == Kept()
    file.write(Kept(removed=("a",)))

    assert file.read() == Kept(removed=("a",))
    assert (tmp_path / "lora-adapters.damaged").is_fifo()
