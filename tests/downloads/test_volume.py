"""Models from a mounted volume: copied, not more than needed, and never from outside of it."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_IMODE
from typing import TYPE_CHECKING, Final

import pytest

from storage.errors import ChangedError
from storage.request.source import PvcSource, parse_source
from storage.sources.volume import VolumeCopier
from tests.harness.downloader import contents

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.harness.downloader import Downloader

MODEL: Final = {
    "config.json": b'{"model_type": "test"}',
    "weights/model 1+2.safetensors": bytes(range(256)) * 8192,
    "größe 模型.bin": b"unicode",
    "empty.txt": b"",
}
OLD: Final = 1_700_000_000


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A folder with a model, beside one with a secret."""
    volume = tmp_path / "claim" / "model"
    for name, data in MODEL.items():
        path = volume / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (OLD, OLD))
    outside = tmp_path / "claim" / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    return volume


def uris(volume: Path) -> list[str]:
    """Return every way to write a folder's URI."""
    return [f"pvc:/{volume}", f"pvc://{volume}", f"pvc:/{volume}/"]


@pytest.mark.parametrize("way", range(3))
def test_a_folder_is_copied(downloader: Downloader, volume: Path, target: Path, way: int) -> None:
    """Whether its URI has two slashes or three, or one at its end."""
    run = downloader.run(uris(volume)[way], target)

    assert run.code == 0, run.stderr
    assert contents(target) == MODEL


def test_a_single_file_is_copied(downloader: Downloader, volume: Path, target: Path) -> None:
    """Under its own name."""
    run = downloader.run(f"pvc:/{volume}/config.json", target)

    assert run.code == 0, run.stderr
    assert contents(target) == {"config.json": MODEL["config.json"]}


def test_the_copy_of_a_single_file_is_verified(downloader: Downloader, volume: Path, target: Path) -> None:
    """With its source; a copy that was damaged is found out."""
    source = f"pvc:/{volume}/config.json"
    assert downloader.run(source, target).code == 0
    good = downloader.run(source, target, "--verify")
    (target / "config.json").write_bytes(MODEL["config.json"][::-1])
    bad = downloader.run(source, target, "--verify")
    (volume / "config.json").unlink()
    gone = downloader.run(source, target, "--verify")

    assert good.code == 0, good.stderr
    assert (bad.code, gone.code) == (7, 3), (bad.stderr, gone.stderr)


TURNS: Final[dict[str, Callable[[Path], object]]] = {
    "folder": Path.mkdir,
    "file": Path.touch,
    "loop": lambda path: path.symlink_to(path),
    "nothing": lambda path: path,
}


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
def test_a_source_that_changes_is_no_mistake_of_the_target(
    volume: Path, target: Path, turn: Callable[[Path], object]
) -> None:
    """Whatever the folder of a file turns into between the listing and the copy."""
    source = parse_source(f"pvc:/{volume}")
    assert isinstance(source, PvcSource)
    copier = VolumeCopier(source, target)
    file = next(file for file in copier.listing().files if file.path.startswith("weights/"))
    (volume / "weights").rename(volume / "weights.old")
    turn(volume / "weights")

    with pytest.raises(ChangedError, match=f"{volume}/weights"):
        copier.find_digest(file)


def test_a_second_run_copies_nothing(downloader: Downloader, volume: Path, target: Path) -> None:
    """The files stay those that they were; what changed is copied, what is gone goes."""
    assert downloader.run(f"pvc:/{volume}", target).code == 0
    before = inodes(target)
    assert downloader.run(f"pvc:/{volume}", target).code == 0
    same = inodes(target)
    (volume / "config.json").write_bytes(b"new")
    (volume / "empty.txt").unlink()

    run = downloader.run(f"pvc:/{volume}", target)

    assert run.code == 0, run.stderr
    assert same == before
    assert contents(target) == {name: data for name, data in MODEL.items() if name != "empty.txt"} | {
        "config.json": b"new"
    }
    assert {name for name, inode in inodes(target).items() if inode != before[name]} == {"config.json"}


