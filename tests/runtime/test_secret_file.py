"""A secret in a file: what counts as one, and what happens while the file changes, disappears or hangs."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from exporter import secret_file
from exporter.secret_file import SecretFile, read_secret
from simulators.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.unit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "token"
    made.write_text("first\n")
    return made


@pytest.fixture
def follow(path: Path) -> Iterator[Callable[..., SecretFile]]:
    followed: list[SecretFile] = []

    def make(**options: Any) -> SecretFile:
        followed.append(SecretFile(path, **options))
        return followed[-1]

    yield make
    for one in followed:
        one.stop()
        one.join()


class Hanging:
    """Reads the file, or hangs."""

    def __init__(self) -> None:
        self.gate = Event()
        self.gate.set()

    def __call__(self, path: Path) -> str:
        self.gate.wait()
        return read_secret(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"two\nlines", "not one line"),
        (b"a\0b", "not one line"),
        (b"\xff\xfe", "codec"),
    ],
    ids=repr,
)
def test_what_is_no_secret(path: Path, content: bytes, problem: str) -> None:
    """A secret is one line of text."""
    path.write_bytes(content)

    with pytest.raises(ValueError, match=problem):
        SecretFile(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe, a directory, nothing at all and a large file are errors at the start, and none of them is waited for."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="regular file"):
        SecretFile(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        SecretFile(tmp_path)
    with pytest.raises(FileNotFoundError):
        SecretFile(tmp_path / "missing")
    (tmp_path / "large").write_bytes(b"x" * 100_000)
    with pytest.raises(OSError, match="more than 65536 bytes"):
        SecretFile(tmp_path / "large")


def test_a_change_counts_immediately(path: Path, follow: Callable[..., SecretFile]) -> None:
    """Written in place or renamed, with the same size and time or not."""
    secret = follow()
    assert secret.current() == "first"
    for text in ("other", "third"):
        new = path.with_suffix(".new")
        new.write_text(text)
        os.utime(new, ns=(0, 0))
        new.replace(path)
        assert (secret.current(), secret.last()) == (text, text)


def test_while_there_is_no_secret_it_is_not_known(
    path: Path, follow: Callable[..., SecretFile], caplog: pytest.LogCaptureFixture
) -> None:
    """Missing or empty; the last one is there for those who can use it, and one line says so."""
    caplog.set_level("INFO")
    secret = follow()
    path.unlink()
    assert [secret.current() for _ in range(3)] == [None] * 3
    path.write_text("")
    assert (secret.current(), secret.last()) == (None, "first")
    path.write_text("second")

    assert secret.current() == "second"
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "first" not in caplog.text


def test_a_file_that_hangs_holds_up_a_request_once(
    follow: Callable[..., SecretFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The secret counts for a while; then it does not, until the file can be read again."""
    monkeypatch.setattr(secret_file, "_REQUEST_SECONDS", 0.5)
    read, now = Hanging(), [0.0]
    secret = follow(read=read, clock=lambda: now[0])
    read.gate.clear()
    started = monotonic()
    with ThreadPoolExecutor(30) as callers:
        assert [found.result() for found in [callers.submit(secret.current) for _ in range(30)]] == ["first"] * 30
    for _ in range(100):
        assert secret.current() == "first"
    assert monotonic() - started < 20
    now[0] = 11.0
    assert (secret.current(), secret.last()) == (None, "first")
    read.gate.set()

    wait_until(lambda: secret.current() == "first", "it is read again")


def test_a_file_that_hangs_at_the_start_is_an_error(path: Path) -> None:
    """It is not waited for without end."""
    read = Hanging()
    read.gate.clear()

    with pytest.raises(TimeoutError, match=r"not read within 0\.2 s"):
        SecretFile(path, read=read, patience=0.2)
    read.gate.set()


def test_a_secret_is_not_shown(follow: Callable[..., SecretFile]) -> None:
    """Its representation names the file only."""
    assert "first" not in repr(follow())
