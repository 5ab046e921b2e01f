"""The engine's exposition page: checked whole, then split into families.

A page goes through to Prometheus as the bytes the engine sent, so it must be
known to be valid: one bad line makes Prometheus drop a whole scrape, the
runtime's own series with it. Checking has two speeds:

* `parse_page` reads every line with one pattern per kind of line (about
  0.5 us a line) and returns a `Page` with its `Shape`;
* `Shape.fit` recognises a later page that differs only in its values. Between
  two scrapes hardly anything else changes, and cutting the values out of the
  text and comparing the rest costs about 0.15 us a line.

The grammar is the text format 0.0.4, as strict as the stricter of its two Go
readers (Prometheus's scraper and expfmt, which autoscalers use):
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from math import isinf
from typing import TYPE_CHECKING, Final

from exporter.metrics.families import TextFamily, sample_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["InvalidPageError", "Page", "Shape", "parse_page"]

_NAME: Final = rb"[a-zA-Z_:][a-zA-Z0-9_:]*+"
_LABEL: Final = rb'[a-zA-Z_][a-zA-Z0-9_]*+[ \t]*+=[ \t]*+"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"[ \t]*+'
_LABELS: Final = rb"\{[ \t]*+(?:" + _LABEL + rb"(?:,[ \t]*+|(?=\})))*+\}"
_VALUE: Final = (
    rb"(?:[+-]?(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+"
    rb"|[+-]?[Ii][Nn][Ff]|[Nn][Aa][Nn])"
)
# Series, value, optional timestamp (ms, an int64).
_REST: Final = rb"(?:[ \t]*+" + _LABELS + rb"[ \t]*+|[ \t]++)" + _VALUE + rb"(?:[ \t]++-?[0-9]{1,18}+)?+[ \t]*+\n"

_LINES: Final = re.compile(
    rb"(?P<samples>(?P<name>" + _NAME + rb")" + _REST + rb"(?:(?P=name)" + _REST + rb")*+)"
    rb"|(?P<help>\#[ \t]++HELP[ \t]++(?P<help_name>" + _NAME + rb")(?:[ \t][^\n]*+)?+\n)"
    rb"|(?P<type>\#[ \t]++TYPE[ \t]++(?P<type_name>" + _NAME + rb")[ \t]++"
    rb"(?P<kind>counter|gauge|histogram|summary|untyped)\n)"
    rb"|(?P<blank>(?:\#(?![ \t]++(?:HELP|TYPE)[ \t])[^\n]*+\n|[ \t]*+\n)++)"
)

# The value at the end of a sample line as client libraries write it: what may
# change between two pages of one shape. Bounded, so that none can overflow a
# float64, which Go's parser reports as an error. Other forms (NaN, timestamps)
# stay in the structure: a page whose NaN comes or goes is read in full.
_CANONICAL_VALUE: Final = re.compile(rb" -?[0-9]{1,60}+(?:\.[0-9]{1,60}+)?+(?:e[+-]?[0-9]{1,2}+)?+\n")
_HUGE_EXPONENT: Final = re.compile(rb"[eE]\+?[0-9]{3}")
_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_HUGE_MANTISSA: Final = b"0" * 200
_LABEL_VALUE: Final = re.compile(rb'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"')
_SIGNATURE: Final = re.compile(rb"^" + _NAME + rb"[ \t]*+(\{[^}\n]++\})", re.MULTILINE)
_LABEL_NAME: Final = re.compile(rb"[a-zA-Z_][a-zA-Z0-9_]*+")
_SERIES: Final = re.compile(_NAME + rb"(?:[ \t]*+" + _LABELS + rb")?+[ \t]?")
_BOUND: Final = {
    kind: re.compile(rb"[{,][ \t]*+" + label + rb'[ \t]*+=[ \t]*+"([^"]*+)"')
    for kind, label in (("histogram", rb"le"), ("summary", rb"quantile"))
}
_OTHER_VALUES: Final = re.compile(rb'(?<![{, ]le)(?<!quantile)="[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"')
_LONE_BACKSLASH: Final = re.compile(rb'\\(\\|n|"|)')
_LONE_HELP_BACKSLASH: Final = re.compile(rb"\\(\\|n|)")

_SUFFIXES: Final = {
    "histogram": (b"", b"_bucket", b"_sum", b"_count"),
    "summary": (b"", b"_sum", b"_count"),
}


class InvalidPageError(ValueError):
    """The text is not a valid exposition page.

    Attributes:
        line: Number of the first bad line, from 1, or 0 when not one line.
        problem: What is wrong, without any of the page's content.
    """

    def __init__(self, problem: str, *, line: int = 0) -> None:
        """Say what is wrong, and where."""
        super().__init__(f"line {line}: {problem}" if line else problem)
        self.line = line
        self.problem = problem


@dataclass(frozen=True, slots=True)
class _FamilyShape:
    """A family as every page of one shape has it."""

    name: str
    kind: str
    opening: bytes  # a newline and how its first line begins; unique within the page
    samples: int


@dataclass(frozen=True)
class Shape:
    """All of a page but its values; `fit` knows the next page of the same shape."""

    # The text with each value replaced by NUL, which no page contains; None fits no page.
    structure: bytes | None
    families: tuple[_FamilyShape, ...]
    samples: int
    _under: dict[str, tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def positions(self) -> dict[str, int]:
        """Where in `families` each name stands."""
        return {family.name: i for i, family in enumerate(self.families)}

    def names_under(self, prefix: str) -> tuple[str, ...]:
        """Return the family names that begin with `prefix`; remembered."""
        if prefix not in self._under:
            self._under[prefix] = tuple(name for name in self.positions if name.startswith(prefix))
        return self._under[prefix]

    def fit(self, raw: bytes) -> Page | None:
        """Return `raw` as a page if it has this shape, else `None`."""
        if raw.find(b"\x00") >= 0 or _structure(raw) != self.structure:
            return None
        starts = self._locate(raw)
        return Page(raw, self, starts) if starts else None

    def _locate(self, raw: bytes) -> tuple[int, ...] | None:
        """Return where each family starts, with the end of the page added."""
        starts = [0]
        position = 0
        find, append = raw.find, starts.append
        for family in self.families[1:]:
            position = find(family.opening, position) + 1
            if not position:
                return None
            append(position)
        starts.append(len(raw))
        return tuple(starts)


class Page:
    """One valid exposition page.

    Attributes:
        raw: The text, exactly as it is passed on.
        shape: The shape that later pages are compared with.
        repairs: How often each kind of flaw was mended to make the text valid
            for every reader (`duplicate_family`, `escape`); mostly empty.
    """

    __slots__ = ("_starts", "raw", "repairs", "shape")

    def __init__(
        self, raw: bytes, shape: Shape, starts: tuple[int, ...], repairs: dict[str, int] | None = None
    ) -> None:
        """Make a page of known-valid text; use `parse_page` instead."""
        self.raw = raw
        self.shape = shape
        self.repairs = repairs or {}
        self._starts = starts

    @property
    def samples(self) -> int:
        """The number of sample lines."""
        return self.shape.samples

    def get(self, name: str) -> TextFamily | None:
        """Return the family of this name (as in its TYPE line) if it has samples."""
        position = self.shape.positions.get(name)
        if position is None or not self.shape.families[position].samples:
            return None
        return self._family(position)

    def __contains__(self, name: str) -> bool:
        """Tell whether a family of this name is there, with samples or without."""
        return name in self.shape.positions

    def families(self) -> Iterator[TextFamily]:
        """Yield all families in the order of the page."""
        return map(self._family, range(len(self.shape.families)))

    def without(self, names: Iterable[str]) -> Page:
        """Return the page less the families of these names."""
        unwanted = set(names)
        kept = [i for i, family in enumerate(self.shape.families) if family.name not in unwanted]
        blocks = [self.raw[self._starts[i] : self._starts[i + 1]] for i in kept]
        return _assemble(blocks, [self.shape.families[i] for i in kept], self.repairs)

    def _family(self, position: int) -> TextFamily:
        family = self.shape.families[position]
        block = self.raw[self._starts[position] : self._starts[position + 1]]
        return TextFamily(family.name, family.kind, block)


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


def _structure(raw: bytes) -> bytes:
    return b"\x00".join(_CANONICAL_VALUE.split(raw))


def _parse(raw: bytes) -> Page:
    _check_text(raw)
    repairs: dict[str, int] = {}
    raw = _mend_escapes(raw, repairs)
    drafts = _draft_families(raw)
    _check_labels(raw)
    for draft in drafts:
        draft.check_bounds(raw)
    if _HUGE_EXPONENT.search(raw) or _HUGE_MANTISSA in raw.translate(_ZEROS):
        _check_overflow(raw)
    shapes = [draft.shape(raw) for draft in drafts]
    if any(len(draft.spans) > 1 for draft in drafts):
        repairs["duplicate_family"] = sum(len(draft.spans) > 1 for draft in drafts)
        return _assemble([draft.merged(raw) for draft in drafts], shapes, repairs)
    if repairs:
        return _assemble([raw[slice(*draft.spans[0])] for draft in drafts], shapes, repairs)
    starts = (*(draft.spans[0][0] for draft in drafts), len(raw))
    shape = Shape(_structure(raw), tuple(shapes), sum(family.samples for family in shapes))
    return Page(raw, shape, starts)


def _assemble(blocks: list[bytes], shapes: list[_FamilyShape], repairs: dict[str, int]) -> Page:
    """Build a page out of blocks that differ from the text the engine sent."""
    starts = [0]
    for block in blocks:
        starts.append(starts[-1] + len(block))
    # Such a page is made anew at each scrape: what the engine sends never fits it.
    shape = Shape(None, tuple(shapes), sum(family.samples for family in shapes))
    return Page(b"".join(blocks), shape, tuple(starts), repairs)


def _check_text(raw: bytes) -> None:
    if raw and not raw.endswith(b"\n"):
        problem = "the page ends in the middle of a line"
        raise InvalidPageError(problem, line=raw.count(b"\n") + 1)
    position = raw.find(b"\x00")
    if position >= 0:
        problem = "a NUL byte"
        raise InvalidPageError(problem, line=raw.count(b"\n", 0, position) + 1)
    if not raw.isascii():
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            problem = "not valid UTF-8"
            raise InvalidPageError(problem, line=raw.count(b"\n", 0, error.start) + 1) from None


def _mend_escapes(raw: bytes, repairs: dict[str, int]) -> bytes:
    r"""Escape lone backslashes: `\d` becomes `\\d`, which reads as `\d` everywhere.

    Prometheus reads an unknown escape as it stands; expfmt refuses the page.
    """
    if b"\\" not in raw:
        return raw
    lines = raw.split(b"\n")
    for i, line in enumerate(lines):
        if b"\\" in line:
            pattern = _LONE_HELP_BACKSLASH if line.startswith(b"#") else _LONE_BACKSLASH
            lines[i] = pattern.sub(lambda escape: escape[0] if escape[1] else b"\\\\", line)
            if lines[i] != line:
                repairs["escape"] = repairs.get("escape", 0) + 1
    return b"\n".join(lines)


@dataclass(slots=True)
class _Draft:
    """A family while its lines are being collected."""

    name: bytes
    spans: list[list[int]]  # [start, end) in the text; several when its lines are scattered
    help: tuple[int, int] | None = None
    type: tuple[int, int] | None = None
    kind: str | None = None
    samples: int = 0

    def takes(self, sample_name: bytes) -> bool:
        suffix = sample_name.removeprefix(self.name)
        return sample_name.startswith(self.name) and suffix in _SUFFIXES.get(self.kind or "", (b"",))

    def shape(self, raw: bytes) -> _FamilyShape:
        start, end = self.spans[0]
        line = raw[start : raw.find(b"\n", start, end) + 1]
        series = _SERIES.match(line)
        opening = series[0] if series else line
        return _FamilyShape(self.name.decode(), self.kind or "untyped", b"\n" + opening, self.samples)

    def merged(self, raw: bytes) -> bytes:
        """Return the family's lines in one place, under one header."""
        if len(self.spans) == 1:
            return raw[slice(*self.spans[0])]
        header = [raw[slice(*span)] for span in (self.help, self.type) if span]
        samples = (line + b"\n" for span in self.spans for line in sample_lines(raw[slice(*span)]))
        return b"".join([*header, *samples])

    def check_bounds(self, raw: bytes) -> None:
        """Refuse a `le` or `quantile` that is not a number: expfmt drops the page for it."""
        pattern = _BOUND.get(self.kind or "")
        if pattern is None:
            return
        for start, end in self.spans:
            if all(map(_is_number, set(pattern.findall(raw, start, end)))):
                continue
            # HELP texts and other labels' values may look like a bound: look line by line.
            for line in sample_lines(raw[start:end]):
                bound = pattern.search(_OTHER_VALUES.sub(b"", line))
                if bound and not _is_number(bound[1]):
                    problem = f"{self.name.decode()} has a bucket or quantile that is not a number"
                    raise InvalidPageError(problem)


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _draft_families(raw: bytes) -> list[_Draft]:
    drafts: dict[bytes, _Draft] = {}
    current: _Draft | None = None
    position, end = 0, len(raw)
    while position < end:
        match = _LINES.match(raw, position)
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


def _check_labels(raw: bytes) -> None:
    """Refuse repeated and reserved label names, which the pattern cannot see."""
    for signature in set(_SIGNATURE.findall(_LABEL_VALUE.sub(b"", raw))):
        names = _LABEL_NAME.findall(signature)
        if len(names) != len(set(names)) or b"__name__" in names:
            problem = "a label name that is repeated or reserved"
            raise InvalidPageError(problem)


def _check_overflow(raw: bytes) -> None:
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if line.startswith(b"#") or not line.strip():
            continue
        value = line.rpartition(b"}")[2].split()
        text = value[0] if b"}" in line else value[1]
        if isinf(float(text)) and b"nf" not in text.lower():
            problem = "a value beyond the range of a float64"
            raise InvalidPageError(problem, line=number)