def inodes(folder: Path) -> dict[str, tuple[int, int]]:
    """Return which file each name is, and when it was written."""
    statuses = {name: (folder / name).stat() for name in contents(folder)}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in statuses.items()}


def test_the_copy_is_no_link(downloader: Downloader, volume: Path, target: Path) -> None:
    """To write to the volume later does not change the model."""
    assert downloader.run(f"pvc:/{volume}", target).code == 0

    with (volume / "config.json").open("r+b") as file:
        file.write(b"X")

    assert contents(target) == MODEL


def test_a_copy_can_be_copied(downloader: Downloader, volume: Path, target: Path, tmp_path: Path) -> None:
    """What a download made is a model like any other, and its records are not part of it."""
    assert downloader.run(f"pvc:/{volume}", target).code == 0

    run = downloader.run(f"pvc:/{target}", tmp_path / "second")

    assert run.code == 0, run.stderr
    assert contents(tmp_path / "second") == MODEL


def test_a_copy_that_is_not_whole_is_not_copied(downloader: Downloader, volume: Path, target: Path) -> None:
    """Another download may be at work on the volume."""
    work = volume / ".other.kthena" / "tree"
    work.mkdir(parents=True)
    (work / "half.bin").write_bytes(b"half")

    run = downloader.run(f"pvc:/{volume}", target)

    assert run.code == 0, run.stderr
    assert contents(target) == MODEL


def test_an_empty_target_keeps_its_rights(downloader: Downloader, volume: Path, target: Path) -> None:
    """Whoever made the directory said who may read what comes into it."""
    target.mkdir(parents=True)
    os.chown(target, -1, 1234)
    target.chmod(0o2750)

    run = downloader.run(f"pvc:/{volume}", target)

    assert run.code == 0, run.stderr
    status = target.stat()
    assert (S_IMODE(status.st_mode), status.st_gid) == (0o2750, 1234)
    assert (target / "config.json").stat().st_gid == 1234


def test_links_inside_are_followed(downloader: Downloader, volume: Path, target: Path) -> None:
    """To files and to folders, relative or absolute: a cache of the Hub is made of such links."""
    (volume / "link.json").symlink_to("config.json")
    (volume / "weights" / "up.json").symlink_to("../config.json")
    (volume / "absolute.json").symlink_to(volume / "config.json")
    (volume / "folder").symlink_to("weights")

    run = downloader.run(f"pvc:/{volume}", target)

    assert run.code == 0, run.stderr
    found = contents(target)
    assert {found[name] for name in ("link.json", "weights/up.json", "absolute.json")} == {MODEL["config.json"]}
    assert found["folder/model 1+2.safetensors"] == MODEL["weights/model 1+2.safetensors"]
    assert not [path for path in target.rglob("*") if path.is_symlink()]


@pytest.mark.parametrize(
    "leads",
    [
        "../outside/secret",
        "../outside",
        "{outside}/secret",
        "/etc/hostname",
        "/proc/self/environ",
        "../model/../outside/secret",
    ],
)
def test_links_outside_are_refused(downloader: Downloader, volume: Path, target: Path, leads: str) -> None:
    """To a file or a folder, and the one that leads there is named."""
    (volume / "weights" / "bad-link").symlink_to(
        volume / "weights" / leads.replace("{outside}", str(volume.parent / "outside"))
    )
    (volume / "bad-link").symlink_to(leads.replace("{outside}", str(volume.parent / "outside")))

    run = downloader.run(f"pvc:/{volume}", target)

    assert run.code in {4, 7}, run.stderr
    assert "bad-link" in run.stderr
    assert not target.exists() or contents(target) == {}


@pytest.mark.parametrize("kind", ["dangling", "loop", "fifo"])
def test_what_is_no_file_is_told(downloader: Downloader, volume: Path, target: Path, kind: str) -> None:
    """A link to nowhere, one to itself, and a pipe, which would never end, are named in an error."""
    odd = volume / "odd"
    if kind == "fifo":
        os.mkfifo(odd)
    else:
        odd.symlink_to("nowhere" if kind == "dangling" else "odd")

    run = downloader.run(f"pvc:/{volume}", target)

    assert run.code not in {0, 1, 2}, run.stderr
    assert "odd" in run.stderr


