"""How full file systems are: measured beside the scrapes, so that a volume that hangs holds up none."""

from __future__ import annotations

import shutil
from threading import Event, Thread
from threading import enumerate as enumerate_threads
from typing import TYPE_CHECKING

import pytest

from exporter.telemetry.volumes import Usage, Volumes, measure
from simulators.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Disks:
    """File systems that answer, fail, or hang; and a clock."""

    def __init__(self) -> None:
        self.looks: dict[str, int] = {}
        self.broken: set[str] = set()
        self.hangs = False
        self.answers = Event()
        self.answers.set()
        self.now = 0.0

    def look(self, directory: str) -> Usage:
        self.looks[directory] = count = self.looks.get(directory, 0) + 1
        if "hung" in directory:
            self.hangs = not self.answers.is_set()
            self.answers.wait()
        if directory in self.broken:
            raise OSError
        return Usage(count, 1000)


@pytest.fixture
def disks() -> Iterator[Disks]:
    disks = Disks()
    yield disks
    disks.answers.set()


@pytest.fixture
def volumes(disks: Disks) -> Iterator[Volumes]:
    volumes = Volumes(look=disks.look, interval=0.01, clock=lambda: disks.now)
    yield volumes
    disks.answers.set()
    volumes.follow(())
    wait_until(lambda: not volumes.usages(), "nothing is followed")


def threads_since(before: set[Thread]) -> list[Thread]:
    """Return the threads that measure and were not there before; those of other tests may still be ending."""
    return [thread for thread in enumerate_threads() if thread.name == "volume" and thread not in before]


def test_a_volume_that_hangs_from_the_beginning(disks: Disks, volumes: Volumes) -> None:
    """It has no figures, one thread waits for it, and the figures of the others come and change."""
    before = set(enumerate_threads())
    disks.answers.clear()
    volumes.follow(["/good", "/hung"])
    wait_until(lambda: volumes.usages().get("/good", Usage(0, 0)).free > 2, "the good one is measured")
    for _ in range(100):
        volumes.follow(["/good", "/hung"])
        assert "/hung" not in volumes.usages()

    assert (disks.looks["/hung"], len(threads_since(before))) == (1, 2)


def test_a_volume_that_hangs_later(disks: Disks, volumes: Volumes, caplog: pytest.LogCaptureFixture) -> None:
    """Its last figures count for a minute, then it has none until it answers; the log says so once."""
    caplog.set_level("INFO")
    volumes.follow(["/hung"])
    wait_until(volumes.usages, "it is measured")
    disks.answers.clear()
    wait_until(lambda: disks.hangs, "it hangs")
    disks.now = 60.0
    assert "/hung" in volumes.usages()
    disks.now = 61.0
    assert [volumes.usages() for _ in range(3)] == [{}] * 3
    disks.answers.set()

    wait_until(volumes.usages, "it is measured again")
    assert caplog.text.count("a volume hangs") == caplog.text.count("a volume answers again") == 1


def test_a_directory_that_cannot_be_looked_at(disks: Disks, volumes: Volumes) -> None:
    """It has no figures as long as that lasts."""
    volumes.follow(["/a"])
    wait_until(volumes.usages, "it is measured")
    disks.broken.add("/a")
    wait_until(lambda: not volumes.usages(), "it has no figures")
    disks.broken.clear()

    wait_until(volumes.usages, "it is measured again")


def test_directories_come_and_go(volumes: Volumes) -> None:
    """Only those that are followed have figures, and threads."""
    before = set(enumerate_threads())
    for number in range(20):
        volumes.follow([f"/{number}"])
        wait_until(lambda: list(volumes.usages()) == [f"/{number}"], "it is measured")  # noqa: B023
    volumes.follow(())
    volumes.join()

    assert volumes.usages() == {}
    wait_until(lambda: not threads_since(before), "the threads end")


def test_directories_on_a_volume_that_hangs_have_a_bounded_number_of_threads(disks: Disks, volumes: Volumes) -> None:
    """Downloads may name any directory there, one after the other."""
    before = set(enumerate_threads())
    disks.answers.clear()
    for number in range(100):
        volumes.follow([f"/hung/{number}"])

    assert 0 < len(threads_since(before)) <= 16


def test_a_directory_that_is_not_there_yet(tmp_path: Path) -> None:
    """The file system that it will be on is measured."""
    assert measure(str(tmp_path / "a" / "b")).total == shutil.disk_usage(tmp_path).total
