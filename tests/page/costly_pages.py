"""Pages that cost as much as a limit allows, each in another way.

A page costs its bytes, and something for each line and each family
(`exporter.page.cost`). Every shape here is filled up to the limit: some with
lines, some with families, some with lines that are as long as a line may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from exporter.page.cost import FAMILY, LINE, LONGEST_LINE
from simulators.misbehaving.pages import OPENMETRICS_TEXT, TEXT

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SHAPES", "Shape"]

_WAITING = b"vllm:num_requests_waiting"
_TTFT = b"vllm:time_to_first_token_seconds"
# The rest of a line that is as long as a line may be.
_LONG = LONGEST_LINE - 100


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to fill a page.

    Attributes:
        line: What is repeated; a `%d` in it is another number each time.
        before: What comes first.
        after: What comes last.
        has_families: Whether each line is a family of its own.
        is_openmetrics: Whether it is OpenMetrics text.
        grows: Bytes that a line has more once it is mended or turned into text format.
    """

    line: bytes
    before: bytes = b""
    after: bytes = b""
    has_families: bool = False
    is_openmetrics: bool = False
    grows: int = 0

    @property
    def content_type(self) -> str:
        """The Content-Type that goes with it."""
        return OPENMETRICS_TEXT if self.is_openmetrics else TEXT

    def page(self, limit: int) -> bytes:
        """Return a page that costs nearly `limit`."""
        return b"".join([self.before, *self._lines(limit), self.after])

    def _lines(self, limit: int) -> Iterator[bytes]:
        # Some families and lines before and after, too.
        left = limit - len(self.before) - len(self.after) - 8 * (LINE + FAMILY)
        extra = self.grows + self.line.count(b"\n") * (LINE + FAMILY * self.has_families)
        for number in count():
            line = self.line.replace(b"%d", b"%d" % number)
            left -= len(line) + extra
            if left < 0:
                return
            yield line


SHAPES = {
    "very short lines": Shape(b"a 1\n"),
    "empty lines": Shape(b"\n"),
    "families": Shape(b"f%d 1\n", has_families=True),
    "families without samples": Shape(b"# TYPE f%d histogram\n", has_families=True),
    "one standard family": Shape(_WAITING + b'{a="%d"} 1\n', before=b"# TYPE " + _WAITING + b" gauge\n"),
    "one standard histogram": Shape(_TTFT + b'_bucket{le="%d"} 1\n', before=b"# TYPE " + _TTFT + b" histogram\n"),
    "one standard family of one line": Shape(_WAITING + b'{a="%d' + b"x" * _LONG + b'"} 1\n'),
    "labels": Shape(b'a{b%d="",c="",d="",e="",f="",g=""} 1\n'),
    "a long label": Shape(b'a{b="%d' + b"x" * _LONG + b'"} 1\n'),
    "a long label of escapes": Shape(b'a{b="%d' + b"\\\\" * (_LONG // 2) + b'"} 1\n'),
    "a long HELP": Shape(b"# HELP f%d " + b"x" * _LONG + b"\nf%d 1\n", has_families=True),
    "a long HELP beyond ASCII": Shape(
        b"# HELP f%d \xf0\x9f\x98\x80" + "é".encode() * (_LONG // 2) + b"\nf%d 1\n", has_families=True
    ),
    "a long comment of quotes": Shape(b'# "' + b'\\"' * (_LONG // 2) + b"\na 1\n"),
    "scattered families": Shape(b"a 1\nb 1\n"),
    "headers to mend": Shape(b"#HELP f%d\n", has_families=True, grows=1),
    "a long label to mend": Shape(b'a{b="%d' + b"\\d" * (_LONG // 2) + b'"} 1\n', grows=_LONG // 2),
    "lines to mend": Shape(b"a 1 \n"),
    "reserved names": Shape(b"a 1\n", before=b"kthena_runtime_x 1\n"),
    "long numbers": Shape(b"a 1e100\nb 1\n"),
    "timestamps": Shape(b"a NaN 1\n"),
    "OpenMetrics": Shape(b'a_total{b="%d"} 1 # {t="x"} 1\n', before=b"# TYPE a counter\n", after=b"# EOF\n", is_openmetrics=True),
    "OpenMetrics created": Shape(b'a_created{b="%d"} 1\n', before=b"# TYPE a counter\n", after=b"# EOF\n", is_openmetrics=True),
    "a long OpenMetrics label": Shape(b'a{b="%d' + b"x" * _LONG + b'"} 1\n', after=b"# EOF\n", is_openmetrics=True),
}  # fmt: skip