def test_a_loop_of_folders_ends(downloader: Downloader, volume: Path, target: Path) -> None:
    """A link to the folder above would go round for ever."""
    (volume / "weights" / "round").symlink_to("..")

    run = downloader.run(f"pvc:/{volume}", target)

    assert run.code in {4, 7}, run.stderr
    assert "round" in run.stderr


@pytest.mark.parametrize(
    ("path", "code"),
    [("/nothing/here", 3), ("/etc", 4), ("/proc/self", 4), ("/var/run/secrets/kubernetes.io", 4), ("/root", 4)],
)
def test_what_is_no_volume(downloader: Downloader, target: Path, path: str, code: int) -> None:
    """Nothing there is not found; the system's own folders are refused, secrets above all."""
    run = downloader.run(f"pvc:/{path}", target)

    assert run.code == code, run.stderr
    assert path in run.stderr


@pytest.mark.parametrize("inside", [True, False], ids=["target in source", "source in target"])
def test_into_itself(downloader: Downloader, volume: Path, *, inside: bool) -> None:
    """A copy into its own source, or the other way round, is refused and changes nothing."""
    target = volume / "copy" if inside else volume.parent

    run = downloader.run(f"pvc:/{volume}", target)

    assert run.code == 2, run.stderr
    assert contents(volume) == MODEL
    assert (volume.parent / "outside" / "secret").read_text() == "secret"


def test_an_empty_folder_is_an_error(downloader: Downloader, volume: Path, target: Path) -> None:
    """It would be an empty model."""
    empty = volume.parent / "nothing"
    empty.mkdir()

    run = downloader.run(f"pvc:/{empty}", target)

    assert run.code == 3, run.stderr


def test_content_is_compared_when_asked(downloader: Downloader, volume: Path, target: Path) -> None:
    """Bytes that changed under the same size and time are seen by `--verify` only; a whole copy passes."""
    assert downloader.run(f"pvc:/{volume}", target).code == 0
    whole = downloader.run(f"pvc:/{volume}", target, "--verify")
    assert whole.code == 0, whole.stderr
    with (target / "config.json").open("r+b") as file:
        file.write(b"X")
    os.utime(target / "config.json", ns=(0, (volume / "config.json").stat().st_mtime_ns))

    run = downloader.run(f"pvc:/{volume}", target, "--verify")

    assert run.code == 7, run.stderr
    assert "config.json" in run.stderr
    assert "leads out" not in run.stderr


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_verify_tells_the_source_from_the_copy(downloader: Downloader, volume: Path, target: Path, how: str) -> None:
    """A file that the volume has no more, or has anew, says nothing against the copy."""
    assert downloader.run(f"pvc:/{volume}", target).code == 0
    if how == "gone":
        (volume / "config.json").unlink()
    else:
        (volume / "config.json").write_bytes(b"other")

    run = downloader.run(f"pvc:/{volume}", target, "--verify")

    assert run.code == 7, run.stderr
    assert f"config.json {'is gone' if how == 'gone' else 'has changed'} [source_changed]" in run.stderr


def test_a_directory_gives_the_terminal_no_orders(downloader: Downloader, volume: Path, tmp_path: Path) -> None:
    """Neither in an error nor in other lines."""
    strange = tmp_path / "\x1b[31mred"

    run = downloader.run(f"pvc:/{volume}", strange, "--dry-run")
    refused = downloader.run(f"pvc:/{volume}/nothing\x9b", strange)

    assert run.code == 0, run.stderr
    assert (r"\x1b[31mred" in run.stdout, "\x1b" in run.stdout + run.stderr) == (True, False)
    assert refused.code in {2, 3}
    assert "\x9b" not in refused.stderr
