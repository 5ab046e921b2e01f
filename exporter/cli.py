"""The command line: flags and environment in, exit code out.

Exit codes: 0 ended on a signal, 1 cannot run (port in use), 2 bad usage.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from exporter import __version__
from exporter.config import OPTIONS, ConfigError, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

    from exporter.config import Option

__all__ = ["main"]

PROGRAM: Final = "kthena-runtime"
EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, as for any other bad value."""
        raise ConfigError(message)


def build_parser() -> argparse.ArgumentParser:
    """Make the parser from the table of options."""
    parser = _Parser(
        prog=PROGRAM,
        description="The sidecar beside an LLM inference engine: its metrics under one set of names.",
        epilog="A flag wins over its environment variable, the variable over the default.",
        allow_abbrev=False,
    )
    for option in OPTIONS:
        if option.metavar:
            parser.add_argument(*option.flags, dest=option.name, metavar=option.metavar, help=_help(option))
        else:
            parser.add_argument(*option.flags, dest=option.name, action="store_const", const="true", help=_help(option))
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run the runtime until a signal ends it; return the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end_at_once)
    try:
        flags = vars(build_parser().parse_args(argv))
        settings = resolve(flags, os.environ if environ is None else environ)
        # Imported here so that --help, --version and mistakes answer at once.
        from exporter.memory import use_one_heap  # noqa: PLC0415
        from exporter.service import ServiceError, run  # noqa: PLC0415
    except ConfigError as error:
        return _fail(str(error), EXIT_USAGE)
    try:
        use_one_heap()
        run(settings)
    except ConfigError as error:
        return _fail(str(error), EXIT_USAGE)
    except ServiceError as error:
        return _fail(str(error), EXIT_FAILURE)
    return 0


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - a signal handler's signature
    """End before anything was begun; the service has handlers of its own."""
    raise SystemExit(0)


def _help(option: Option) -> str:
    notes = [f"default {option.default}"] if option.default and option.metavar else []
    notes += [f"variable {option.variable}"] if option.variable else []
    notes += ["required"] if option.required else []
    return f"{option.help} [{', '.join(notes)}]" if notes else option.help


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"{PROGRAM}: error: {' '.join(message.split())}\n")
    return code
