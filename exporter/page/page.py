"""The engine's exposition page: checked in full, then split into families (docs/adr/0001).

A page goes to Prometheus as the bytes that the engine sent, so it must be valid.
One bad line makes Prometheus drop the whole scrape, with the runtime's own
series. There are two ways to check a page:

* `exporter.page.parse.parse_page` reads every line with one pattern, checks
  label names and bounds, and returns a `Page` with its `Shape`.
* `Shape.fit` recognises a later page that differs only in its values. It cuts
  the values out of the text and compares the rest with the last valid page,
  which costs less than a tenth. Between two scrapes hardly anything else changes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property, partial
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from exporter.page.family import TextFamily, sample_lines
from exporter.page.grammar import OPENING
from exporter.page.slabs import slabs
from exporter.page.text_format import series_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["FamilyShape", "Page", "Shape", "assemble", "shape_of", "structure"]

_T = TypeVar("_T")

# The value at the end of a sample line as client libraries write it. Only this
# may change between two pages of one shape. Its length is bounded like the usual
# numbers of the grammar, so it cannot overflow a float64. Other forms (NaN,
# timestamps) stay in the structure: a page is read in full when a NaN appears or
# disappears.
_NUMBER: Final = rb"-?[0-9]{1,60}+(?:\.[0-9]{1,60}+)?+(?:e[+-]?[0-9]{1,2}+)?+\n"
_LAST_NUMBER: Final = re.compile(b" " + _NUMBER)
# A number behind something that looks like a value may be a timestamp, and the
# grammar checks timestamps differently. The first character class rejects most
# positions cheaply; the lookbehinds run only where it matches.
_VALUE_BEFORE: Final = rb"[0-9.fFnNyY](?:(?<=[0-9.])|(?<=[Nn][Aa][Nn]|[Ii][Nn][Ff])|(?<=[Nn][Ii][Tt][Yy]))"
_NO_TIMESTAMP: Final = re.compile(rb" (?<!" + _VALUE_BEFORE + rb" )" + _NUMBER)
# Bytes by which a value may grow or shrink and its family is still found in the first, short search.
_SLACK: Final = 16


@dataclass(frozen=True, slots=True)
class FamilyShape:
    """A family's name, type and number of sample lines, the same on every page of one shape."""

    name: str
    kind: str
    samples: int


class _Step(NamedTuple):
    """How to find a family from the start of the previous one, although values may be longer or shorter."""

    opening: bytes  # a newline and the beginning of the family's first line that is no comment
    least: int  # bytes of the previous family without its values: the newline cannot come earlier
    window: int  # further bytes within which the newline is nearly always found
    comments: int  # comment lines of the family in front of that line


