"""Worker processes that are started ahead of their request."""

from __future__ import annotations

import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from simulators.waiting import wait_until
from storage.request.download import DownloadRequest
from storage.supervisor.limits import Limits
from storage.supervisor.spawn import Spare, start
from storage.supervisor.supervisor import Supervisor


def children() -> set[int]:
    """Return the processes that this one has started and not waited for."""
    return {int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}


def test_a_spare_is_there_before_it_is_taken() -> None:
    """The first that is taken is the one that was started ahead; then there are new ones."""
    before = children()
    with Spare() as spare:
        (ahead,) = children() - before
        first, second = spare.take(), spare.take()

    assert first.pid == ahead
    assert second.pid != ahead
    for process in (first, second):
        process.communicate()
    assert children() == before


def test_a_spare_that_nobody_takes_goes() -> None:
    """As after a usage error."""
    before = children()

    with suppress(ValueError), Spare():
        assert children() - before
        raise ValueError

    assert children() == before


def test_a_worker_without_a_request_ends(capfd: pytest.CaptureFixture[str]) -> None:
    """Its parent is gone; it says so to nobody in particular, and leaves nothing."""
    process = start()

    said, _ = process.communicate(b"")

    assert process.returncode == 2
    assert b"failed" in said
    assert "Traceback" not in capfd.readouterr().err
    assert not os.path.exists(f"/proc/{process.pid}")  # noqa: PTH110 - of a process


def test_a_worker_gives_way() -> None:
    """As far as it should."""
    process = start(nice=19)

    nice = os.getpriority(os.PRIO_PROCESS, process.pid)
    process.communicate(b"")

    assert nice == 19


@pytest.mark.parametrize(("limits", "expected"), [(Limits(), 19), (Limits(worker_nice=7), 7)])
def test_the_supervisors_workers_give_way(tmp_path: Path, limits: Limits, expected: int) -> None:
    """As far as a process can, unless the supervisor has another value."""
    told = tmp_path / "nice"
    code = f"import os, sys, pathlib; sys.stdin.readline(); pathlib.Path({str(told)!r}).write_text(str(os.nice(0)))"
    supervisor = Supervisor(limits, command=[sys.executable, "-c", code])

    supervisor.submit(DownloadRequest("org/model", str(tmp_path / "m")))
    wait_until(lambda: told.exists() and told.read_text(), "the worker has run")
    supervisor.stop()

    assert told.read_text() == str(expected)


def test_a_terminal_does_not_stop_a_worker() -> None:
    """It is not in the foreground there, and may have something to say."""
    process = start()
    status = Path(f"/proc/{process.pid}/status")

    def ignores() -> bool:
        (ignored,) = re.findall(r"^SigIgn:\s+(\w+)", status.read_text(), re.MULTILINE)
        return bool(int(ignored, 16) >> signal.SIGTTOU - 1 & 1)

    wait_until(ignores, "it ignores the signal")
    process.communicate(b"")
