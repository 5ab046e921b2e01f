"""Metric families that carry their exposition text (docs/adr/0001).

The writer exports the text byte for byte. `samples` are parsed only when a
caller reads them, so a family also works in any prometheus_client registry.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Final

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from exporter.page.text_format import LABEL, SAMPLE, unescape

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TextFamily", "sample_lines"]

_TIMESTAMP: Final = re.compile(rb"[ \t]++(-?\d++)")


class TextFamily(Metric):
    r"""A prometheus_client `Metric` made of exposition text.

        TextFamily("x_total", "counter", b"# TYPE x_total counter\nx_total 1\n")

    `name`, `type`, `documentation` and `samples` are what prometheus_client's own
    parser would give for the same text.

    Attributes:
        full_name: The name as in the TYPE line: `x_total` for a counter whose `name` is `x`.
        kind: The type as in the TYPE line; `untyped` when there is none.
        text: HELP, TYPE and sample lines of one family, each with its newline. Must be valid.
    """

    def __init__(self, full_name: str, kind: str, text: bytes) -> None:
        # Metric.__init__ is not called. It would assign `samples`, which are parsed
        # lazily here, and check a name that is known to be valid.
        self.full_name = full_name
        self.kind = kind
        self.text = text
        self.unit = ""
        # prometheus_client knows no counter without `_total`, and calls an untyped family `unknown`.
        is_counter = kind == "counter" and full_name.endswith("_total")
        self.name = full_name.removesuffix("_total") if is_counter else full_name
        self.type = "unknown" if kind == "untyped" or (kind == "counter" and not is_counter) else kind

    @cached_property
    def documentation(self) -> str:  # type: ignore[override]
        """The HELP text, unescaped; empty without a HELP line."""
        found = re.search(rb"^#[ \t]+HELP[ \t]+\S+[ \t]?(.*)$", self.text, re.MULTILINE)
        return unescape(found[1].decode()) if found else ""

    @cached_property
    def samples(self) -> list[Sample]:  # type: ignore[override]
        """The samples, under the names that they have in the text, with timestamps in seconds.

        Raises:
            ValueError: `text` is not valid.
        """
        return [_parse_sample(line) for line in sample_lines(self.text)]


def sample_lines(text: bytes) -> Iterator[bytes]:
    """Yield the sample lines of a family's text, without their newlines; headers, comments and blanks are left out."""
    return (line for line in text.split(b"\n") if line.strip() and not line.startswith(b"#"))


def _parse_sample(line: bytes) -> Sample:
    match = SAMPLE.match(line)
    if match is None:
        message = "the text of a family must be valid before it is read"
        raise ValueError(message)
    labels = {name.decode(): unescape(value.decode()) for name, value in LABEL.findall(match["labels"] or b"")}
    milliseconds = _TIMESTAMP.match(match["rest"])
    timestamp = int(milliseconds[1]) / 1000 if milliseconds else None  # seconds, as prometheus_client has it
    return Sample(match["name"].decode(), labels, float(match["value"]), timestamp)