@dataclass(frozen=True)
class Shape:
    """Everything about a page except its values; `fit` recognises a later page of the same shape.

    Attributes:
        structure: The text with each value replaced by NUL, which no page contains. `None` fits no page.
        families: The families in the order of the page.
        samples: The number of sample lines.
        lines: The number of all lines.
        value: The pattern with which values are cut out.
        steps: How to find each family but the first.
    """

    structure: bytes | None
    families: tuple[FamilyShape, ...]
    samples: int
    lines: int = 0
    value: re.Pattern[bytes] = _LAST_NUMBER
    steps: tuple[_Step, ...] = ()
    _recalled: dict[object, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def positions(self) -> dict[str, int]:
        """The position in `families` of each name."""
        return {family.name: i for i, family in enumerate(self.families)}

    @cached_property
    def series_names(self) -> frozenset[str]:
        """The names of all families, and all names that their series may have."""
        return frozenset().union(*(series_names(family.name, family.kind) for family in self.families))

    def names_under(self, prefix: str) -> tuple[str, ...]:
        """Return the family names that begin with `prefix`; computed once for each prefix."""
        return self.recall(prefix, lambda: tuple(name for name in self.positions if name.startswith(prefix)))

    def recall(self, key: object, make: Callable[[], _T]) -> _T:
        """Return `make()`, called once for this shape and remembered under `key`.

        Not thread-safe: the collector runs one scrape at a time.
        """
        if key not in self._recalled:
            self._recalled[key] = make()
        found: _T = self._recalled[key]
        return found

    def fit(self, raw: bytes, repairs: dict[str, int] | None = None) -> Page | None:
        """Return `raw` as a page if it has this shape, else `None`; `repairs` is what made the text valid."""
        # NUL stands for a value in the structure, so a page with NUL must not be compared.
        if raw.find(b"\x00") >= 0 or not self._has_structure_of(raw):
            return None
        starts = self._locate(raw)
        return Page(raw, self, starts, repairs) if starts else None

    def _has_structure_of(self, raw: bytes) -> bool:
        """Compare slab by slab: allocating the pieces of a whole large page would cost more than cutting it."""
        if self.structure is None:
            return False
        seen = 0
        for start, end in slabs(raw):
            slab = structure(raw[start:end], self.value)
            if not self.structure.startswith(slab, seen):
                return False
            seen += len(slab)
        return seen == len(self.structure)

    def _locate(self, raw: bytes) -> tuple[int, ...] | None:
        """Return the start of each family and the end of the page, or `None` if a family is not found."""
        starts = [position := 0]
        find, append = raw.find, starts.append
        for opening, least, window, comments in self.steps:
            # Search where the family should be: in a long text, CPython's `find` first analyses the search term.
            earliest = position + least
            found = find(opening, earliest, earliest + window)
            if found < 0 and (found := find(opening, earliest)) < 0:
                return None
            position = found + 1
            for _ in range(comments):
                position = raw.rfind(b"\n", 0, position - 1) + 1
            append(position)
        append(len(raw))
        return tuple(starts)


class Page:
    """One valid exposition page.

    Attributes:
        raw: The text, exactly as it is passed on.
        shape: The shape that later pages are compared with.
        repairs: Number of repairs that made the text valid for every parser, by `Repair`; usually empty.
    """

    __slots__ = ("_starts", "raw", "repairs", "shape")

    def __init__(
        self, raw: bytes, shape: Shape, starts: tuple[int, ...], repairs: dict[str, int] | None = None
    ) -> None:
        """Make a page of text that is known to be valid; call `parse_page` or `assemble` instead."""
        self.raw = raw
        self.shape = shape
        self.repairs = repairs or {}
        self._starts = starts

    @property
    def samples(self) -> int:
        return self.shape.samples

    def get(self, name: str) -> TextFamily | None:
        """Return the family of this name (as in its TYPE line) if it has samples."""
        position = self.shape.positions.get(name)
        if position is None or not self.shape.families[position].samples:
            return None
        return self._family(position)

    def kind_of(self, name: str) -> str | None:
        """Return the type of the family of this name (as in its TYPE line) if it has samples."""
        position = self.shape.positions.get(name)
        if position is None or not self.shape.families[position].samples:
            return None
        return self.shape.families[position].kind

    def samples_of(self, name: str) -> int:
        """Return the number of sample lines of a family on the page.

        Raises:
            KeyError: The page has no family of this name.
        """
        return self.shape.families[self.shape.positions[name]].samples

    def sample_blocks(self, name: str) -> Iterator[bytes]:
        """Yield the sample lines of a family, slab by slab, without headers and comments.

        Raises:
            KeyError: The page has no family of this name.
        """
        start, end = self._starts[(position := self.shape.positions[name])], self._starts[position + 1]
        while self.raw.startswith(b"#", start, end):
            start = self.raw.index(b"\n", start) + 1
        # Most families have only samples behind their headers, and then need not be split into lines.
        bare = self.raw.count(b"\n", start, end) == self.shape.families[position].samples
        for span in slabs(self.raw, start, end):
            block = self.raw[slice(*span)]
            if bare or (block := b"".join(line + b"\n" for line in sample_lines(block))):
                yield block

    def __contains__(self, name: str) -> bool:
        """Tell whether the page has a family of this name, with or without samples."""
        return name in self.shape.positions

    def families(self) -> Iterator[TextFamily]:
        """Yield all families in the order of the page; each holds a copy of its text."""
        return map(self._family, range(len(self.shape.families)))

    def blocks(self, places: Iterable[int]) -> Iterator[memoryview]:
        """Yield the text of the families at these ascending places, without copying; neighbours are one piece."""
        text = memoryview(self.raw)
        start = end = 0
        for place in places:
            if self._starts[place] != end:
                if end > start:
                    yield text[start:end]
                start = self._starts[place]
            end = self._starts[place + 1]
        if end > start:
            yield text[start:end]

    def without(self, names: Iterable[str]) -> Page:
        """Return the page without the families of these names."""
        unwanted = set(names)
        kept = [i for i, family in enumerate(self.shape.families) if family.name not in unwanted]
        blocks = (memoryview(self.raw)[self._starts[i] : self._starts[i + 1]] for i in kept)
        return assemble(blocks, [self.shape.families[i] for i in kept], self.repairs)

    def _family(self, position: int) -> TextFamily:
        family = self.shape.families[position]
        block = self.raw[self._starts[position] : self._starts[position + 1]]
        return TextFamily(family.name, family.kind, block)


def assemble(blocks: Iterable[bytes | memoryview], shapes: list[FamilyShape], repairs: dict[str, int]) -> Page:
    """Build a page from blocks, one per family, that differ from the text that the engine sent."""
    raw, starts = BytesIO(), [0]
    for block in blocks:
        raw.write(block)
        starts.append(raw.tell())
    # Without a structure: the engine never sends this text, so no later page can fit.
    shape = Shape(None, tuple(shapes), sum(family.samples for family in shapes))
    return Page(raw.getvalue(), shape, tuple(starts), repairs)


def shape_of(raw: bytes, families: Sequence[FamilyShape], starts: Sequence[int]) -> Shape:
    """Return the shape of a valid page; `starts` has the start of each family and the end of the page."""
    whole, lengths = BytesIO(), []
    value = _LAST_NUMBER
    spans = list(pairwise(starts)) or [(0, len(raw))]  # a page without families may have comments
    for span in spans:
        length = 0
        for start, end in slabs(raw, *span):
            plain, careful = structure(raw[start:end]), structure(raw[start:end], _NO_TIMESTAMP)
            if plain != careful:
                # The page may have timestamps, so its values need the slower pattern.
                value = _NO_TIMESTAMP
            whole.write(careful)
            length += len(plain)
        lengths.append(length)
    steps = tuple(map(partial(_step, raw), spans, lengths, spans[1:], families))
    # The fast pattern is safe for a page without timestamps. On a later page with one, it cuts out the
    # timestamp and leaves the value, so the structures differ and that page is read in full.
    samples = sum(family.samples for family in families)
    return Shape(whole.getvalue(), tuple(families), samples, raw.count(b"\n"), value, steps)


def _step(raw: bytes, before: tuple[int, int], least: int, span: tuple[int, int], family: FamilyShape) -> _Step:
    """Return how to find the block at `span` from the block `before`, which has `least` bytes without its values."""
    start, end = span
    opening = OPENING.search(raw, start, end)
    text, comments = (opening[0], opening.start() - start) if opening else (raw[start:end], 0)
    window = before[1] - before[0] - least + family.samples * _SLACK + comments + len(text) + 1
    return _Step(b"\n" + text, least - 1, window, raw.count(b"\n", start, start + comments))


def structure(raw: bytes, value: re.Pattern[bytes] = _LAST_NUMBER) -> bytes:
    """Return a text with each value, and the blank and newline around it, replaced by NUL."""
    return b"\x00".join(value.split(raw))
