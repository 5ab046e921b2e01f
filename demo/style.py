"""Lines of styled text, apart from how a terminal is told of styles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Line", "Span", "plain", "render"]

# SGR codes: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html, CSI Pm m.
_STYLES: Final = {"bold": "1", "dim": "2", "link": "4", "load": "36", "latency": "35"}


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a line in one style: a key of the table above, or none."""

    text: str
    style: str = ""


Line = tuple[Span, ...]


def plain(lines: Iterable[Line]) -> str:
    """Return lines as text without styles."""
    return "".join("".join(span.text for span in line) + "\n" for line in lines)


def render(line: Line, *, colour: bool, width: int | None = None) -> str:
    """Return a line with its styles as escape sequences, cut to `width`."""
    return "".join(
        f"\x1b[{_STYLES[span.style]}m{span.text}\x1b[0m" if colour and span.style else span.text
        for span in _cut(line, width)
    )


def _cut(line: Line, width: int | None) -> Iterator[Span]:
    left = width if width is not None else sum(len(span.text) for span in line)
    for span in line:
        if left > 0:
            yield Span(span.text[:left], span.style)
        left -= len(span.text)
