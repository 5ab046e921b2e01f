"""Read a page in full: every line is checked, every family found, flaws mended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.metrics.families import sample_lines
from exporter.metrics.grammar import (
    BOUNDS,
    OTHER_VALUES,
    SUFFIXES,
    InvalidPageError,
    check_labels,
    check_text,
    is_number,
    line_at,
    match_lines,
    mend,
)
from exporter.metrics.page import FamilyShape, Page, Shape, assemble, shape_of
from exporter.metrics.repairs import Repair

if TYPE_CHECKING:
    import re
    from collections.abc import Mapping

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
    return page or _parse(raw, shape)


def _parse(raw: bytes, shape: Shape | None) -> Page:
    check_text(raw)
    repairs: dict[str, int] = {}
    raw = mend(raw, repairs)
    if repairs and shape and (page := shape.fit(raw, repairs)):
        return page
    drafts = _draft_families(raw, {})
    if parts := _parts(drafts):
        if headers := sum(drafts[name].has_header for name in parts):
            repairs[Repair.SHADOWED_HEADER] = headers
        drafts = _draft_families(raw, parts)
    check_labels(raw)
    for draft in drafts.values():
        draft.check_bounds(raw)
    if scattered := sum(len(draft.spans) > 1 for draft in drafts.values()):
        repairs[Repair.DUPLICATE_FAMILY] = scattered
    shapes = [draft.shape() for draft in drafts.values()]
    if Repair.SHADOWED_HEADER in repairs or Repair.DUPLICATE_FAMILY in repairs:
        return assemble([draft.merged(raw) for draft in drafts.values()], shapes, repairs)
    starts = (*(draft.spans[0][0] for draft in drafts.values()), len(raw))
    return Page(raw, shape_of(raw, shapes, starts), starts, repairs)


@dataclass(slots=True)
class _Draft:
    """A family while its lines are being collected."""

    name: bytes
    spans: list[list[int]]  # [start, end) in the text; several when its lines are scattered
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

    def shape(self) -> FamilyShape:
        return FamilyShape(self.name.decode(), self.kind or "untyped", self.samples)

    def merged(self, raw: bytes) -> bytes:
        """Return the family's lines in one place, under one header."""
        if len(self.spans) == 1:
            return raw[slice(*self.spans[0])]
        header = [raw[slice(*span)] for span in (self.help, self.type) if span]
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
            for i, line in enumerate(raw[start:end].split(b"\n")):
                bound = None if line.startswith(b"#") else pattern.search(OTHER_VALUES.sub(b"", line))
                if bound and not is_number(bound[1]):
                    problem = "a bucket or quantile that is not a number"
                    raise InvalidPageError(problem, line=line_at(raw, start) + i)


def _parts(drafts: Mapping[bytes, _Draft]) -> dict[bytes, bytes]:
    """Return the families named as another's series, each with that one's name.

    To expfmt, `h_sum` is of the histogram `h`, and a TYPE of it is a second one of `h`.
    """
    parts: dict[bytes, bytes] = {}
    for name in sorted(drafts, key=len):  # a part has no parts of its own
        if name not in parts:
            series = (name + suffix for suffix in SUFFIXES.get(drafts[name].kind or "", ())[1:])
            parts |= {part: name for part in series if part in drafts}
    return parts


def _draft_families(raw: bytes, parts: Mapping[bytes, bytes]) -> dict[bytes, _Draft]:
    """Collect each family's lines; those of `parts` go to the family named there, but for their headers."""
    drafts: dict[bytes, _Draft] = {}
    current: _Draft | None = None
    free = position = 0  # what is before the next family, and of none, begins at `free`
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
                current = drafts.setdefault(name, _Draft(name, []))
                current.spans.append([start, start])
        if current is not None:
            _take(current, match, raw)
            current.spans[-1][1] = after
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
