"""The command line: flags and environment in, exit code out.

Exit codes: 0 after SIGTERM or SIGINT, 1 if the runtime cannot run (port in use), 2 for a usage error.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

from exporter import __version__
from exporter.options import OPTIONS
from exporter.settings import ConfigError, resolve
from exporter.suggestions import did_you_mean
from exporter.values import shown
from storage.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

    from exporter.options import Option

__all__ = ["main"]

PROGRAM: Final = "kthena-runtime"
EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2


def build_parser() -> argparse.ArgumentParser:
    """Build the parser from `exporter.options.OPTIONS`; it returns texts, which `exporter.settings` parses."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="The sidecar beside an LLM inference engine: its metrics under one set of names.",
        epilog="A flag wins over its environment variable, the variable over the default. "
        "Variables without a flag: " + ", ".join(str(option.variable) for option in OPTIONS if not option.flags) + ".",
        allow_abbrev=False,
        exit_on_error=False,
    )
    for option in OPTIONS:
        if not option.flags:
            continue
        if option.metavar:
            action = "append" if option.repeatable else "store"
            parser.add_argument(
                *option.flags, dest=option.name, metavar=option.metavar, action=action, help=_help(option)
            )
        else:
            parser.add_argument(*option.flags, dest=option.name, action="store_const", const="true", help=_help(option))
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run the runtime until SIGTERM or SIGINT, and return the exit code.

    Args:
        argv: The arguments without the program's name; `sys.argv[1:]` when `None`.
        environ: The environment; `os.environ` when `None`.
    """
    # Until the service installs its own handlers, a signal ends the process with code 0. Without a handler,
    # process 1 of a container ignores SIGTERM.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end_at_once)
    try:
        settings = resolve(_flags(build_parser(), argv), os.environ if environ is None else environ)
        # Imported here, so that --help, --version and usage errors need not wait for these imports.
        from exporter.memory import use_one_heap
        from exporter.service import ServiceError, run
    except ConfigError as error:
        return _fail(str(error), EXIT_USAGE)
    try:
        # Before other threads start, because they would get heaps of their own.
        use_one_heap()
        run(settings)
    except ConfigError as error:
        return _fail(str(error), EXIT_USAGE)
    except ServiceError as error:
        return _fail(str(error), EXIT_FAILURE)
    return 0


def _flags(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> dict[str, Any]:
    """Return the texts of the flags by option name.

    Raises:
        ConfigError: The flags cannot be parsed. argparse itself would print its whole usage text.
    """
    try:
        found, unknown = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        # argparse finds only these two errors here, and its own message for the second is hard to understand.
        valued = any("/".join(option.flags) == error.argument_name for option in OPTIONS if option.metavar)
        message = f"{error.argument_name} needs a value" if valued else f"{error.argument_name} takes no value"
        raise ConfigError(message) from None
    if unknown:
        raise ConfigError(_unknown(unknown))
    return vars(found)


def _unknown(arguments: Sequence[str]) -> str:
    """Return a message with the unknown flags, but without their values, which may be secrets."""
    known = {"--help", "--version", *(flag for option in OPTIONS for flag in option.flags)}
    flags = [argument.partition("=")[0] for argument in arguments if argument.startswith("-")]
    if not flags:
        return f"unknown argument {shown(arguments[0])!r}: all is said with flags, see --help"
    return f"no such flag: {', '.join(flag + did_you_mean(flag, known) for flag in flags)}; see --help"


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - a signal handler's signature
    """End with code 0: nothing has started yet. The service installs its own handlers later."""
    raise SystemExit(0)


def _help(option: Option) -> str:
    notes = [f"default {option.default}"] if option.default and option.metavar else []
    notes += [f"variable {option.variable}"] if option.variable else []
    notes += ["required"] if option.required else []
    return f"{option.help} [{', '.join(notes)}]" if notes else option.help


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"{PROGRAM}: error: {printable(' '.join(message.split()))}\n")
    return code
