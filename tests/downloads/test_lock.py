"""The lock: one holder, a wait that says for whom, and takeover from the dead only."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from storage.disk.lock import Holder, Lock
from storage.errors import LockedError

if TYPE_CHECKING:
    from pathlib import Path


def elsewhere(**changes: object) -> str:
    """Return the lock file of another machine."""
    return json.dumps(asdict(Holder("t", "node-7", 4711, "other", "other", "1")) | changes)


def test_one_holds_and_another_does_not(tmp_path: Path) -> None:
    """Its holder is named; afterwards nothing is left."""
    with Lock(tmp_path), pytest.raises(LockedError, match=f"process {os.getpid()} on "), Lock(tmp_path, timeout=0):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_next_gets_it_when_it_is_free(tmp_path: Path) -> None:
    """Soon, and having said whom it waited for."""
    waited: list[str] = []
    first = Lock(tmp_path)
    first.__enter__()

    def release(holder: Holder, _seconds: float) -> None:
        waited.append(str(holder))
        first.__exit__()

    with Lock(tmp_path, on_wait=release) as second:
        second.check()

    assert waited[0].startswith(f"process {os.getpid()} on ")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"odd": 1}', "[" * 4000, "x" * 100_000, elsewhere()])
def test_a_holder_without_a_sign_is_taken_over(tmp_path: Path, text: str) -> None:
    """After its lease by the waiter's own clock, whoever it was."""
    (tmp_path / "lock-3").write_text(text)
    moments = iter(range(0, 1000, 5))

    with Lock(tmp_path, lease=20, clock=lambda: next(moments)) as lock:
        lock.check()
        assert [path.name for path in tmp_path.iterdir()] == ["lock-4"]


@pytest.mark.parametrize("other", [None, "lock-7"])
def test_a_lock_without_a_next_number_is_removed(tmp_path: Path, other: str | None) -> None:
    """After its lease: no runtime makes such a lock file. One that it hid is taken over next."""
    for name in ("lock-999999999999999999", *([other] if other else [])):
        (tmp_path / name).write_text(elsewhere())
    moments = iter(range(0, 1000, 5))

    with Lock(tmp_path, lease=20, timeout=500, clock=lambda: next(moments)) as lock:
        lock.check()
        assert [path.name for path in tmp_path.iterdir()] == ["lock-8" if other else "lock-1"]


def test_other_files_are_no_locks(tmp_path: Path) -> None:
    """With digits of other scripts, or too many."""
    for name in ("lock-1000000000000000000", "lock-\u0665", "lock--1", "lock-"):
        (tmp_path / name).write_text(elsewhere())

    with Lock(tmp_path, timeout=0) as lock:
        lock.check()


def test_a_holder_that_gives_signs_is_not(tmp_path: Path) -> None:
    """However long it holds."""
    path = tmp_path / "lock-1"
    path.write_text(elsewhere())
    times = iter(range(1, 1000))

    def touch(_holder: Holder, _seconds: float) -> None:
        os.utime(path, (0, next(times)))

    moments = iter(range(0, 100_000, 15))
    with pytest.raises(LockedError, match="4711 on node-7"):
        Lock(tmp_path, timeout=200, lease=20, on_wait=touch, clock=lambda: next(moments)).__enter__()

    assert path.exists()


def test_a_dead_process_of_this_machine_is_known_at_once(tmp_path: Path) -> None:
    """By its number and when it was born: another process may have the number by now."""
    mine = Lock(tmp_path)._holder
    (tmp_path / "lock-1").write_text(json.dumps(asdict(mine) | {"token": "dead", "born": "1"}))

    with Lock(tmp_path, timeout=0) as lock:
        lock.check()


def test_whoever_lost_the_lock_is_told(tmp_path: Path) -> None:
    """It slept too long, and another has the directory."""
    with Lock(tmp_path) as lock:
        (tmp_path / "lock-2").write_text(elsewhere())

        with pytest.raises(LockedError, match="4711 on node-7"):
            lock.check()

    assert (tmp_path / "lock-2").exists()


def test_many_at_once_are_one_after_the_other(tmp_path: Path) -> None:
    """A dead holder's lock, and eight who want it."""
    (tmp_path / "lock-1").write_text(json.dumps(asdict(Lock(tmp_path)._holder) | {"token": "dead", "born": "1"}))
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with Lock(tmp_path):
            inside.append(number)
            most.append(len(inside))
            inside.remove(number)

    threads = [Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert most == [1] * 8
    assert list(tmp_path.iterdir()) == []
