"""Convert OpenMetrics text to text format 0.0.4 (docs/adr/0004).

    # TYPE requests counter                 # TYPE requests_total counter
    requests_total 5 1.5 # {id="a"} 1  ->   requests_total 5 1500
    # EOF

The runtime asks the engine for 0.0.4; some engines answer OpenMetrics anyway.
The conversion runs line by line, in time and memory proportional to the text.
It does not check values, labels and encoding: `exporter.page.parse` checks the
result like any other page.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import Final

from exporter.page.cost import families_within, too_large
from exporter.page.errors import Reason, ScrapeError
from exporter.page.grammar import is_number
from exporter.page.text_format import SUFFIXES, header

__all__ = ["as_text_format"]

_NAME: Final = rb"[a-zA-Z_:][a-zA-Z0-9_:]*+"
_LABELS: Final = rb'\{(?:[^"}\n]++|"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+")*+\}'
_LINE: Final = re.compile(
    # A value in braces is a native histogram.
    rb"(?P<name>" + _NAME + rb")(?P<labels>" + _LABELS + rb")?+ (?:(?P<native>\{)[^\n]*+|(?P<value>[^ {\n]++)"
    rb"(?: (?P<time>[^ #\n]++))?+(?: # [^\n]*+)?+)\n"
    rb"|# (?P<word>TYPE|HELP|UNIT) (?P<of>" + _NAME + rb")(?: (?P<text>[^\n]*+))?+\n"
    rb"|(?P<end># EOF\n?\Z)"
)
_LONGEST_TIME: Final = 40

# By OpenMetrics type: the type in 0.0.4, the suffix of the family's name there, and the suffixes of its samples' names.
_KINDS: Final = {
    b"counter": ("counter", b"_total", (b"", b"_total", b"_created")),
    b"gauge": ("gauge", b"", (b"",)),
    b"histogram": ("histogram", b"", (*SUFFIXES["histogram"], b"_created")),
    b"gaugehistogram": ("histogram", b"", (b"", b"_bucket", b"_gsum", b"_gcount", b"_created")),
    b"summary": ("summary", b"", (*SUFFIXES["summary"], b"_created")),
    b"info": ("gauge", b"_info", (b"", b"_info")),
    b"stateset": ("gauge", b"", (b"",)),
    b"unknown": ("untyped", b"", (b"",)),
}
# Suffixes that 0.0.4 does not know as parts of a family. Such samples become gauge families of their own.
_APART: Final = (b"_created", b"_gsum", b"_gcount")


class _LineError(ValueError):
    """A line is not OpenMetrics; the caller knows which line."""


def as_text_format(body: bytes, *, limit: int) -> bytes:
    """Return OpenMetrics text as text format 0.0.4, with the same series and values.

    Exemplars, units and native histograms do not exist in 0.0.4 and are dropped.

    Raises:
        ScrapeError: The text is not valid OpenMetrics, or costs more than `limit`.
    """
    # Check the cost first: nothing is built for a page that is too large.
    families_within(limit, body)
    text = BytesIO()
    family = _Family(b"", text)
    position, is_ended = 0, False
    try:
        if b"\x00" in body:
            raise _LineError
        while not is_ended:
            match = _LINE.match(body, position)
            if match is None:
                raise _LineError
            family = _follow(family, match, text)
            is_ended = bool(match["end"])
            # The result may be larger than the body: a HELP is repeated for each family that is split off.
            if text.tell() > limit:
                raise too_large(limit, body)
            position = match.end()
    except (_LineError, OverflowError):
        line = body.count(b"\n", 0, position) + 1
        raise ScrapeError(Reason.INVALID, f"not valid OpenMetrics text: line {line}") from None
    return text.getvalue()


def _follow(family: _Family, match: re.Match[bytes], text: BytesIO) -> _Family:
    """Add a line to the current family, or end that family and begin the next; return the current family."""
    name = match["of"] or match["name"] or b""
    is_same = family.is_described_by(name) if match["of"] else family.has(name)
    if not is_same:
        family.end()
        family = _Family(name, text)
    if match["of"]:
        family.describe(match["word"], match["text"] or b"")
    elif name:
        family.add(match)
    return family


class _Family:
    """A family while its lines are read.

    Its header is written with its first sample, because TYPE, HELP and UNIT may come in any order.
    """

    def __init__(self, name: bytes, text: BytesIO) -> None:
        """Begin the family `name`, which is written to `text`; an empty name stands for no family."""
        self._name = name
        self._text = text
        self._help = b""
        self._kind: bytes | None = None
        self._is_begun = not name
        self._apart: dict[bytes, BytesIO] = {}

    def is_described_by(self, name: bytes) -> bool:
        """Whether a TYPE, HELP or UNIT line with this name belongs to this family."""
        return name == self._name and not self._is_begun

    def has(self, name: bytes) -> bool:
        """Whether a sample with this name belongs to this family."""
        suffixes = _KINDS[self._kind or b"unknown"][2]
        return name.startswith(self._name) and name[len(self._name) :] in suffixes

    def describe(self, word: bytes, text: bytes) -> None:
        """Note a TYPE or HELP line; UNIT has no counterpart in 0.0.4."""
        if word == b"TYPE":
            if self._kind is not None or text not in _KINDS:
                raise _LineError
            self._kind = text
        elif word == b"HELP":
            # OpenMetrics escapes quotes in HELP, 0.0.4 does not. NUL is a safe placeholder: no page contains it.
            self._help = text.replace(b"\\\\", b"\x00").replace(b'\\"', b'"').replace(b"\x00", b"\\\\")

    def add(self, match: re.Match[bytes]) -> None:
        """Write a sample, or keep it for the family that its suffix makes."""
        self._begin()
        if match["native"]:
            return
        suffix = match["name"][len(self._name) :]
        to = self._apart.setdefault(suffix, BytesIO()) if suffix in _APART else self._text
        time = b" " + _milliseconds(match["time"]) if match["time"] else b""
        to.write(b"%b%b %b%b\n" % (match["name"], match["labels"] or b"", match["value"], time))

    def end(self) -> None:
        """Write the header of a family without samples, and the gauge families that were split off."""
        self._begin()
        for suffix, samples in self._apart.items():
            self._write_header(suffix, "gauge")
            self._text.write(samples.getbuffer())

    def _begin(self) -> None:
        if not self._is_begun:
            self._is_begun = True
            kind, suffix, _ = _KINDS[self._kind or b"unknown"]
            self._write_header(b"" if self._name.endswith(suffix) else suffix, kind)

    def _write_header(self, suffix: bytes, kind: str) -> None:
        name = self._name + suffix
        self._text.write(header(name, kind.encode(), self._help))


def _milliseconds(seconds: bytes) -> bytes:
    if len(seconds) > _LONGEST_TIME or not is_number(seconds) or b"n" in seconds.lower():
        raise _LineError
    return b"%d" % round(float(seconds) * 1000)
