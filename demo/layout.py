"""How the demo looks: lines of styled text for a width, made of readings and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from demo.history import TREND_LENGTH, WINDOW_SECONDS
from demo.sparkline import sparkline
from demo.style import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from demo.history import Reading
    from demo.style import Line

__all__ = ["plain_line", "table"]

_UNKNOWN: Final = "-"
_PREFIX: Final = "kthena:"
_NAME_WIDTH: Final = 36
_SHORT_WIDTH: Final = 8
# From here on milliseconds would be rounded to a thousand.
_SECOND: Final = 0.9995


@dataclass(frozen=True, slots=True)
class _Section:
    title: str
    style: str
    heads: tuple[str, str, str]
    trend: str  # of what it is; the time it covers where it is plain
    strong: int  # the cell that the trend shows


_LOAD: Final = _Section("Load", "load", ("now", "mean", "max"), trend="", strong=0)
_LATENCY: Final = _Section("Latency", "latency", ("mean", "p50", "p95"), trend="p95", strong=2)


def table(readings: Sequence[Reading], width: int) -> list[Line]:
    """Lay out everything that changes, for a terminal of `width` columns."""
    form = _WIDE if width >= _WIDE.least else _NARROW
    lines: list[Line] = []
    for section, latency in ((_LOAD, False), (_LATENCY, True)):
        lines.append(form.heading(section))
        lines += [form.row(section, each, width) for each in readings if (each.metric.kind == "latency") == latency]
        lines.append(())
    return [*lines, (Span(form.footer, "dim"),)]


def plain_line(seconds: float, readings: Iterable[Reading]) -> str:
    """Put everything that changes in one line, for a log."""
    return f"{seconds:4.0f} s  " + "  ".join(f"{each.metric.short} {_figures(each)}" for each in readings)


def _figures(reading: Reading) -> str:
    if reading.metric.kind != "latency":
        return _wide_cell(reading.metric.kind, reading.cells[0]).removesuffix("/s")
    slowest = reading.cells[-1]
    if slowest is None:
        return _UNKNOWN
    unit, scale = ("s", 1.0) if slowest >= _SECOND else ("ms", 1000.0)
    return "/".join(_digits(value * scale) for value in reading.cells if value is not None) + f" {unit}"


@dataclass(frozen=True, slots=True)
class _Form:
    """A way to lay out rows.

    Attributes:
        least: The width it needs.
        indent: Columns that are left free before everything.
        name_width: Columns for the metric.
        cell_width: Columns for each figure, the space before it included.
        gap: Columns before the trend.
        label: Makes the spans of a metric's name.
        minute: What the time of the trends is called.
        title: Makes the title of a section.
        cell: Writes a figure.
        footer: The last line.
    """

    least: int
    indent: int
    name_width: int
    cell_width: int
    gap: int
    minute: str
    label: Callable[[Reading], Line]
    title: Callable[[_Section], str]
    cell: Callable[[str, float | None], str]
    footer: str

    def heading(self, section: _Section) -> Line:
        """Lay out the first line of a section."""
        heads = "".join(f"{head:>{self.cell_width}}" for head in section.heads)
        title = " " * self.indent + f"{self.title(section):{self.name_width}}"
        return Span(title, "bold"), Span(f"{heads}{' ' * self.gap}{section.trend or self.minute}", "dim")

    def row(self, section: _Section, reading: Reading, width: int) -> Line:
        """Lay out a metric."""
        label = self.label(reading)
        padding = self.name_width - sum(len(span.text) for span in label)
        texts = [f"{self.cell(reading.metric.kind, value):>{self.cell_width}}" for value in reading.cells]
        figures = [Span(text, "bold" if place == section.strong else "") for place, text in enumerate(texts)]
        room = width - self.indent - self.name_width - len(texts) * self.cell_width - self.gap
        trend = sparkline(
            reading.trend,
            min(room, TREND_LENGTH),
            span=TREND_LENGTH,
            first=reading.first,
            top=1.0 if reading.metric.kind == "ratio" else None,
        )
        gap = Span(" " * self.gap)
        return Span(" " * self.indent), *label, Span(" " * padding), *figures, gap, Span(trend, section.style)


def _wide_label(reading: Reading) -> Line:
    return Span(_PREFIX, "dim"), Span(reading.metric.name.removeprefix(_PREFIX))


def _wide_cell(kind: str, value: float | None) -> str:
    if value is None:
        return _UNKNOWN
    if kind == "latency":
        return f"{_digits(value)} s" if value >= _SECOND else f"{_digits(value * 1000)} ms"
    if kind == "ratio":
        return f"{value:.0%}"
    if kind == "rate":
        return f"{value:,.0f}/s"
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def _narrow_cell(kind: str, value: float | None) -> str:
    return _wide_cell(kind, value).replace(" ", "").removesuffix("/s")


def _digits(value: float) -> str:
    """Write three digits, or all of a larger number; never as a power of ten."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{decimals}f}"


_WIDE: Final = _Form(
    least=79,
    indent=2,
    name_width=_NAME_WIDTH,
    cell_width=9,
    gap=3,
    minute="last minute",
    label=_wide_label,
    title=lambda section: f"{section.title} over {WINDOW_SECONDS:.0f} s",
    cell=_wide_cell,
    footer="  One GET /metrics?name[]=… a second. Ctrl-C or q ends it.",
)
_NARROW: Final = _Form(
    least=0,
    indent=1,
    name_width=_SHORT_WIDTH,
    cell_width=7,
    gap=1,
    minute="1 minute",
    label=lambda reading: (Span(reading.metric.short),),
    title=lambda section: section.title,
    cell=_narrow_cell,
    footer=" Ctrl-C or q ends it.",
)
