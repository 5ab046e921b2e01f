"""The first step of kthena-downloader: a worker's interpreter starts while this one still imports."""

from __future__ import annotations

import signal
from typing import NoReturn

from storage.process import Spare, leave

__all__ = ["main"]


def main() -> NoReturn:
    """Run the program to its end."""
    # Until there is something to end in order.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with Spare() as spare:
        from storage.cli import main as run  # noqa: PLC0415 - after the worker was started

        code = run(start=spare.take)
    leave(code)


if __name__ == "__main__":
    main()
