"""Names from the other side: what may become a path, and what may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.disk.names import check_name, check_names, make_parents
from storage.errors import DeniedError, TargetError, UnsafeNameError
from storage.request.patterns import selected
from storage.request.target import check_readable, check_target

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "name", ["a", "a/b.json", "ü/模 型+1.bin", "..a", "a..", "...", ".hidden", ".kthena.json", "a/x.kthena"]
)
def test_a_good_name(name: str) -> None:
    """Odd ones included."""
    assert name == check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "../a",
        "a/../b",
        "a/./b",
        "a\\b",
        "a\0b",
        "a\nb",
        ".kthena/x",
        "a/.kthena",
        "a/b/.kthena/manifest.json",
        ".a.kthena/lock-1",
        "a/.b.kthena/tree/x",
        "a/.KTHENA/manifest.json",
        "x" * 256,
        "\ud800",
    ],
)
def test_a_bad_name(name: str) -> None:
    """Each would lead out, or break something."""
    with pytest.raises(UnsafeNameError):
        check_name(name)


@given(st.text(min_size=1, max_size=80))
def test_a_name_that_passes_stays_below(name: str) -> None:
    """Whatever it is made of."""
    try:
        check_name(name)
    except UnsafeNameError:
        return
    path = Path("/target") / name
    assert path.parts[:2] == ("/", "target")
    assert not {"..", "."} & set(path.parts)


@pytest.mark.parametrize("names", [["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"]])
def test_names_that_are_no_tree(names: list[str]) -> None:
    """Twice the same, or a file that is a directory."""
    with pytest.raises(UnsafeNameError):
        check_names(names)


def test_parents_are_made_through_no_link(tmp_path: Path) -> None:
    """It could lead anywhere."""
    (tmp_path / "link").symlink_to("/tmp")

    assert make_parents(tmp_path, "a/b/c.bin") == tmp_path / "a/b/c.bin"
    assert (tmp_path / "a/b").is_dir()
    with pytest.raises(TargetError):
        make_parents(tmp_path, "link/x")


@pytest.mark.parametrize(
    ("include", "exclude", "passes"),
    [
        ((), (), True),
        (("*.json",), (), True),
        (("*.bin",), (), False),
        ((), ("a/",), False),
        (("a/",), ("*.json",), False),
    ],
)
def test_patterns(include: tuple[str, ...], exclude: tuple[str, ...], *, passes: bool) -> None:
    """As huggingface_hub reads them."""
    assert passes is selected("a/b.json", include, exclude)


@pytest.mark.parametrize(
    "path", ["/", "/etc/x", "/usr/local/m", "/proc/1", "/tmp", "/dev/sda", "", "/var/run/x", "/root"]
)
def test_system_directories_are_no_targets(path: str) -> None:
    """Whatever the roots are."""
    with pytest.raises(TargetError):
        check_target(path, ["/"])


def test_a_target_lies_in_a_root(tmp_path: Path) -> None:
    """Once links are resolved; a name that begins like a root's is outside."""
    root = tmp_path / "models"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)

    assert check_target(str(root / "a"), [str(root)]) == root / "a"
    for path in (tmp_path / "models-old", root / "out" / "x", root / ".." / "x"):
        with pytest.raises(TargetError):
            check_target(str(path), [str(root)])


def test_a_link_to_a_system_directory_is_one(tmp_path: Path) -> None:
    """Links are followed first."""
    (tmp_path / "link").symlink_to("/etc")

    with pytest.raises(TargetError):
        check_target(str(tmp_path / "link" / "x"))


@pytest.mark.parametrize("path", ["/etc", "/proc/self", "/var/run/secrets", "/"])
def test_what_is_no_volume_is_not_read(path: str) -> None:
    """Secrets above all."""
    with pytest.raises(DeniedError):
        check_readable(path)
