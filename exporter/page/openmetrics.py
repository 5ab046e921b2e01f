"""OpenMetrics text, turned into the text format 0.0.4.

The engine is asked for 0.0.4; this is for one that answers OpenMetrics all the
same. It goes line by line, in time and memory that follow the text, and leaves
it to the reader of pages to check the result.
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

# What the older format calls each kind, what the family's name ends with there, and how its samples' names may end.
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
# Samples that make a family of their own there, a gauge.
_APART: Final = (b"_created", b"_gsum", b"_gcount")


class _LineError(ValueError):
    """A line is not OpenMetrics."""


def as_text_format(body: bytes, *, limit: int) -> bytes:
    """Return OpenMetrics text as text format 0.0.4: same series, same values.

    Exemplars, units and native histograms have no place there and are dropped.

    Raises:
        ScrapeError: The text is not valid OpenMetrics, or costs more than `limit`.
    """
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
            if text.tell() > limit:
                raise too_large(limit, body)
            position = match.end()
    except (_LineError, OverflowError):
        line = body.count(b"\n", 0, position) + 1
        raise ScrapeError(Reason.INVALID, f"not valid OpenMetrics text: line {line}") from None
    return text.getvalue()


def _follow(family: _Family, match: re.Match[bytes], text: BytesIO) -> _Family:
    """Take a line into the family under way, or end that and begin the next; return the one that is under way now."""
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
    """A family while its lines come: its header is written with its first sample."""

    def __init__(self, name: bytes, text: BytesIO) -> None:
        """Begin the family `name`, which goes to `text`; without a name there is none."""
        self._name = name
        self._text = text
        self._help = b""
        self._kind: bytes | None = None
        self._is_begun = not name
        self._apart: dict[bytes, BytesIO] = {}

    def is_described_by(self, name: bytes) -> bool:
        """Whether a TYPE, HELP or UNIT of this name belongs here."""
        return name == self._name and not self._is_begun

    def has(self, name: bytes) -> bool:
        """Whether a sample of this name belongs here."""
        suffixes = _KINDS[self._kind or b"unknown"][2]
        return name.startswith(self._name) and name[len(self._name) :] in suffixes

    def describe(self, word: bytes, text: bytes) -> None:
        """Take a TYPE, HELP or UNIT."""
        if word == b"TYPE":
            if self._kind is not None or text not in _KINDS:
                raise _LineError
            self._kind = text
        elif word == b"HELP":
            # Quotes are escaped in OpenMetrics only. There is no NUL in a page.
            self._help = text.replace(b"\\\\", b"\x00").replace(b'\\"', b'"').replace(b"\x00", b"\\\\")

    def add(self, match: re.Match[bytes]) -> None:
        """Take a sample."""
        self._begin()
        if match["native"]:
            return
        suffix = match["name"][len(self._name) :]
        to = self._apart.setdefault(suffix, BytesIO()) if suffix in _APART else self._text
        time = b" " + _milliseconds(match["time"]) if match["time"] else b""
        to.write(b"%b%b %b%b\n" % (match["name"], match["labels"] or b"", match["value"], time))

    def end(self) -> None:
        """Write what is left to write."""
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
