"""Shows a download on a terminal, in a log, or as JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from storage.errors import listed
from storage.printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["FORMS", "Display", "make_display", "size_text"]

FORMS: Final = ("auto", "bar", "log", "json", "none")
LOG_SECONDS: Final = 10.0
# Events that occur once per file.
_VERBOSE: Final = frozenset(("verified", "removed"))
_KIB: Final = 1024.0


class Display(Protocol):
    """Shows a worker's events."""

    def show(self, event: Mapping[str, Any]) -> None:
        """Show one event."""

    def close(self) -> None:
        """Restore the terminal."""


def make_display(form: str, *, verbose: bool, stdout: TextIO = sys.stdout, stderr: TextIO = sys.stderr) -> Display:
    """Return the display for one of `FORMS`; `auto` is a bar on a terminal, and log lines elsewhere."""
    if form == "json":
        return _Json(stdout)
    if form == "bar" or (form == "auto" and _has_room(stderr)):
        return _Bar(stderr, verbose=verbose)
    return _Log(stderr, verbose=verbose, quiet=form == "none")


def _has_room(stream: TextIO) -> bool:
    """Whether a stream is a terminal with a size. A pod's terminal has none until a user attaches to it."""
    return stream.isatty() and min(os.get_terminal_size(stream.fileno())) > 0


def size_text(count: float) -> str:
    """Return a number of bytes with a binary unit, for users."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = 0
    while count >= _KIB and power < len(units) - 1:
        count, power = count / _KIB, power + 1
    return f"{count:.1f} {units[power]}" if power else f"{count:.0f} B"


class _Json:
    def __init__(self, stdout: TextIO) -> None:
        self._stdout = stdout

    def show(self, event: Mapping[str, Any]) -> None:
        self._stdout.write(json.dumps(event) + "\n")
        self._stdout.flush()

    def close(self) -> None:
        pass


class _Pace:
    """Limits the rate of lines: one `progress` per interval, and one `waiting` immediately and then per interval."""

    def __init__(self) -> None:
        self._told = {"progress": monotonic()}

    def is_due(self, event: Mapping[str, Any]) -> bool:
        kind, now = event["event"], monotonic()
        if kind in ("progress", "waiting"):
            if now - self._told.get(kind, -LOG_SECONDS) < LOG_SECONDS:
                return False
            self._told[kind] = now
        return True


class _Log:
    """Writes a line for each notable event, and a progress line now and then."""

    def __init__(self, stderr: TextIO, *, verbose: bool, quiet: bool = False) -> None:
        self._stderr = stderr
        self._verbose = verbose
        self._quiet = quiet
        self._pace = _Pace()

    def show(self, event: Mapping[str, Any]) -> None:
        if self._quiet or not self._pace.is_due(event) or (event["event"] in _VERBOSE and not self._verbose):
            return
        line = describe(event)
        if line:
            self._stderr.write(f"kthena-downloader: {printable(line)}\n")
            self._stderr.flush()

    def close(self) -> None:
        pass


class _Bar:
    def __init__(self, stderr: TextIO, *, verbose: bool) -> None:
        from tqdm import tqdm

        self._tqdm = tqdm
        self._stderr = stderr
        self._verbose = verbose
        self._bar: tqdm[Any] | None = None
        self._pace = _Pace()
        self._counts = "bytes"

    def show(self, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if kind == "progress":
            self._move(event)
            return
        if kind in ("planned", "done"):
            self.close()
        line = describe(event)
        if line and self._pace.is_due(event) and (kind not in _VERBOSE or self._verbose):
            self._tqdm.write(printable(line), file=self._stderr)
        if kind == "planned":
            self._begin(event)

    def _begin(self, plan: Mapping[str, Any]) -> None:
        verifies = plan["action"] == "verify"
        self._counts = "hashed" if verifies else "bytes"
        begin = 0 if verifies else plan["kept_bytes"]
        if begin < plan["bytes"] and plan["action"] != "dry-run":
            self._bar = self._tqdm(
                total=plan["bytes"], initial=begin, unit="B", unit_scale=True, unit_divisor=1024,
                file=self._stderr, dynamic_ncols=True, miniters=1,
            )  # fmt: skip

    def _move(self, event: Mapping[str, Any]) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(printable(str(event["file"]))[-40:], refresh=False)
            # A verification may read the copy and its source, so it can count more bytes than the total.
            self._bar.update(min(event[self._counts], event["total"]) - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def describe(event: Mapping[str, Any]) -> str | None:
    """Return an event as one line for users; `None` if it needs no line."""
    text = _TEXTS.get(event["event"])
    return text(event) if text else None


def _waiting(event: Mapping[str, Any]) -> str:
    return f"waiting for {event['holder']}, who has the directory, for {event['seconds']:.0f} s now"


def _progress(event: Mapping[str, Any]) -> str:
    if not event["file"]:
        return f"{size_text(event['hashed'])} read and checked"
    share = 100 * event["bytes"] / event["total"] if event["total"] else 100
    return f"{size_text(event['bytes'])} of {size_text(event['total'])} ({share:.0f}%), {event['file']}"


def _retry(event: Mapping[str, Any]) -> str:
    return f"{event['file']}: again, {event['detail']} ({event['reason']})"


def _verified(event: Mapping[str, Any]) -> str:
    digest = event["digest"]["algorithm"] if event["digest"] else "size"
    return f"{event['file']}: {size_text(event['size'])}, {digest} is right"


def _done(event: Mapping[str, Any]) -> str:
    count = event["removed_files"]
    removed = f"; removed or overwritten: {count} ({listed(event['removed'], count)})" if count else ""
    return f"done: {event['files']} files, {size_text(event['bytes'])} in {event['seconds']:.1f} s{removed}"


def _removed(event: Mapping[str, Any]) -> str:
    return f"{event['file']}: {'overwritten' if event['overwritten'] else 'removed'}, {size_text(event['size'])}"


def _planned(event: Mapping[str, Any]) -> str:
    revision = f" at {event['revision']}" if event["revision"] else ""
    if event["action"] == "verify":
        return f"{event['source']}{revision}: {event['files']} files to check, {size_text(event['bytes'])}"
    fetch = f"{event['fetch_files']} of {event['files']} files to fetch"
    resumed = f", {size_text(event['resumed_bytes'])} of them here already" if event["resumed_bytes"] else ""
    return f"{event['source']}{revision}: {fetch}, {size_text(event['fetch_bytes'])}{resumed}"


_TEXTS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "waiting": _waiting,
    "planned": _planned,
    "progress": _progress,
    "retry": _retry,
    "verified": _verified,
    "removed": _removed,
    "done": _done,
}
