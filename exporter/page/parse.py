"""Parse a page in full: check every line, find every family, and repair flaws (docs/adr/0001)."""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

from exporter.page.cost import check_cost, families_within, too_large
from exporter.page.family import sample_lines
from exporter.page.grammar import (
    BOUNDS,
    OTHER_VALUES,
    InvalidPageError,
    check_labels,
    check_text,
    is_number,
    line_at,
    match_lines,
    mend,
)
from exporter.page.page import FamilyShape, Page, Shape, assemble, shape_of
from exporter.page.repairs import Repair
from exporter.page.slabs import slabs
from exporter.page.text_format import SUFFIXES

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator, Mapping

__all__ = ["InvalidPageError", "parse_page"]


def parse_page(raw: bytes, shape: Shape | None = None, *, limit: int = sys.maxsize) -> Page:
    """Check a page and find its families.

    Args:
        raw: The text as the engine sent it.
        shape: The shape of an earlier page; a page that fits it is checked at
            a fraction of the cost.
        limit: The highest cost of the page in bytes (`exporter.page.cost`).

    Raises:
        InvalidPageError: The text is not valid and cannot be passed on.
        ScrapeError: The page costs more than `limit`.
    """
    page = shape.fit(raw) if shape else None
    if page is None:
        return _parse(raw, shape, limit)
    return _within(limit, raw, page)


def _within(limit: int, raw: bytes, page: Page) -> Page:
    """Return a page of a known shape: it has the lines and families of an earlier one, but maybe longer values."""
    check_cost(limit, raw, lines=page.shape.lines, families=len(page.shape.families))
    return page


def _parse(raw: bytes, shape: Shape | None, limit: int) -> Page:
    families_within(limit, raw)
    check_text(raw)
    repairs: dict[str, int] = {}
    raw = mend(raw, repairs)
    # The shape of a repaired page is that of its repaired text, so the comparison must come after the repair.
    if repairs and shape and (page := shape.fit(raw, repairs)):
        return _within(limit, raw, page)
    drafts = _draft_families(raw, {}, limit)
    # Types are known only after a first pass. A second pass then moves parts such as `h_sum` to their family.
    if parts := _parts(drafts):
        if headers := sum(drafts[name].has_header for name in parts):
            repairs[Repair.SHADOWED_HEADER] = headers
        drafts = _draft_families(raw, parts, limit)
    check_labels(raw)
    for draft in drafts.values():
        draft.check_bounds(raw)
    if scattered := sum(len(draft.bounds) > 2 for draft in drafts.values()):
        repairs[Repair.DUPLICATE_FAMILY] = scattered
    shapes = [draft.shape() for draft in drafts.values()]
    if Repair.SHADOWED_HEADER in repairs or Repair.DUPLICATE_FAMILY in repairs:
        return assemble((draft.merged(raw) for draft in drafts.values()), shapes, repairs)
    starts = (*(draft.bounds[0] for draft in drafts.values()), len(raw))
    return Page(raw, shape_of(raw, shapes, starts), starts, repairs)


@dataclass(slots=True)
class _Draft:
    """A family while its lines are being collected."""

    name: bytes
    # Start and end of each run of its lines, flat; scattered families have several runs. An array, because
    # tuples would cost many times the text of a page of short lines.
    bounds: array[int] = field(default_factory=lambda: array("q"))
    help: tuple[int, int] | None = None
    type: tuple[int, int] | None = None
    kind: str | None = None
    samples: int = 0

    @property
    def has_header(self) -> bool:
        return bool(self.help or self.type)

    def takes(self, sample_name: bytes) -> bool:
        suffix = sample_name.removeprefix(self.name)
        return sample_name.startswith(self.name) and suffix in SUFFIXES.get(self.kind or "", (b"",))

    @property
    def spans(self) -> Iterator[tuple[int, int]]:
        """The start and end of each run of its lines."""
        return zip(self.bounds[::2], self.bounds[1::2], strict=True)

    def shape(self) -> FamilyShape:
        return FamilyShape(self.name.decode(), self.kind or "untyped", self.samples)

    def merged(self, raw: bytes) -> bytes | memoryview:
        """Return the family's lines in one piece, under one header: Go's parsers refuse a second HELP or TYPE line."""
        if len(self.bounds) == 2:
            return memoryview(raw)[self.bounds[0] : self.bounds[1]]
        block = BytesIO()
        for span in (self.help, self.type):
            block.write(raw[slice(*span)] if span else b"")
        for span in self.spans:
            for start, end in slabs(raw, *span):
                block.writelines(line + b"\n" for line in sample_lines(raw[start:end]))
        return block.getvalue()

    def check_bounds(self, raw: bytes) -> None:
        """Refuse an `le` or `quantile` that is not a number, for which expfmt refuses the whole page."""
        pattern = BOUNDS.get(self.kind or "")
        if pattern is None:
            return
        for span in self.spans:
            for start, end in slabs(raw, *span):
                if not all(map(is_number, set(pattern.findall(raw, start, end)))):
                    _check_bound_of_each(raw[start:end], pattern, line_at(raw, start))


