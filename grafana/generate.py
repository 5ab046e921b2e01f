"""Write the dashboards, rules and alerts, or check that they are as this code makes them.

::

    python -m grafana.generate            # write what changed
    python -m grafana.generate --check    # write nothing; 1 if a file is missing, differs or is not made here
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from grafana import alerting, boards

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["generated", "main"]

_ROOT: Final = Path(__file__).parents[1]
# Folders that hold nothing but what is made here.
_FOLDERS: Final = ("grafana/dashboards", "grafana/rules", "grafana/alerts")
_SUFFIXES: Final = {".json", ".yml", ".yaml"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the files; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m grafana.generate", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if something is not as made here")
    options = parser.parse_args(arguments)
    files = generated()
    faults = [*_stale(files), *_strange(files)] if options.check else _strange(files)
    for fault in faults:
        sys.stderr.write(f"{fault}\n")
    if not options.check:
        _write(files)
    return 1 if faults else 0


def generated() -> dict[str, str]:
    """Return the text of every file by its path from the top of the repository."""
    return boards.files() | alerting.files()


def _write(files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = _ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if _text(path) != text:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{name}\n")


def _stale(files: Mapping[str, str]) -> list[str]:
    return [
        f"{name}: not as the code makes it; run `make dashboards`"
        for name, text in files.items()
        if _text(_ROOT / name) != text
    ]


def _strange(files: Mapping[str, str]) -> list[str]:
    found = (path for folder in _FOLDERS for path in sorted((_ROOT / folder).rglob("*")) if path.suffix in _SUFFIXES)
    names = (path.relative_to(_ROOT).as_posix() for path in found)
    return [f"{name}: nothing makes this file; remove it" for name in names if name not in files]


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
