"""Old contents on a volume: only what nobody needs is removed, whatever state the volume is in."""

from __future__ import annotations

import json
import os
from time import time
from typing import TYPE_CHECKING

import pytest

from lora.files.references import References
from storage.disk.generations import Generation, Generations
from storage.disk.lock import Lock
from storage.disk.manifest import Manifest, write_manifest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit

SOURCE = "s3://adapters/sql"
NAMES = tuple(letter * 32 for letter in "abcd")
DAY = 24 * 3600.0


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Four contents of one source, the newest last."""
    (tmp_path / ".kthena").mkdir()
    for name in NAMES:
        Generations(tmp_path).add(SOURCE, Generation(name, ""))
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, Manifest(SOURCE, "", ()))
    return tmp_path


def names_in(base: Path) -> str:
    """Return the first letters of the contents that are there."""
    return "".join(sorted(path.name[0] for path in base.iterdir() if path.name in NAMES))


def test_the_last_two_stay(base: Path) -> None:
    """Nobody refers to the others."""
    assert References("pod-0").sweep(base, ())
    assert names_in(base) == "cd"


def test_what_is_in_use_stays(base: Path) -> None:
    """However the engine writes the path; and what this runtime refers to."""
    references = References("pod-0")
    references.hold(base / NAMES[0])

    references.sweep(base, [base / "other way" / NAMES[1]])

    assert names_in(base) == "abcd"


@pytest.mark.parametrize(("age", "left"), [(DAY - 60, "acd"), (DAY + 60, "cd")], ids=["renewed", "dead"])
def test_another_runtime_refers_to_one(base: Path, age: float, left: str) -> None:
    """Its reference counts for a day."""
    References("pod-1.default").hold(base / NAMES[0])
    path = base / ".kthena" / "refs" / "pod-1.default"
    assert json.loads(path.read_text()) == {"pod": "pod-1.default", "generations": [NAMES[0]]}
    os.utime(path, (time() - age, time() - age))

    References("pod-0.default").sweep(base, ())

    assert names_in(base) == left


def test_references_are_renewed_each_hour(base: Path) -> None:
    """Not more often."""
    now = 0.0
    references = References("pod-0", clock=lambda: now)
    references.hold(base / NAMES[0])
    path = base / ".kthena" / "refs" / "pod-0"
    os.utime(path, (1, 1))

    references.renew()
    assert path.stat().st_mtime == 1
    now = 3600.0
    references.renew()
    assert path.stat().st_mtime > 1


def test_a_reference_that_could_not_be_written_is_written_soon(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not an hour later; the log says so once."""
    references = References("pod-0")
    in_the_way = base / ".kthena" / "refs"
    in_the_way.touch()
    references.hold(base / NAMES[0])
    references.renew()
    assert len(caplog.records) == 1
    in_the_way.unlink()

    references.renew()

    assert (in_the_way / "pod-0").exists()


def test_what_is_no_longer_needed_is_let_go(base: Path) -> None:
    """The file goes with the last reference."""
    references = References("pod-0")
    references.hold(base / NAMES[0])
    references.hold(base / NAMES[1])

    assert references.settle([base / NAMES[1]]) == [base]
    assert references.settle([base / NAMES[1]]) == []
    assert references.settle([]) == [base]
    assert not (base / ".kthena" / "refs" / "pod-0").exists()


def test_a_removal_that_was_cut_short(base: Path) -> None:
    """It is completed, or undone where a runtime has referred to the content since."""
    for name in NAMES[:2]:
        (base / name).rename(base / ".kthena" / f"leaving-{name}")
    References("pod-1").hold(base / NAMES[0])

    References("pod-0").sweep(base, ())

    assert names_in(base) == "acd"
    assert not list((base / ".kthena").glob("leaving-*"))


def test_a_part_of_a_content_is_never_brought_back(base: Path) -> None:
    """A removal was cut short in the middle, and a runtime refers to the content again."""
    (base / NAMES[0]).rename(base / ".kthena" / f"gone-{NAMES[0]}")
    References("pod-1").hold(base / NAMES[0])

    References("pod-0").sweep(base, ())

    assert names_in(base) == "cd"
    assert not list((base / ".kthena").glob("gone-*"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"generations": 7}', "\x00" * 10])
def test_a_reference_that_cannot_be_read(base: Path, text: str) -> None:
    """It may mean anything, so nothing is removed."""
    (base / ".kthena" / "refs").mkdir()
    (base / ".kthena" / "refs" / "pod-1").write_text(text)

    References("pod-0").sweep(base, ())

    assert names_in(base) == "abcd"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        '{"version": 3, "sources": {}}',
        '{"version": 1, "sources": {"x": [{"content": "..", "revision": ""}]}}',
    ],
)
def test_a_record_that_cannot_be_read(base: Path, text: str | None) -> None:
    """What is newest is not known, so nothing is removed."""
    record = base / ".kthena" / "generations.json"
    record.write_text(text) if text is not None else record.unlink()

    References("pod-0").sweep(base, ())

    assert names_in(base) == "abcd"


@pytest.mark.parametrize("text", ["", "{", '{"version": 3, "sources": {}}', "directory"])
def test_a_damaged_record_is_kept_aside(base: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    """What it may have listed is never removed, also when a download brings it again; what comes later is."""
    record = base / ".kthena" / "generations.json"
    record.unlink()
    record.write_text(text) if text != "directory" else record.mkdir()
    for name in (NAMES[0], *(letter * 32 for letter in "123")):
        Generations(base).add(SOURCE, Generation(name, ""))
        (base / name).mkdir(exist_ok=True)

    References("pod-0").sweep(base, ())

    assert sorted(path.name[0] for path in base.iterdir() if path.name != ".kthena") == list("23abcd")
    aside = record.with_suffix(".damaged")
    assert aside.is_dir() if text == "directory" else aside.read_text() == text
    (line,) = [line for line in caplog.messages if "damaged" in line]
    assert (str(record) in line, aside.name in line, "never removed" in line) == (True, True, True)


def test_a_record_that_is_gone(base: Path) -> None:
    """The next one knows nothing of the directories that are there."""
    (base / ".kthena" / "generations.json").unlink()
    for name in NAMES:
        Generations(base).add(SOURCE, Generation(name, ""))

    References("pod-0").sweep(base, ())

    assert names_in(base) == "abcd"


def test_a_download_is_under_way(base: Path) -> None:
    """It may be about to publish what is there, so the sweep is put off."""
    with Lock(base / ".kthena" / "work"):
        assert not References("pod-0").sweep(base, ())
        assert names_in(base) == "abcd"
    assert References("pod-0").sweep(base, ())


def test_a_download_of_a_pod_that_is_gone(base: Path) -> None:
    """Its lock counts until it was not renewed for a while."""
    now = 0.0
    references = References("pod-0", clock=lambda: now)
    work = base / ".kthena" / "work"
    work.mkdir()
    (work / "lock-1").write_text("{}")
    assert not references.sweep(base, ())

    now = 60.0

    assert references.sweep(base, ())
    assert names_in(base) == "cd"


def test_what_is_no_content_is_left_alone(base: Path) -> None:
    """Directories of other names, and of such names that no download of ours filled."""
    (base / "mine").mkdir()
    (base / ("e" * 32)).mkdir()

    References("pod-0").sweep(base, ())

    assert (base / "mine").is_dir()
    assert (base / ("e" * 32)).is_dir()
