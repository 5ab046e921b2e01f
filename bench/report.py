"""What the benchmarks print: tables, and targets with their verdicts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Verdict", "facts", "listing", "missed", "table", "verdicts_table"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A measured value beside its target.

    Attributes:
        what: The measure.
        value: What came out.
        limit: What it must not be above, or below.
        bound: On which side of the limit it must be.
        unit: Of both.
    """

    what: str
    value: float
    limit: float
    bound: Literal["at most", "at least"] = "at most"
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.value <= self.limit if self.bound == "at most" else self.value >= self.limit


def missed(verdicts: Iterable[Verdict]) -> bool:
    """Tell whether any target is missed."""
    return not all(verdict.met for verdict in verdicts)


def verdicts_table(verdicts: Iterable[Verdict]) -> str:
    """Return a table of targets."""
    rows = [
        [
            verdict.what,
            f"{verdict.value:.3g}{verdict.unit}",
            f"{verdict.bound} {verdict.limit:g}{verdict.unit}",
            "met" if verdict.met else "MISSED",
        ]
        for verdict in verdicts
    ]
    return table(["target", "value", "wanted", ""], rows)


def facts(verdicts: Iterable[Verdict]) -> list[dict[str, object]]:
    """Return the verdicts as JSON has them."""
    return [asdict(verdict) | {"met": verdict.met} for verdict in verdicts]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns line up in a terminal too."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(_padded(cell, width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def _padded(cell: str, width: int) -> str:
    return cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)


def listing(items: Mapping[str, str]) -> str:
    """Return one line of names and values."""
    return "; ".join(f"{name} {value}" for name, value in items.items())
