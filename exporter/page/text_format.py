r"""Text format 0.0.4 as the runtime writes it: headers, series, escapes, and the names that series may have.

    # HELP kthena_runtime_http_requests_total HTTP requests answered, by ...
    # TYPE kthena_runtime_http_requests_total counter
    kthena_runtime_http_requests_total{route="/metrics",method="GET",status="200"} 1.0

https://prometheus.io/docs/instrumenting/exposition_formats/. `exporter.page.grammar` says how strictly
the format is read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "CONTENT_TYPE",
    "LABEL",
    "SAMPLE",
    "SUFFIXES",
    "escape_help",
    "escape_label",
    "header",
    "series",
    "series_names",
    "unescape",
]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# The suffixes of series names, by type. Series of other types have exactly the family's name.
SUFFIXES: Final = {
    "histogram": (b"", b"_bucket", b"_sum", b"_count"),
    "summary": (b"", b"_sum", b"_count"),
}
_OWN_NAME: Final = (b"",)

# These patterns take a line apart that is known to be valid; they do not check it.
LABEL: Final = re.compile(rb'(?P<name>\w++)[ \t]*+=[ \t]*+"(?P<value>[^"\\]*+(?:\\.[^"\\]*+)*+)"')
SAMPLE: Final = re.compile(
    rb'(?P<name>[^\s{]++)[ \t]*+(?P<labels>\{(?:[^"}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+\})?+[ \t]*+(?P<value>\S++)(?P<rest>.*+)'
)

_HELP_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})
_LABEL_ESCAPES: Final = _HELP_ESCAPES | str.maketrans({'"': r"\""})
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPED: Final = {"n": "\n", "\\": "\\", '"': '"'}


def header(name: bytes, kind: bytes, text: bytes) -> bytes:
    """Return the HELP and TYPE lines of a family; `text` is escaped already (`escape_help`)."""
    return b"# HELP %b %b\n# TYPE %b %b\n" % (name, text, name, kind)


def series(name: str, labels: Sequence[str], values: Sequence[str]) -> str:
    """Return the beginning of a sample line: the name, and the labels with escaped values."""
    if not labels:
        return name
    pairs = ",".join(f'{label}="{escape_label(value)}"' for label, value in zip(labels, values, strict=True))
    return f"{name}{{{pairs}}}"


def escape_help(text: str) -> bytes:
    """Return a text as a HELP line has it."""
    return text.translate(_HELP_ESCAPES).encode()


def escape_label(value: str) -> str:
    """Escape backslashes, newlines and quotes, as a label value requires."""
    return value.translate(_LABEL_ESCAPES)


def unescape(text: str) -> str:
    """Undo `escape_help` or `escape_label`; an unknown escape stays as it is, as in Prometheus."""
    return _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[0]), text) if "\\" in text else text


def series_names(name: str, kind: str) -> frozenset[str]:
    """Return the names that a family's series may have, including the family's name."""
    return frozenset(name + suffix.decode() for suffix in SUFFIXES.get(kind, _OWN_NAME))
