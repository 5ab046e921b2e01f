"""Where the demo shows itself: a terminal drawn over in place, or a pipe with a line now and then.

Links stand above as ordinary text, to be copied and to stay; only what changes is drawn over.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol, TextIO

from demo.history import History
from demo.layout import plain_line, table
from demo.style import plain, render
from demo.welcome import legend

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self

    from demo.style import Line

__all__ = ["Display", "OutputGoneError", "Pipe", "Terminal", "is_drawable"]

_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_CLEAR: Final = "\x1b[H\x1b[2J"
_CLEAR_LINE, _CLEAR_BELOW = "\x1b[K", "\x1b[J"
_USUAL_SIZE: Final = os.terminal_size((80, 24))
_LINE_EVERY: Final = 2


class OutputGoneError(Exception):
    """Nobody reads any more: the pipe is closed, or the terminal."""


class Display(Protocol):
    """Something that shows the demo; it may draw while its ``with`` block runs.

    Attributes:
        drawn: Whether it draws on a terminal, which is no place for keys to show.
    """

    drawn: bool

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def say(self, lines: Iterable[Line]) -> None:
        """Show lines that stay."""

    def show(self, history: History, seconds: float) -> None:
        """Show what the scrapes have said, these many seconds after the first."""

    def resize(self) -> None:
        """Fit everything to a new size."""


class Pipe:
    """Plain lines, for logs."""

    drawn = False

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __enter__(self) -> Self:
        self.say(legend())
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def say(self, lines: Iterable[Line]) -> None:
        _write(self._out, plain(lines))

    def show(self, history: History, seconds: float) -> None:
        if history.scrapes % _LINE_EVERY == 0:
            _write(self._out, plain_line(seconds, history.readings()) + "\n")

    def resize(self) -> None:
        pass


class Terminal:
    """A block of lines that is drawn over in place."""

    drawn = True

    def __init__(self, out: TextIO, *, colour: bool) -> None:
        self._out = out
        self._colour = colour
        self._said: list[Line] = []
        self._history = History()
        self._height = 0

    def __enter__(self) -> Self:
        _write(self._out, _HIDE_CURSOR)
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(OutputGoneError):
            _write(self._out, _SHOW_CURSOR)

    def say(self, lines: Iterable[Line]) -> None:
        lines = list(lines)
        self._said += lines
        self._height = 0
        _write(self._out, "".join(render(line, colour=self._colour) + "\n" for line in lines))

    def show(self, history: History, seconds: float) -> None:  # noqa: ARG002 -- it moves: no need to tell the time
        self._history = history
        self._draw(f"\x1b[{self._height}A" if self._height else "")

    def resize(self) -> None:
        # A terminal breaks its lines anew, in its own way: nothing is where it was.
        said = "".join(render(line, colour=self._colour) + "\n" for line in self._said)
        self._draw(_CLEAR + said)

    def _draw(self, before: str) -> None:
        size = _size(self._out)
        lines = table(self._history.readings(), size.columns)
        lines = lines[: max(1, size.lines - 1)]
        self._height = len(lines)
        drawn = [render(line, colour=self._colour, width=size.columns) + _CLEAR_LINE + "\n" for line in lines]
        # In one piece, so that nobody sees half of it.
        _write(self._out, "".join([before, _NO_WRAP, *drawn, _CLEAR_BELOW, _WRAP]))


def is_drawable(out: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether `out` is a terminal that understands escape sequences."""
    return out.isatty() and environ.get("TERM", "dumb") != "dumb"


def _size(out: TextIO) -> os.terminal_size:
    try:
        size = os.get_terminal_size(out.fileno())
    except OSError:
        return _USUAL_SIZE
    return size if size.columns and size.lines else _USUAL_SIZE


def _write(out: TextIO, text: str) -> None:
    try:
        out.write(text)
        out.flush()
    except OSError as error:
        # What is left in the buffer would fail again when the interpreter ends.
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 -- a descriptor is wanted
            os.dup2(nowhere.fileno(), out.fileno())
        raise OutputGoneError from error
