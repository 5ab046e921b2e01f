"""The record of what has arrived: read back, torn, and for the right file only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.disk.journal import Journal, missing
from storage.disk.listing import RemoteFile

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.unit

FILE = RemoteFile("a/model.bin", 100, '"etag"', "k")


def test_a_record_reads_back(tmp_path: Path) -> None:
    """Merged and in order, as literal text."""
    journal = Journal(tmp_path / "parts")
    journal.add(FILE, 50, 60)
    journal.add(FILE, 0, 10)
    journal.add(FILE, 10, 20)
    journal.verified(FILE)
    journal.close()

    again = Journal(tmp_path / "parts")

    assert again.spans(FILE) == [(0, 20), (50, 60)]
    assert again.is_verified(FILE)
    assert (tmp_path / "parts").read_text().splitlines()[0] == '["a/model.bin",100,"\\"etag\\"",50,60]'


def test_another_file_has_no_record(tmp_path: Path) -> None:
    """Another size, validator or name: nothing is taken over."""
    journal = Journal(tmp_path / "parts")
    journal.add(FILE, 0, 100)

    for other in (RemoteFile("a/model.bin", 101, '"etag"', "k"), RemoteFile("a/model.bin", 100, '"new"', "k")):
        assert journal.spans(other) == []
        assert not journal.is_verified(other)


def test_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    """And what is written after it counts."""
    path = tmp_path / "parts"
    odd = "[" * 100_000
    path.write_text(f'["a/model.bin",100,"\\"etag\\"",0,10]\nnull\n{{}}\n{odd}\n["a/model.bin",100,"\\"et')

    journal = Journal(path)
    journal.add(FILE, 10, 30)
    journal.close()

    assert Journal(path).spans(FILE) == [(0, 30)]


def test_what_is_forgotten_stays_forgotten(tmp_path: Path) -> None:
    """After a restart too; other files keep theirs."""
    other = RemoteFile("b", 5, "v", "b")
    journal = Journal(tmp_path / "parts")
    journal.add(FILE, 0, 10)
    journal.verified(FILE)
    journal.add(other, 0, 5)
    journal.forget(FILE)
    journal.close()

    again = Journal(tmp_path / "parts")

    assert again.spans(FILE) == []
    assert not again.is_verified(FILE)
    assert again.spans(other) == [(0, 5)]


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(1, 100)), max_size=12), st.integers(1, 40))
def test_what_is_missing_and_what_is_there_make_the_file(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int]], part: int
) -> None:
    """Every byte once, in pieces that are not too large."""
    journal = Journal(tmp_path_factory.mktemp("j") / "parts")
    for start, end in spans:
        journal.add(FILE, start, end)
    there = journal.spans(FILE)

    gaps = missing(there, FILE.size, part)

    covered = sorted(byte for start, end in [*there, *gaps] for byte in range(start, end))
    assert covered == list(range(100))
    assert all(0 < end - start <= part for start, end in gaps)


def test_a_long_record_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As much as what it says, however often; what a killed writer left of a draft goes."""
    monkeypatch.setattr("storage.disk.journal._COMPACT_BYTES", 2000)
    path, draft = tmp_path / "parts", tmp_path / "parts.new"
    draft.write_bytes(b"torn")
    journal, other = Journal(path), RemoteFile("b", 5, "v", "b")
    assert not draft.exists()
    journal.verified(other)

    for _ in range(20):
        for at in range(1, 100):
            journal.add(FILE, 0, at)

    assert path.stat().st_size <= 2100
    assert not draft.exists()
    again = Journal(path)
    assert again.spans(FILE) == [(0, 99)]
    assert again.is_verified(other)


def test_forgetting_keeps_the_others_where_nothing_new_can_be_written(tmp_path: Path) -> None:
    """As on a full disk; a directory where the draft would be stands for it."""
    journal, other = Journal(tmp_path / "parts"), RemoteFile("b", 5, "v", "b")
    journal.add(FILE, 0, 10)
    journal.add(other, 0, 5)
    (tmp_path / "parts.new").mkdir()

    journal.forget(FILE)

    (tmp_path / "parts.new").rmdir()
    again = Journal(tmp_path / "parts")
    assert again.spans(FILE) == []
    assert again.spans(other) == [(0, 5)]
