"""The first step of kthena-downloader: a worker's interpreter starts while this one still imports."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from storage.process import leave
from storage.supervisor.spawn import Spare

__all__ = ["main"]


def main() -> NoReturn:
    """Run the program to its end."""
    _open_streams()
    # Until there is something to end in order.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with Spare() as spare:
        from storage.cli.main import main as run

        code = run(start=spare.take)
    leave(code)


def _open_streams() -> None:
    """Give a standard stream that is closed, as `>&-` leaves it, somewhere to go: its number is another file's soon."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - for as long as this runs


if __name__ == "__main__":
    main()
