"""The engine's exposition page: checked whole, then split into families.

A page goes through to Prometheus as the bytes the engine sent, so it must be
known to be valid: one bad line makes Prometheus drop a whole scrape, the
runtime's own series with it. Checking has two speeds:

* `reader.parse_page` reads every line with one pattern, looks at label names
  and bounds, and returns a `Page` with its `Shape`;
* `Shape.fit` recognises a later page that differs only in its values. Between
  two scrapes hardly anything else changes, and cutting the values out of the
  text and comparing the rest costs less than a tenth.
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

# The value at the end of a sample line as client libraries write it: what may
# change between two pages of one shape; bounded like the usual numbers. Other
# forms (NaN, timestamps) stay in the structure: a page whose NaN comes or goes
# is read in full.
_NUMBER: Final = rb"-?[0-9]{1,60}+(?:\.[0-9]{1,60}+)?+(?:e[+-]?[0-9]{1,2}+)?+\n"
_LAST_NUMBER: Final = re.compile(b" " + _NUMBER)
# What follows something that looks like a value may be a timestamp, which has
# rules of its own; that is looked at closely only when the last character is
# one that a value may have.
_VALUE_BEFORE: Final = rb"[0-9.fFnNyY](?:(?<=[0-9.])|(?<=[Nn][Aa][Nn]|[Ii][Nn][Ff])|(?<=[Nn][Ii][Tt][Yy]))"
_NO_TIMESTAMP: Final = re.compile(rb" (?<!" + _VALUE_BEFORE + rb" )" + _NUMBER)
# By so much the length of a value seldom changes.
_SLACK: Final = 16


@dataclass(frozen=True, slots=True)
class FamilyShape:
    """A family as every page of one shape has it."""

    name: str
    kind: str
    samples: int


class _Step(NamedTuple):
    """How to find a family from the start of the one before, on a page whose values may be longer or shorter."""

    opening: bytes  # a newline and how its first line but comments begins; unique within the page
    least: int  # bytes that are before that newline at least
    window: int  # within how many more it mostly begins
    comments: int  # lines before that line


@dataclass(frozen=True)
class Shape:
    """All of a page but its values; `fit` knows the next page of the same shape."""

    # The text with each value replaced by NUL, which no page contains; None fits no page.
    structure: bytes | None
    families: tuple[FamilyShape, ...]
    samples: int
    value: re.Pattern[bytes] = _LAST_NUMBER
    steps: tuple[_Step, ...] = ()
    _recalled: dict[object, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def positions(self) -> dict[str, int]:
        """Where in `families` each name stands."""
        return {family.name: i for i, family in enumerate(self.families)}

    @cached_property
    def series_names(self) -> frozenset[str]:
        """All names that series of the page may have, and those of its families."""
        return frozenset().union(*(series_names(family.name, family.kind) for family in self.families))

    def names_under(self, prefix: str) -> tuple[str, ...]:
        """Return the family names that begin with `prefix`; remembered."""
        return self.recall(prefix, lambda: tuple(name for name in self.positions if name.startswith(prefix)))

    def recall(self, key: object, make: Callable[[], _T]) -> _T:
        """Return what `make` makes of this shape; made once, and remembered under `key`."""
        if key not in self._recalled:
            self._recalled[key] = make()
        found: _T = self._recalled[key]
        return found

    def fit(self, raw: bytes, repairs: dict[str, int] | None = None) -> Page | None:
        """Return `raw`, made with these repairs, as a page if it has this shape, else `None`."""
        if raw.find(b"\x00") >= 0 or not self._has_structure_of(raw):
            return None
        starts = self._locate(raw)
        return Page(raw, self, starts, repairs) if starts else None

    def _has_structure_of(self, raw: bytes) -> bool:
        """Compare slab by slab: the pieces of a large page at once cost more to allocate than to make."""
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
        """Return where each family starts, with the end of the page added."""
        starts = [position := 0]
        find, append = raw.find, starts.append
        for opening, least, window, comments in self.steps:
            # Looked for where it should be: a search in a long text begins with a study of what is searched.
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
        repairs: How often each kind of flaw was mended to make the text valid
            for every reader, by `Repair`; mostly empty.
    """

    __slots__ = ("_starts", "raw", "repairs", "shape")

    def __init__(
        self, raw: bytes, shape: Shape, starts: tuple[int, ...], repairs: dict[str, int] | None = None
    ) -> None:
        """Make a page of known-valid text; use `parse_page` or `assemble`."""
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

    def kind_of(self, name: str) -> str | None:
        """Return the type of the family of this name if it has samples."""
        position = self.shape.positions.get(name)
        if position is None or not self.shape.families[position].samples:
            return None
        return self.shape.families[position].kind

    def samples_of(self, name: str) -> int:
        """Return the number of sample lines of a family that is there."""
        return self.shape.families[self.shape.positions[name]].samples

    def sample_blocks(self, name: str) -> Iterator[bytes]:
        """Yield the sample lines of a family that is there, slab by slab; headers and comments are left out."""
        start, end = self._starts[(position := self.shape.positions[name])], self._starts[position + 1]
        while self.raw.startswith(b"#", start, end):
            start = self.raw.index(b"\n", start) + 1
        bare = self.raw.count(b"\n", start, end) == self.shape.families[position].samples
        for span in slabs(self.raw, start, end):
            block = self.raw[slice(*span)]
            if bare or (block := b"".join(line + b"\n" for line in sample_lines(block))):
                yield block

    def __contains__(self, name: str) -> bool:
        """Tell whether a family of this name is there, with samples or without."""
        return name in self.shape.positions

    def families(self) -> Iterator[TextFamily]:
        """Yield all families in the order of the page."""
        return map(self._family, range(len(self.shape.families)))

    def blocks(self, places: Iterable[int]) -> Iterator[memoryview]:
        """Yield the text of the families at these places, in ascending order; neighbours are one piece."""
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
        """Return the page less the families of these names."""
        unwanted = set(names)
        kept = [i for i, family in enumerate(self.shape.families) if family.name not in unwanted]
        blocks = (memoryview(self.raw)[self._starts[i] : self._starts[i + 1]] for i in kept)
        return assemble(blocks, [self.shape.families[i] for i in kept], self.repairs)

    def _family(self, position: int) -> TextFamily:
        family = self.shape.families[position]
        block = self.raw[self._starts[position] : self._starts[position + 1]]
        return TextFamily(family.name, family.kind, block)


