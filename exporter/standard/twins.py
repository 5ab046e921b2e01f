"""Standard families: twins of the engine's own families under engine-neutral names.

    # TYPE vllm:num_requests_waiting gauge
    vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
    # HELP kthena:num_requests_waiting ... (from vllm:num_requests_waiting)
    # TYPE kthena:num_requests_waiting gauge
    kthena:num_requests_waiting{engine="0",model_name="m"} 3.0

A twin is the same lines under another name, so its labels and values are the
engine's to the byte (docs/adr/0001). `exporter.standard.rules` says which family
is the source of which twin.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cache
from itertools import chain, islice
from math import isfinite
from typing import TYPE_CHECKING, Final, NamedTuple

from exporter.page.family import TextFamily
from exporter.page.text_format import LABEL, SAMPLE, SUFFIXES, escape_help, escape_label, header, series_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from exporter.page.page import Page
    from exporter.standard.rules import Rule, RuleSet, Source

__all__ = ["Standardized", "WrongType", "standardize"]

_RUN: Final = 1000  # lines that are joined into one block
_AGGREGATES: Final = tuple(suffix.decode() for suffix in SUFFIXES["summary"][1:])
# Two float64 have 17 digits each at most: their product is never rounded.
_EXACT: Final = Context(prec=34)


class WrongType(NamedTuple):
    """A source that is on the page with a type other than the rule wants; it is not used.

    Attributes:
        metric: The standard metric.
        source: The source's name on the engine's page.
        kind: The type on the page.
        wanted: The type that the rule wants.
    """

    metric: str
    source: str
    kind: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Standardized:
    """The standard families of one page.

    Attributes:
        families: The twins, in the order of the rules.
        missing: Standard names that are not exported.
        taken: Standard names that the page already uses for a family or a series
            of its own. They get no twin: Go's parsers refuse a page with two
            families of one name. A name that the page has as a family is not missing.
        wrong_types: Sources that cannot be used because of their type.
    """

    families: tuple[TextFamily, ...]
    missing: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    wrong_types: tuple[WrongType, ...] = ()

    @property
    def present(self) -> tuple[str, ...]:
        """The standard names that are exported, as twins or as the engine's own families."""
        own = (name for name in self.taken if name not in self.missing)
        return (*(family.full_name for family in self.families), *own)


class _Plan(NamedTuple):
    """Which source feeds which rule: the same for every page of a shape.

    A shape remembers the plan under the id of the rules. The plan holds the rules, so that no other object can get
    the same id while the shape lives.
    """

    rules: RuleSet
    chosen: tuple[tuple[Rule, Source], ...]
    missing: tuple[str, ...]
    taken: tuple[str, ...]
    wrong_types: tuple[WrongType, ...]


def standardize(page: Page, rules: RuleSet) -> Standardized:
    """Return the standard families of a page.

    Sources are chosen once for each shape. A later scrape only copies and renames their lines.
    """
    plan = page.shape.recall(id(rules), lambda: _plan(page, rules))
    twins = (_twin(page, rule, source) for rule, source in plan.chosen)
    return Standardized(tuple(filter(None, twins)), plan.missing, plan.taken, plan.wrong_types)


def _plan(page: Page, rules: RuleSet) -> _Plan:
    taken = _taken(page, rules)
    absent = [rule for rule in rules.rules if rule.name not in page]
    found = [(rule, None if rule.name in taken else _source(page, rule)) for rule in absent]
    chosen = tuple((rule, source) for rule, source in found if source)
    missing = tuple(rule.name for rule, source in found if source is None)
    return _Plan(rules, chosen, missing, taken, tuple(_wrong_types(page, rules)))


def _source(page: Page, rule: Rule) -> Source | None:
    """Return the first source with samples that pass its conditions.

    Labels are part of a shape, so the choice holds for every page of it.
    """
    return next((source for source in rule.sources if _twin(page, rule, source)), None)


def _taken(page: Page, rules: RuleSet) -> tuple[str, ...]:
    """Return the standard names that share a series name with a family of the page."""
    theirs = page.shape.series_names
    return tuple(rule.name for rule in rules.rules if not theirs.isdisjoint(series_names(rule.name, rule.kind)))


def _wrong_types(page: Page, rules: RuleSet) -> Iterator[WrongType]:
    for rule in rules.rules:
        for source in rule.sources:
            kind, wanted = page.kind_of(source.name), source.kind or rule.kind
            if kind is not None and not _fits(kind, wanted):
                yield WrongType(rule.name, source.name, kind, wanted)


