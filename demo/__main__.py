"""The whole of it on one screen: an engine under load, the runtime before it, a Prometheus that scrapes it.

::

    python -m demo --engine sglang

All numbers come from the runtime's /metrics. Exit codes: 0 ended on Ctrl-C, SIGTERM, SIGHUP or after --duration,
1 a program of the demo failed, or nobody reads the output, 2 bad usage.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from contextlib import ExitStack
from io import TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from demo.child import DemoError
from demo.display import OutputGoneError, Pipe, Terminal, is_drawable
from demo.history import History
from demo.programs import Programs
from demo.signals import Pauses, StopDemo
from demo.watch import Watch
from demo.welcome import farewell, links, title
from simulators.engine.api import FLAVOURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from demo.display import Display


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit code."""
    options = _parser().parse_args(arguments)
    # A log in another encoding than UTF-8 shall not end it.
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        run(options, _display())
    except DemoError as error:
        sys.stderr.write(f"demo: error: {error}\n")
        return 1
    except OutputGoneError:
        return 1
    return 0


def run(options: argparse.Namespace, display: Display) -> None:
    """Start everything, show it until somebody asks for the end, and end everything.

    Raises:
        DemoError: A program of the demo failed.
        OutputGoneError: Nobody reads.
    """
    history = History()
    with Pauses() as pauses:
        try:
            with ExitStack() as cleanup:
                folder = Path(cleanup.enter_context(TemporaryDirectory(prefix="kthena-demo-")))
                programs = Programs(folder, cleanup, pauses)
                display.say(title(options.engine, options.load))
                url = programs.start_engine(options.engine, options.load)
                url = programs.start_runtime(options.engine, url, options.port)
                display.say(links(url, programs.start_prometheus(url, options.prometheus_port)))
                Watch(url, programs.children, history, display, pauses).run(options.duration)
        except StopDemo:
            pass
    display.say(farewell(history))


def _display() -> Display:
    if is_drawable(sys.stdout, os.environ):
        return Terminal(sys.stdout, colour=not os.environ.get("NO_COLOR"))
    return Pipe(sys.stdout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="An embedded engine, the runtime before it, and what its metrics say, live.",
    )
    add = parser.add_argument
    add("--engine", choices=sorted(FLAVOURS), default="vllm", help="which engine to embed [vllm]")
    add("--load", type=_number, default=8.0, metavar="RATE", help="requests per second on average [8]")
    add("--duration", type=_number, default=math.inf, metavar="SECONDS", help="end after so long [never]")
    add("--port", type=int, help="the runtime's; 0 takes a free one [9000 if it is free]")
    add("--prometheus-port", type=int, metavar="PORT", help="Prometheus's; likewise [9090 if it is free]")
    return parser


def _number(text: str) -> float:
    number = float(text)
    if not 0.0 <= number < math.inf:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    raise SystemExit(main())