def assemble(blocks: Iterable[bytes | memoryview], shapes: list[FamilyShape], repairs: dict[str, int]) -> Page:
    """Build a page out of blocks that differ from the text the engine sent."""
    raw, starts = BytesIO(), [0]
    for block in blocks:
        raw.write(block)
        starts.append(raw.tell())
    # Such a page is made anew at each scrape: what the engine sends never fits it.
    shape = Shape(None, tuple(shapes), sum(family.samples for family in shapes))
    return Page(raw.getvalue(), shape, tuple(starts), repairs)


def shape_of(raw: bytes, families: Sequence[FamilyShape], starts: Sequence[int]) -> Shape:
    """Return the shape of a valid page; `starts` ends with the end of the page."""
    whole, lengths = BytesIO(), []
    value = _LAST_NUMBER
    spans = list(pairwise(starts)) or [(0, len(raw))]  # comments are of no family when there is none
    for span in spans:
        length = 0
        for start, end in slabs(raw, *span):
            plain, careful = structure(raw[start:end]), structure(raw[start:end], _NO_TIMESTAMP)
            if plain != careful:
                value = _NO_TIMESTAMP
            whole.write(careful)
            length += len(plain)
        lengths.append(length)
    steps = tuple(map(partial(_step, raw), spans, lengths, spans[1:], families))
    # Without a timestamp on this page, a page that matches it after the cut has none either.
    return Shape(whole.getvalue(), tuple(families), sum(family.samples for family in families), value, steps)


def _step(raw: bytes, before: tuple[int, int], least: int, span: tuple[int, int], family: FamilyShape) -> _Step:
    """Return how to find the block at `span` behind the block `before`, whose text less its values has `least` bytes."""
    start, end = span
    opening = OPENING.search(raw, start, end)
    text, comments = (opening[0], opening.start() - start) if opening else (raw[start:end], 0)
    window = before[1] - before[0] - least + family.samples * _SLACK + comments + len(text) + 1
    return _Step(b"\n" + text, least - 1, window, raw.count(b"\n", start, start + comments))


def structure(raw: bytes, value: re.Pattern[bytes] = _LAST_NUMBER) -> bytes:
    """Return a text with each value replaced by NUL, which no page contains."""
    return b"\x00".join(value.split(raw))
