"""The entry point of kthena-downloader: starts a worker process first, which imports while this process imports."""

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
    """Run kthena-downloader to its end: the console script."""
    _open_streams()
    # Until `storage.cli.main` handles signals, there is nothing to clean up: Ctrl-C ends the process silently.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with Spare() as spare:
        from storage.cli.main import main as run

        code = run(start=spare.take)
    leave(code)


def _open_streams() -> None:
    """Open closed standard streams (as after `>&-`) to the null device.

    Otherwise the next opened file gets the stream's descriptor, and output would go into that file.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - for as long as this runs


if __name__ == "__main__":
    main()
