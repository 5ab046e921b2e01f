"""What lies on disk: where work is kept, how a copy appears, what stays and what goes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from storage.disk.changes import Removal, find_changes
from storage.disk.layout import Layout, Local, work_directory
from storage.disk.listing import Digest, Listing, RemoteFile
from storage.disk.manifest import Manifest, read_manifest
from storage.disk.publication import publish as put
from storage.errors import HoldsOtherError, LockedError, NoSpaceError, TargetError, UnsafeNameError

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.unit

HELLO = RemoteFile("a/hello", 6, "v1", "k", Digest("md5", "b1946ac92492d2347c6235b4d2611184"))
CONFIG = RemoteFile("config.json", 2, "v1", "k2")
LISTING = Listing("s3://models/m", "", (HELLO, CONFIG))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A target that is not there yet."""
    return Layout(tmp_path / "m")


def stage(layout: Layout, name: str, data: bytes) -> None:
    path = layout.tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def bring(
    layout: Layout, listing: Listing = LISTING, is_chosen: Callable[[str], bool] = lambda _: True
) -> tuple[Local, list[Removal]]:
    """Stage what is wanted, and publish it; return what is wanted and what went."""
    layout.prepare()
    held = layout.held()
    local = layout.compare(listing, held)
    for file in local.wanted:
        stage(layout, file.path, b"hello\n" if file.size == 6 else b"{}")
    gone: list[Removal] = []
    changes = find_changes(layout.target, held, listing, local, is_chosen)
    changes.check_allowed()
    put(layout, changes, local.wanted, gone.append)
    return local, gone


def publish(layout: Layout, listing: Listing = LISTING, is_chosen: Callable[[str], bool] = lambda _: True) -> list[str]:
    local, _ = bring(layout, listing, is_chosen)
    layout.clean()
    layout.leave()
    return [file.path for file in local.wanted]


def manifest(layout: Layout) -> Manifest:
    found = read_manifest(layout.target)
    assert found is not None
    return found


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_new_copy_appears_whole(layout: Layout, tmp_path: Path) -> None:
    """With its manifest, and nothing else is left."""
    assert publish(layout) == ["a/hello", "config.json"]

    assert tree(tmp_path) == {"m/.kthena/manifest.json", "m/a/hello", "m/config.json"}
    written = json.loads((tmp_path / "m/.kthena/manifest.json").read_text())
    assert written["source"] == "s3://models/m"
    assert written["files"][0]["digest"] == {"algorithm": "md5", "value": "b1946ac92492d2347c6235b4d2611184"}


def test_an_empty_target_becomes_the_copy(layout: Layout, tmp_path: Path) -> None:
    """As a pod's init container finds it."""
    (tmp_path / "m").mkdir()

    publish(layout)

    assert tree(tmp_path / "m") == {".kthena/manifest.json", "a/hello", "config.json"}


def test_unchanged_files_stay_where_they_are(layout: Layout) -> None:
    """A second time nothing is wanted, and no file is another."""
    publish(layout)
    before = (layout.target / "a/hello").stat()

    assert publish(layout) == []

    assert before == (layout.target / "a/hello").stat()


@pytest.mark.parametrize("file", [replace(CONFIG, validator="v2"), replace(CONFIG, size=3)])
def test_a_changed_file_alone_is_wanted(layout: Layout, file: RemoteFile) -> None:
    """By its validator or its size."""
    publish(layout)

    assert publish(layout, replace(LISTING, files=(HELLO, file))) == ["config.json"]


def test_a_file_that_was_touched_is_read(layout: Layout) -> None:
    """With the right bytes it is kept; without a digest to tell it is fetched."""
    publish(layout)
    os.utime(layout.target / "a/hello", (1, 1))
    os.utime(layout.target / "config.json", (1, 1))

    assert publish(layout) == ["config.json"]


def test_files_that_somebody_else_brought_are_taken_over(layout: Layout) -> None:
    """When the source's digest is theirs: a copy made by another tool is not fetched again."""
    (layout.target / "a").mkdir(parents=True)
    (layout.target / "a/hello").write_bytes(b"hello\n")
    (layout.target / "mine").write_text("mine")

    assert publish(layout) == ["config.json"]
    assert tree(layout.target) == {".kthena/manifest.json", "a/hello", "config.json", "mine"}


