"""The yardstick itself: what the tests of faults measure memory with."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.harness.memory import MIB, Watch, limited

pytestmark = [pytest.mark.faults, pytest.mark.slow]

GREEDY = "import sys; x = b'x' * (64 << 20); print('ready', flush=True); sys.stdin.read()"


def test_a_watch_sees_what_a_process_takes() -> None:
    """Peak and share of 64 MiB."""
    with subprocess.Popen([sys.executable, "-c", GREEDY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with Watch(process.pid) as watch:
            pass

    assert watch.peaks[process.pid] > 64 * MIB
    assert 64 * MIB < watch.proportional < 96 * MIB


def test_a_group_ends_what_takes_more() -> None:
    """Where groups can be made, their limit holds."""
    with limited(32 * MIB) as group:
        command = [sys.executable, "-c", GREEDY]
        process = subprocess.run(group.confine(command) if group else command, input=b"", check=False)

    assert process.returncode == (-9 if group else 0)
