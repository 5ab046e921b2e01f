"""The grammar of text format 0.0.4, as strict as the stricter of its two Go parsers (docs/adr/0001).

Prometheus's scraper and expfmt, which autoscalers use, disagree in places. The
runtime refuses what either of them refuses, or repairs it where the meaning is
clear. One line that Prometheus refuses would cost it the whole scrape.
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
from codecs import utf_8_decode
from io import BytesIO
from math import isinf
from operator import ne
from typing import TYPE_CHECKING, Final

from exporter.page.repairs import Repair
from exporter.page.slabs import SLAB, slabs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "BOUNDS",
    "OPENING",
    "OTHER_VALUES",
    "InvalidPageError",
    "check_labels",
    "check_text",
    "is_number",
    "line_at",
    "match_lines",
    "mend",
]

# Quantifiers are possessive (`*+`, `++`), so a bad line fails without backtracking.
_NAME: Final = rb"[a-zA-Z_:][a-zA-Z0-9_:]*+"
_LABEL: Final = rb'[a-zA-Z_][a-zA-Z0-9_]*+[ \t]*+=[ \t]*+"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"[ \t]*+'
_LABELS: Final = rb"\{[ \t]*+(?:" + _LABEL + rb"(?:,[ \t]*+|(?=\})))*+\}"
_WORD: Final = rb"[+-]?[Ii][Nn][Ff](?:[Ii][Nn][Ii][Tt][Yy])?+|[Nn][Aa][Nn]"
# Bounded lengths: such a number cannot overflow a float64, which Go's parser reports as an error.
_USUAL_NUMBER: Final = rb"[+-]?(?:[0-9]{1,60}+(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?[0-9]{1,2}+)?+"
_ANY_NUMBER: Final = rb"[+-]?(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+"


def _line_pattern(number: bytes) -> re.Pattern[bytes]:
    """Return the pattern for a run of samples with one name, or for one line of another kind.

    A run is one match, so a page costs a match per family instead of a match per line.
    """
    # Series, value, optional timestamp. The timestamp is in milliseconds and fits an int64.
    # Prometheus's lexer has no token for a negative one.
    series = rb"(?:[ \t]*+" + _LABELS + rb"[ \t]*+|[ \t]++)"
    rest = series + rb"(?:" + number + rb"|" + _WORD + rb")(?:[ \t]++[0-9]{1,18}+)?+\n"
    return re.compile(
        rb"(?P<samples>(?P<name>" + _NAME + rb")" + rest + rb"(?:(?P=name)" + rest + rb")*+)"
        rb"|(?P<help>\#[ \t]++HELP[ \t]++(?P<help_name>" + _NAME + rb")(?:[ \t][^\n]*+)?+\n)"
        # Exactly one blank in front of the type: Prometheus reads a second blank as part of the type.
        rb"|(?P<type>\#[ \t]++TYPE[ \t]++(?P<type_name>" + _NAME + rb")[ \t]"
        rb"(?P<kind>counter|gauge|histogram|summary|untyped)\n)"
        rb"|(?P<blank>(?:\#(?![ \t]++(?:HELP|TYPE)[ \t])[^\n]*+\n|[ \t]*+\n)++)"
    )


_USUAL_LINES: Final = _line_pattern(_USUAL_NUMBER)
_ANY_LINES: Final = _line_pattern(_ANY_NUMBER)

# An unclosed quote takes the rest of its line. Retrying from each escaped quote in it would take quadratic time.
_VALUE: Final = rb'"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"?+'
_LABEL_VALUE: Final = re.compile(_VALUE)
_NUMBER: Final = re.compile(_ANY_NUMBER + rb"|" + _WORD)
_SIGNATURE: Final = re.compile(rb"^" + _NAME + rb"[ \t]*+(\{[^}\n]++\})", re.MULTILINE)
_LABEL_NAME: Final = re.compile(rb"[a-zA-Z_][a-zA-Z0-9_]*+")
# The beginning of a HELP, TYPE or sample line, up to the end of the metric's name.
OPENING: Final = re.compile(
    rb"^(?:#[ \t]++(?:HELP|TYPE)[ \t]++" + _NAME + rb"[ \t\n]|" + _NAME + rb"[ \t{])", re.MULTILINE
)
# The `le` or `quantile` of a sample line, by the family's type.
BOUNDS: Final = {
    kind: re.compile(rb"[{,][ \t]*+" + label + rb'[ \t]*+=[ \t]*+"([^"]*+)"')
    for kind, label in (("histogram", rb"le"), ("summary", rb"quantile"))
}
# The values of all other labels, which may contain text that looks like a bound.
OTHER_VALUES: Final = re.compile(rb"(?<![{, ]le)(?<!quantile)=" + _VALUE)
_BARE_HEADER: Final = re.compile(rb"^#(?=(?:HELP|TYPE)[ \t])")
_HELP: Final = re.compile(rb"#[ \t]+HELP[ \t]")
# The escapes of label values and HELP texts, each with its placeholder while a line is repaired. No page contains NUL.
_ESCAPES: Final = ((b"\\\\", b"\x00b"), (b"\\n", b"\x00n"), (b'\\"', b"\x00q"))
_HELP_ESCAPES: Final = _ESCAPES[:2]
# The limit for a line that is longer than a slab: a list of its label names would take many times its bytes.
_MOST_LABELS: Final = 10_000


class InvalidPageError(ValueError):
    """The text is not a valid exposition page.

    Attributes:
        line: Number of the first bad line, from 1; 0 when the problem is not in one line.
        problem: What is wrong. It holds none of the page's content, because it is logged and served.
    """

    def __init__(self, problem: str, *, line: int = 0) -> None:
        super().__init__(f"line {line}: {problem}" if line else problem)
        self.line = line
        self.problem = problem


def match_lines(raw: bytes, position: int) -> re.Match[bytes] | None:
    """Match a run of samples with one name, or one other line, at `position`; `None` if the line is not valid.

    Groups: samples, name; help, help_name; type, type_name, kind; blank.

    Raises:
        InvalidPageError: A value is beyond the range of a float64.
    """
    return _USUAL_LINES.match(raw, position) or _match_unusual(raw, position)


def _match_unusual(raw: bytes, position: int) -> re.Match[bytes] | None:
    """Match samples with numbers of any length, and refuse a number that no float64 can hold."""
    match = _ANY_LINES.match(raw, position)
    if match is None or match.lastgroup != "samples":
        return match
    for number, line in _lines(raw, *match.span()):
        value = line.rpartition(b"}")[2].split()
        text = value[0] if b"}" in line else value[1]
        if _overflows(text):
            problem = "a value beyond the range of a float64"
            raise InvalidPageError(problem, line=line_at(raw, position) + number)
    return match


def check_text(raw: bytes) -> None:
    """Refuse NUL, invalid UTF-8, and a page that ends in the middle of a line.

    Raises:
        InvalidPageError: The text has such a flaw.
    """
    if raw and not raw.endswith(b"\n"):
        problem = "the page ends in the middle of a line"
        raise InvalidPageError(problem, line=line_at(raw, len(raw)))
    position = raw.find(b"\x00")
    if position >= 0:
        problem = "a NUL byte"
        raise InvalidPageError(problem, line=line_at(raw, position))
    position = _undecodable(raw)
    if position >= 0:
        problem = "not valid UTF-8"
        raise InvalidPageError(problem, line=line_at(raw, position))


def _undecodable(raw: bytes) -> int:
    """Return the position of the first byte that is not UTF-8, or -1.

    Python's own error holds the text, so it must not leave this function.
    """
    position = len(raw) if raw.isascii() else 0
    while position < len(raw):
        end = position + SLAB
        try:
            position += utf_8_decode(raw[position:end], "strict", end >= len(raw))[1]
        except UnicodeDecodeError as error:
            return position + error.start
    return -1


def line_at(raw: bytes, position: int) -> int:
    """Return the number of the line at a position, from 1.

    It costs a pass over the text, so call it only for an error. A call per match would be quadratic.
    """
    return raw.count(b"\n", 0, position) + 1


def mend(raw: bytes, repairs: dict[str, int]) -> bytes:
    r"""Repair lines that expfmt refuses or reads differently from Prometheus; count the lines in `repairs`.

    * `#TYPE` is a comment to Prometheus and a header to expfmt. It becomes `# TYPE`.
    * Prometheus reads `\d` as it stands, and expfmt refuses it. It becomes `\\d`, which reads the same in both.
    * Prometheus ignores blanks at the end of a sample, and expfmt refuses them. They are cut off.
    """
    # A search for bytes that most pages lack costs far less than splitting the page into lines.
    if b"#HELP" in raw or b"#TYPE" in raw:
        raw = _mend_lines(raw, Repair.HEADER_BLANK, repairs, lambda line: _BARE_HEADER.sub(b"# ", line))
    if b"\\" in raw:
        raw = _mend_lines(raw, Repair.ESCAPE, repairs, _mend_escapes)
    if b" \n" in raw or b"\t\n" in raw:
        raw = _mend_lines(raw, Repair.TRAILING_BLANK, repairs, _mend_end)
    return raw


def _mend_lines(raw: bytes, kind: Repair, repairs: dict[str, int], mended: Callable[[bytes], bytes]) -> bytes:
    """Apply the repair `mended` to each line, and count the lines that it changed; return `raw` if there is none."""
    times, text = 0, BytesIO()
    for start, end in slabs(raw):
        before = raw[start:end].split(b"\n")
        after = list(map(mended, before))
        times += sum(map(ne, before, after))
        text.write(b"\n".join(after))
    if not times:
        return raw
    repairs[kind] = times
    return text.getvalue()


def _mend_escapes(line: bytes) -> bytes:
    if b"\\" not in line or (line.startswith(b"#") and not _HELP.match(line)):
        return line
    escapes = _HELP_ESCAPES if line.startswith(b"#") else _ESCAPES
    marked = line
    for escape, mark in escapes:
        marked = marked.replace(escape, mark)
    if b"\\" not in marked:
        return line
    marked = marked.replace(b"\\", b"\x00b")
    for escape, mark in escapes:
        marked = marked.replace(mark, escape)
    return marked


def _mend_end(line: bytes) -> bytes:
    return line if line.startswith(b"#") or not line.strip() else line.rstrip(b" \t")


def check_labels(raw: bytes) -> None:
    """Refuse repeated label names and the reserved `__name__`, which the line pattern cannot detect.

    Raises:
        InvalidPageError: A sample has such a label, or a very long line has too many labels.
    """
    for start, end in slabs(raw):
        if end - start > SLAB and raw.startswith(b"#", start):
            continue  # one long comment or HELP line, which has no labels
        if end - start > SLAB and raw.count(b'"', start, end) > 2 * _MOST_LABELS:
            problem = f"a line with more than {_MOST_LABELS} labels"
            raise InvalidPageError(problem, line=line_at(raw, end - 1))
        # Without values, the samples of a family have few distinct label sets: each is checked once per slab.
        bare = _LABEL_VALUE.sub(b"", raw[start:end])
        for signature in set(_SIGNATURE.findall(bare)):
            names = _LABEL_NAME.findall(signature)
            if len(names) != len(set(names)) or b"__name__" in names:
                problem = "a label name that is repeated or reserved"
                first = next(match for match in _SIGNATURE.finditer(bare) if match[1] == signature)
                raise InvalidPageError(problem, line=line_at(raw, start) + bare.count(b"\n", 0, first.start()))


def _lines(raw: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield each line of `raw[start:end]` with its number, from 0; the part must end with a newline."""
    number = 0
    for start_of_slab, end_of_slab in slabs(raw, start, end):
        for line in raw[start_of_slab:end_of_slab].split(b"\n")[:-1]:
            yield number, line
            number += 1


def is_number(text: bytes) -> bool:
    """Tell whether Go reads `text` as a float64; unlike Python, it takes no blanks or underscores."""
    return bool(_NUMBER.fullmatch(text)) and not _overflows(text)


def _overflows(text: bytes) -> bool:
    return isinf(float(text)) and b"nf" not in text.lower()