def test_what_the_source_no_longer_has_goes(layout: Layout) -> None:
    """With its directory when that is empty then."""
    publish(layout)

    publish(layout, replace(LISTING, files=(CONFIG,)))

    assert tree(layout.target) == {".kthena/manifest.json", "config.json"}
    assert not (layout.target / "a").exists()


def test_what_patterns_pass_over_stays(layout: Layout) -> None:
    """Whether the source still has it or not; the manifest goes on naming it."""
    publish(layout)

    publish(layout, replace(LISTING, files=(CONFIG,)), lambda name: name == "config.json")

    assert tree(layout.target) == {".kthena/manifest.json", "a/hello", "config.json"}
    assert {entry.file.path for entry in manifest(layout).entries} == {"a/hello", "config.json"}


def test_a_replacement_that_was_cut_short_is_mended(layout: Layout) -> None:
    """Killed between the first renamed file and the manifest: no manifest, and the next run knows the rest."""
    publish(layout)
    (layout.work / ".kthena").mkdir(parents=True)
    (layout.target / ".kthena/manifest.json").rename(layout.work / ".kthena/manifest.json")

    assert read_manifest(layout.target) is None
    assert publish(layout) == []
    assert manifest(layout).source == "s3://models/m"


class KilledError(Exception):
    """The process ends here."""


def cut_short(layout: Layout, listing: Listing, number: int) -> Layout:
    """Publish, and end after `number` removals have been reported."""

    def tell(_: Removal) -> None:
        nonlocal number
        number -= 1
        if number < 0:
            raise KilledError

    layout.prepare()
    held = layout.held()
    local = layout.compare(listing, held)
    for file in local.wanted:
        stage(layout, file.path, b"hello\n" if file.size == 6 else b"{}")
    with pytest.raises(KilledError):
        put(layout, find_changes(layout.target, held, listing, local, lambda _: True), local.wanted, tell)
    return Layout(layout.target)


OTHER = Listing("s3://models/other", "", (replace(CONFIG, validator="o"), RemoteFile("b/new", 2, "o", "k3")))


def test_a_switch_that_was_cut_short_is_refused_again(layout: Layout) -> None:
    """As long as it has something left to destroy; the former source may go on."""
    publish(layout)

    again = cut_short(layout, OTHER, 0)

    assert again.held().sources == ("s3://models/m",)
    with pytest.raises(HoldsOtherError, match="s3://models/m"):
        bring(again, OTHER)
    assert publish(again) == ["a/hello"]
    assert manifest(again).source == "s3://models/m"


def test_a_switch_that_was_cut_short_holds_both_sources(layout: Layout) -> None:
    """The former one would have to destroy what has arrived; the new one has nothing left to destroy."""
    publish(layout)

    again = cut_short(layout, OTHER, 1)

    assert again.held().sources == ("s3://models/m", "s3://models/other")
    with pytest.raises(HoldsOtherError, match="s3://models/m and s3://models/other"):
        bring(again)
    assert publish(again, OTHER) == []
    assert tree(again.target) == {".kthena/manifest.json", "config.json", "b/new"}
    assert manifest(again).source == "s3://models/other"


THIRD: Final = Listing("s3://models/third", "", (replace(CONFIG, validator="t"),))


@pytest.mark.parametrize("again", [THIRD, LISTING], ids=["a third source", "the first one, allowed"])
def test_two_switches_that_were_cut_short_forget_no_source(layout: Layout, again: Listing) -> None:
    """Files of two sources may be there: each of the two needs permission to change those of the other."""
    publish(layout)
    switched = cut_short(layout, OTHER, 1)

    both = cut_short(switched, again, 0)

    assert both.held().sources == ("s3://models/m", "s3://models/other")
    with pytest.raises(HoldsOtherError, match="s3://models/m and s3://models/other"):
        bring(both)
    assert publish(both, OTHER) == ["b/new"]
    assert tree(both.target) == {".kthena/manifest.json", "config.json", "b/new"}
    assert manifest(both).others == ()


