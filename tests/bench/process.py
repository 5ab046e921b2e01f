"""A benchmark in its quick form, in a process that takes all of its own along when it is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

__all__ = ["TIMEOUT", "run"]

# Half a minute or a minute each on a quiet machine.
TIMEOUT: Final = pytest.mark.timeout(900)

_ROOT: Final = Path(__file__).parents[2]


def run(program: str, *arguments: str) -> tuple[str, str]:
    """Run it to its end; return what it printed, and what it said beside that."""
    command = [sys.executable, "-m", f"bench.{program}", "--quick", *arguments]
    process = subprocess.Popen(
        command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        printed, said = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    assert process.returncode == 0, said
    return printed, said
