"""Logging: one line per event, as text or JSON, without control characters.

    2026-01-15T09:30:14.031Z WARNING exporter.engine.news: engine metrics unavailable: refused: ...
    {"time": "2026-01-15T09:30:14.031Z", "level": "warning", "logger": "exporter.engine.news", "message": "..."}

Control characters are escaped, so an engine or a client cannot forge lines or
send sequences to a terminal.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

from storage.printable import CONTROLS, printable

__all__ = ["configure"]

_TEXT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class _JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: `time`, `level`, `logger`, `message`, and `exception` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _instant(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(entry, ensure_ascii=False))


class _TextFormatter(logging.Formatter):
    # Only a traceback may have several lines: the formatter adds it after `formatMessage`.
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own
        return printable(super().formatMessage(record))

    def formatException(self, ei: logging._SysExcInfoType) -> str:  # noqa: N802 - logging's own
        return "\n".join(map(printable, super().formatException(ei).split("\n")))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - logging's own
        return _instant(record)


def configure(*, form: str, level: str) -> None:
    """Send records of at least `level` to standard error, as `text` or `json`; replaces earlier handlers."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _instant(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