def test_files_of_an_update_that_was_cut_short_are_ours(layout: Layout) -> None:
    """Also when the source has given them up by the next run; no second interruption loses them."""
    publish(layout, replace(LISTING, files=(HELLO, CONFIG)))
    first = RemoteFile("first", 6, "f", "k4")  # larger files come first: it arrives, then the kill comes
    again = cut_short(layout, replace(LISTING, files=(first, replace(CONFIG, validator="v2"))), 0)
    assert "first" not in tree(again.target)
    os.utime(again.target / "config.json", (1, 1))  # edited: its overwriting is reported, and there the run ends
    again = cut_short(again, replace(LISTING, files=(first, replace(CONFIG, validator="v2"))), 0)
    assert "first" in tree(again.target)

    again = cut_short(again, replace(LISTING, files=(replace(CONFIG, validator="v3"),)), 0)
    _, gone = bring(again, replace(LISTING, files=(replace(CONFIG, validator="v4"),)))
    again.clean()

    assert tree(again.target) == {".kthena/manifest.json", "config.json"}
    assert gone == []


@pytest.mark.parametrize("others", [[], ["before"]], ids=["another place", "another place before"])
def test_an_update_that_was_cut_short_is_known_from_everywhere(layout: Layout, others: list[str]) -> None:
    """Also to a process that keeps its work elsewhere: no file of the former revision remains."""
    roots = [str(layout.target)]
    publish(Layout(layout.target, roots) if others else layout)
    update = replace(LISTING, files=(replace(CONFIG, validator="v2"), RemoteFile("first", 6, "f", "k4")))
    os.utime(layout.target / "config.json", (1, 1))
    layout = Layout(layout.target, [] if others else roots)
    again = cut_short(Layout(layout.target, roots if others else []), update, 0)
    assert again.held().published is None

    publish(layout, update)

    assert tree(layout.target) == {".kthena/manifest.json", "config.json", "first"}


def test_a_place_that_is_empty_no_more_is_not_replaced(layout: Layout) -> None:
    """Another download has begun to fill it, from a process that keeps its work in the target."""
    layout.prepare()
    held = layout.held()
    local = layout.compare(LISTING, held)
    for file in LISTING.files:
        stage(layout, file.path, b"hello\n" if file.size == 6 else b"{}")
    (layout.target / ".kthena").mkdir(parents=True)

    with pytest.raises(LockedError, match="another download"):
        put(layout, find_changes(layout.target, held, LISTING, local, lambda _: True), local.wanted)
    assert tree(layout.target) == set()


