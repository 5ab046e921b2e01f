"""Metric families that carry their exposition text.

The text is what is exported, byte for byte; `samples` are parsed from it only
when somebody asks, so a family also works in any prometheus_client registry.
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
    """A `Metric` made of exposition text.

    Attributes:
        full_name: The name as in the TYPE line (`x_total` for a counter, where
            `name` is `x` as prometheus_client has it).
        kind: The type as in the TYPE line; `untyped` when there is none.
        text: HELP, TYPE and sample lines, each with its newline.
    """

    def __init__(self, full_name: str, kind: str, text: bytes) -> None:
        """Hold `text`, which must be a valid block of one family."""
        # Metric.__init__ is not called: it would assign the samples that are
        # parsed lazily here, and check a name that is known to be valid.
        self.full_name = full_name
        self.kind = kind
        self.text = text
        self.unit = ""
        # prometheus_client has no counter without the suffix.
        is_counter = kind == "counter" and full_name.endswith("_total")
        self.name = full_name.removesuffix("_total") if is_counter else full_name
        self.type = "unknown" if kind == "untyped" or (kind == "counter" and not is_counter) else kind

    @cached_property
    def documentation(self) -> str:  # type: ignore[override]
        """The HELP text, unescaped."""
        found = re.search(rb"^#[ \t]+HELP[ \t]+\S+[ \t]?(.*)$", self.text, re.MULTILINE)
        return unescape(found[1].decode()) if found else ""

    @cached_property
    def samples(self) -> list[Sample]:  # type: ignore[override]
        """The samples, under exactly the names they have in the text."""
        return [_parse_sample(line) for line in sample_lines(self.text)]


def sample_lines(text: bytes) -> Iterator[bytes]:
    """Yield the sample lines of a block, without their newlines."""
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