def _fits(kind: str, wanted: str) -> bool:
    """Tell whether a family of type `kind` can be the source of `wanted`; an untyped family has no buckets."""
    return kind == wanted or (kind == "untyped" and wanted != "histogram")


def _twin(page: Page, rule: Rule, source: Source) -> TextFamily | None:
    old, new = b"\n" + source.name.encode(), b"\n" + rule.name.encode()
    lines = _lines(page, rule, source)
    if source.picks:
        lines = _pick(lines, rule.kind, source)
    # With a newline in front of each name, one replacement renames all samples of a block and no label value:
    # label values cannot contain a newline.
    renamed = [(b"\n" + block[:-1]).replace(old, new) for block in lines]
    if not renamed:
        return None
    text = b"".join([_header(rule.name, rule.kind, rule.help, source.name)[:-1], *renamed, b"\n"])
    return TextFamily(rule.name, rule.kind, text)


@cache
def _header(name: str, kind: str, text: str, source: str) -> bytes:
    return header(name.encode(), kind.encode(), escape_help(f"{text} (from {source})"))


def _lines(page: Page, rule: Rule, source: Source) -> Iterator[bytes]:
    """Yield blocks of the source's sample lines, each line with its newline."""
    kind = source.kind or rule.kind
    if (found := page.kind_of(source.name)) is not None:
        return page.sample_blocks(source.name) if _fits(found, kind) else iter(())
    # A counter may also come from the _sum or _count of a histogram or summary, which never decrease.
    suffix = next((suffix for suffix in _AGGREGATES if source.name.endswith(suffix)), None)
    parent = source.name.removesuffix(suffix) if suffix and rule.kind == "counter" else ""
    if page.kind_of(parent) not in ("histogram", "summary"):
        return iter(())
    series = re.compile(rb"^" + source.name.encode() + rb"[{ \t].*+\n", re.MULTILINE)
    return filter(None, (b"".join(series.findall(block)) for block in page.sample_blocks(parent)))


def _pick(blocks: Iterable[bytes], kind: str, source: Source) -> Iterator[bytes]:
    """Yield blocks of the samples that pass the source's conditions, scaled."""
    where = {name.encode(): escape_label(value).encode() for name, value in source.where.items()}
    kept: dict[object, tuple[tuple[tuple[int, bytes], ...], bytes]] = {}
    for line in chain.from_iterable(block.split(b"\n")[:-1] for block in blocks):
        match = SAMPLE.match(line)
        labels = dict(LABEL.findall(match[2])) if match and match[2] else {}
        if any(labels.get(name, value) != value for name, value in where.items()):
            continue
        ranks = tuple(_rank(labels.pop(name.encode(), b"")) for name in source.copies)
        series = (match[1] if match else line, *(part for pair in sorted(labels.items()) for part in pair))
        key = b"\n".join(series)  # of sorted labels: their order does not make another series
        if key not in kept or ranks < kept[key][0]:
            kept[key] = (ranks, line)
    lines = (line if source.scale == 1.0 else _scaled(line, kind, source.scale) for _, line in kept.values())
    while some := list(islice(lines, _RUN)):
        yield b"\n".join([*some, b""])


def _rank(value: bytes) -> tuple[int, bytes]:
    """Return a sort key: numbers of any length in numeric order, other values in front of them."""
    digits = value.lstrip(b"0")
    return (len(digits), digits) if value.isdigit() else (-1, b"")


def _scaled(line: bytes, kind: str, factor: float) -> bytes:
    match = SAMPLE.match(line)
    if match is None:
        return line
    name, labels, value, rest = match.groups(b"")
    if kind != "histogram" or name.endswith(b"_sum"):
        value = _times(value, factor)
    elif name.endswith(b"_bucket"):
        labels = LABEL.sub(lambda pair: b'le="%b"' % _times(pair[2], factor) if pair[1] == b"le" else pair[0], labels)
    return name + labels + b" " + value + rest


def _times(value: bytes, factor: float) -> bytes:
    """Return the float64 nearest to the product of two decimal numbers as written: 100000 times 1e-6 is 0.1.

    A product of binary floats would give bounds such as 0.09999999999999999.
    """
    number = float(value)
    if not isfinite(number):
        return value
    product = _EXACT.multiply(Decimal(repr(number)), Decimal(repr(factor)))
    return repr(float(product)).encode()