def test_a_target_that_cannot_be_written_to_is_not_locked(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be changed there; that nothing has to be is a success."""
    publish(layout)
    monkeypatch.setattr(os, "access", lambda *_: False)

    assert not layout.prepare_inside()
    assert tree(layout.target) == {".kthena/manifest.json", "a/hello", "config.json"}


def test_what_an_earlier_plan_left_is_not_published(layout: Layout) -> None:
    """It may be of another revision."""
    layout.prepare()
    stage(layout, "old/left.bin", b"left")
    stage(layout, "config.json", b"{")

    layout.sweep([CONFIG])

    assert tree(layout.tree) == {"config.json"}
    publish(layout)

    assert tree(layout.target) == {".kthena/manifest.json", "a/hello", "config.json"}
    assert not (layout.target / "old").exists()


def test_a_link_in_the_place_of_work_is_refused(layout: Layout) -> None:
    """Somebody else may have put it there."""
    layout.work.symlink_to("/tmp")

    with pytest.raises(TargetError):
        layout.prepare()


def test_a_link_on_the_way_is_refused(layout: Layout, tmp_path: Path) -> None:
    """Nothing is written through it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    layout.target.mkdir()
    (layout.target / "a").symlink_to(outside)

    with pytest.raises(TargetError):
        publish(layout)
    assert list(outside.iterdir()) == []


def test_room_is_asked_for_with_numbers(layout: Layout) -> None:
    """Before there is any directory."""
    with pytest.raises(NoSpaceError, match=r"needs 1000000000000000000 bytes more.* \d+ bytes free"):
        layout.check_space(10**18)
    assert layout.check_space(1) > 1


def test_where_work_lies(tmp_path: Path) -> None:
    """Beside the target; in it where the target is the write root or a mount."""
    assert work_directory(tmp_path / "m") == tmp_path / ".m.kthena"
    assert work_directory(tmp_path, [str(tmp_path)]) == tmp_path / ".kthena/work"
    assert work_directory(tmp_path / "m", [str(tmp_path)]) == tmp_path / ".m.kthena"
    assert work_directory(Path("/dev/shm")) == Path("/dev/shm/.kthena/work")


def test_work_inside_of_the_target_leaves_no_trace(tmp_path: Path) -> None:
    """The copy and its manifest only."""
    layout = Layout(tmp_path, [str(tmp_path)])

    publish(layout)
    publish(layout, replace(LISTING, files=(HELLO, replace(CONFIG, validator="v2"))))

    assert tree(tmp_path) == {".kthena/manifest.json", "a/hello", "config.json"}
    assert not (tmp_path / ".kthena/work").exists()


def test_a_directory_in_the_place_of_a_file_that_goes_stays(layout: Layout) -> None:
    """A user put it there; the rest of the copy is updated."""
    publish(layout)
    (layout.target / "config.json").unlink()
    (layout.target / "config.json").mkdir()
    (layout.target / "config.json" / "mine").write_text("mine")

    _, gone = bring(layout, replace(LISTING, files=(HELLO,)))
    layout.clean()

    assert gone == []
    assert tree(layout.target) == {".kthena/manifest.json", "a/hello", "config.json/mine"}


def test_a_file_in_the_place_of_a_directory_of_files_that_go_stays(layout: Layout) -> None:
    """The same the other way round."""
    publish(layout)
    (layout.target / "a/hello").unlink()
    (layout.target / "a").rmdir()
    (layout.target / "a").write_text("mine")

    _, gone = bring(layout, replace(LISTING, files=(CONFIG,)))

    assert gone == []
    assert (layout.target / "a").read_text() == "mine"


def test_a_file_under_another_spelling_is_ours(layout: Layout) -> None:
    """Where the volume takes `CONFIG.json` for `config.json`; here a second link stands for that."""
    publish(layout)
    renamed = RemoteFile("CONFIG.json", 2, "v2", "k2")
    os.link(layout.target / "config.json", layout.target / "CONFIG.json")

    _, gone = bring(layout, replace(LISTING, files=(HELLO, renamed)))
    layout.clean()

    assert [(removal.path, removal.overwritten) for removal in gone] == [("config.json", False), ("CONFIG.json", True)]
    assert tree(layout.target) == {".kthena/manifest.json", "a/hello", "CONFIG.json"}


@pytest.mark.parametrize("name", ["backup.json", "a/config.json", "config.jsonl"])
def test_another_link_to_a_file_is_not_ours(layout: Layout, name: str) -> None:
    """A user made it, to keep the content."""
    publish(layout)
    os.link(layout.target / "config.json", layout.target / name)
    changed, new = replace(CONFIG, validator="v2"), RemoteFile(name, 2, "v1", "k2")

    with pytest.raises(HoldsOtherError, match=name):
        bring(layout, replace(LISTING, files=(HELLO, changed, new)))
    assert (layout.target / name).samefile(layout.target / "config.json")


def test_two_names_that_the_volume_takes_for_one_are_an_error(layout: Layout) -> None:
    """Before anything is published."""
    layout.prepare()
    stage(layout, "config.json", b"{}")
    os.link(layout.tree / "config.json", layout.tree / "CONFIG.json")
    files = (CONFIG, replace(CONFIG, path="CONFIG.json"))
    listing = replace(LISTING, files=files)
    held = layout.held()
    changes = find_changes(layout.target, held, listing, layout.compare(listing, held), lambda _: True)

    with pytest.raises(UnsafeNameError, match=r"CONFIG\.json"):
        put(layout, changes, files)
    assert not layout.target.exists()
