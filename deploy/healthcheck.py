#!/usr/bin/env python3
"""Ask the runtime of this container whether it lives: exit 0 when GET /health answers 200, else 1.

The port is the one that the runtime listens on, found where the runtime finds it: the flag on the command line of
process 1, else RUNTIME_PORT, else 9000. The standard library is all it needs, so `python -I -S` starts it in 25 ms.
"""

from __future__ import annotations

import argparse
import http.client
import os
import sys
from pathlib import Path
from typing import Final

COMMAND: Final = "kthena-runtime"
COMMAND_LINE: Final = "/proc/1/cmdline"
DEFAULT_PORT: Final = "9000"
TIMEOUT_SECONDS: Final = 4.0
LOOPBACK: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def runtime_arguments(command_line: Path) -> list[str]:
    """Return what follows the runtime's name on a /proc command line, nothing where another program runs."""
    try:
        words = command_line.read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
    starts = (at for at, word in enumerate(words) if Path(word).name == COMMAND)
    return words[next(starts, len(words)) + 1 :]


def address(arguments: list[str], variable: str) -> tuple[str, int]:
    """Return host and port to ask: the flags' values before the variable's before the defaults."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("-H", "--host", default="")
    parser.add_argument("-P", "--port", type=int, default=variable or DEFAULT_PORT)
    flags, _others = parser.parse_known_args(arguments)
    return LOOPBACK.get(flags.host, flags.host), flags.port


def is_healthy(host: str, port: int) -> bool:
    """Return whether GET /health answers 200; no proxy is asked, whatever the environment says."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main(command_line: str = COMMAND_LINE) -> int:
    """Return the exit code for Docker: 0 healthy, 1 not."""
    host, port = address(runtime_arguments(Path(command_line)), os.environ.get("RUNTIME_PORT", "").strip())
    return 0 if is_healthy(host, port) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
