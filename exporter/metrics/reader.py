"""Read a page in full: every line is checked, every family found, flaws mended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.metrics.families import sample_lines
from exporter.metrics.grammar import (
    BOUNDS,
    OTHER_VALUES,
    SERIES,
    SUFFIXES,
    InvalidPageError,
    check_labels,
    check_text,
    is_number,
    match_lines,
    mend_blanks,
    mend_escapes,
)
from exporter.metrics.page import FamilyShape, Page, Shape, assemble, structure

if TYPE_CHECKING:
    import re

__all__ = ["InvalidPageError", "parse_page"]


def parse_page(raw: bytes, shape: Shape | None = None) -> Page:
    """Check a page and find its families.

    Args:
        raw: The text as the engine sent it.
        shape: The shape of an earlier page; a page that fits it is checked at
            a fraction of the cost.

    Raises:
        InvalidPageError: The text is not valid and cannot be passed on.
    """
    page = shape.fit(raw) if shape else None
    return page or _parse(raw)


def _parse(raw: bytes) -> Page:
    check_text(raw)
    repairs: dict[str, int] = {}
    raw = mend_blanks(mend_escapes(raw, repairs), repairs)
    drafts = _draft_families(raw)
    check_labels(raw)
    for draft in drafts:
        draft.check_bounds(raw)
    shapes = [draft.shape(raw) for draft in drafts]
    if scattered := sum(len(draft.spans) > 1 for draft in drafts):
        repairs["duplicate_family"] = scattered
    if shadowed := _shadow_headers(drafts):
        repairs["shadowed_header"] = shadowed
    if repairs:
        return assemble([draft.merged(raw) for draft in drafts], shapes, repairs)
    starts = (*(draft.spans[0][0] for draft in drafts), len(raw))
    shape = Shape(structure(raw), tuple(shapes), sum(family.samples for family in shapes))
    return Page(raw, shape, starts)


@dataclass(slots=True)
class _Draft:
    """A family while its lines are being collected."""

    name: bytes
    spans: list[list[int]]  # [start, end) in the text; several when its lines are scattered
    help: tuple[int, int] | None = None
    type: tuple[int, int] | None = None
    kind: str | None = None
    samples: int = 0
    shadowed: bool = False

    def takes(self, sample_name: bytes) -> bool:
        suffix = sample_name.removeprefix(self.name)
        return sample_name.startswith(self.name) and suffix in SUFFIXES.get(self.kind or "", (b"",))

    def shape(self, raw: bytes) -> FamilyShape:
        start, end = self.spans[0]
        line = raw[start : raw.find(b"\n", start, end) + 1]
        series = SERIES.match(line)
        opening = series[0] if series else line
        return FamilyShape(self.name.decode(), self.kind or "untyped", b"\n" + opening, self.samples)

    def merged(self, raw: bytes) -> bytes:
        """Return the family's lines in one place, under one header, or none if that is shadowed."""
        if len(self.spans) == 1 and not self.shadowed:
            return raw[slice(*self.spans[0])]
        header = [raw[slice(*span)] for span in (self.help, self.type) if span and not self.shadowed]
        samples = (line + b"\n" for span in self.spans for line in sample_lines(raw[slice(*span)]))
        return b"".join([*header, *samples])

    def check_bounds(self, raw: bytes) -> None:
        """Refuse a `le` or `quantile` that is not a number: expfmt drops the page for it."""
        pattern = BOUNDS.get(self.kind or "")
        if pattern is None:
            return
        for start, end in self.spans:
            if all(map(is_number, set(pattern.findall(raw, start, end)))):
                continue
            # HELP texts and other labels' values may look like a bound: look line by line.
            for line in sample_lines(raw[start:end]):
                bound = pattern.search(OTHER_VALUES.sub(b"", line))
                if bound and not is_number(bound[1]):
                    problem = f"{self.name.decode()} has a bucket or quantile that is not a number"
                    raise InvalidPageError(problem)


def _shadow_headers(drafts: list[_Draft]) -> int:
    """Mark families named as another's series: to expfmt, a TYPE of `h_sum` is a second one of the histogram `h`."""
    series = {draft.name + suffix for draft in drafts for suffix in SUFFIXES.get(draft.kind or "", ())[1:]}
    for draft in drafts:
        draft.shadowed = draft.name in series and bool(draft.help or draft.type)
    return sum(draft.shadowed for draft in drafts)


def _draft_families(raw: bytes) -> list[_Draft]:
    drafts: dict[bytes, _Draft] = {}
    current: _Draft | None = None
    position, end = 0, len(raw)
    while position < end:
        match = match_lines(raw, position)
        if match is None:
            problem = "not a sample, HELP or TYPE line of the text format"
            raise InvalidPageError(problem, line=raw.count(b"\n", 0, position) + 1)
        span = match.span()
        kind = match.lastgroup
        name = match["name"] or match["help_name"] or match["type_name"]
        if name is not None and not _continues(current, name, kind):
            current = drafts.get(name)
            if current is None:
                # Comments before the first family belong to it.
                position = position if drafts else 0
                current = drafts[name] = _Draft(name, [])
            current.spans.append([position, position])
        if current is not None:
            _take(current, match, raw)
            current.spans[-1][1] = span[1]
        position = span[1]
    return list(drafts.values())


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