def _check_bound_of_each(text: bytes, pattern: re.Pattern[bytes], first: int) -> None:
    """Check line by line, because HELP texts and other labels' values may look like a bound.

    `first` is the number of the first line, for the error.
    """
    for i, line in enumerate(text.split(b"\n")):
        bound = None if line.startswith(b"#") else pattern.search(OTHER_VALUES.sub(b"", line))
        if bound and not is_number(bound[1]):
            problem = "a bucket or quantile that is not a number"
            raise InvalidPageError(problem, line=first + i)


def _parts(drafts: Mapping[bytes, _Draft]) -> dict[bytes, bytes]:
    """Return the families that are named like a series of another family, with that family's name.

    expfmt reads `h_sum` as part of the histogram `h`, and a TYPE line of `h_sum` as a second one of `h`.
    """
    parts: dict[bytes, bytes] = {}
    for name in sorted(drafts, key=len):  # shortest first: a part has no parts of its own
        if name not in parts:
            series = (name + suffix for suffix in SUFFIXES.get(drafts[name].kind or "", ())[1:])
            parts |= {part: name for part in series if part in drafts}
    return parts


def _draft_families(raw: bytes, parts: Mapping[bytes, bytes], limit: int) -> dict[bytes, _Draft]:
    """Collect each family's lines; lines of a family in `parts` go to the family named there, without headers."""
    drafts: dict[bytes, _Draft] = {}
    most = families_within(limit, raw)
    current: _Draft | None = None
    free = position = 0  # comments from `free` on belong to no family yet, and go to the next one
    end = len(raw)
    while position < end:
        match = match_lines(raw, position)
        if match is None:
            problem = "not a sample, HELP or TYPE line of the text format"
            raise InvalidPageError(problem, line=line_at(raw, position))
        after = match.end()
        kind = match.lastgroup
        name = match["name"] or match["help_name"] or match["type_name"]
        if name is not None and not _continues(current, name, kind):
            if name in parts and kind != "samples":
                current, free = None, after
            else:
                name = parts.get(name, name)
                start = position if current else free
                if (current := drafts.get(name)) is None:
                    current = drafts[name] = _Draft(name)
                    if len(drafts) > most:
                        raise too_large(limit, raw)
                current.bounds.extend((start, start))
        if current is not None:
            _take(current, match, raw)
            current.bounds[-1] = after
        position = after
    return drafts


def _continues(current: _Draft | None, name: bytes, kind: str | None) -> bool:
    if current is None:
        return False
    if kind == "samples":
        return current.takes(name)
    fresh = current.help is None if kind == "help" else current.type is None
    return current.name == name and fresh and not current.samples


def _take(draft: _Draft, match: re.Match[bytes], raw: bytes) -> None:
    span = match.span()
    if match.lastgroup == "samples":
        draft.samples += raw.count(b"\n", *span)
    elif match.lastgroup == "help" and draft.help is None:
        draft.help = span
    elif match.lastgroup == "type" and draft.type is None:
        draft.type = span
        draft.kind = match["kind"].decode()
