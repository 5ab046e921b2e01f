"""Write families as text format 0.0.4.

Always that format: on OpenMetrics without `escaping=`, which Prometheus 2 sends,
prometheus_client's negotiation turns `kthena:x` into `kthena_x`.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from exporter.metrics.families import TextFamily
    from exporter.metrics.page import Page

__all__ = ["CONTENT_TYPE", "accepts_gzip", "compress", "write", "write_selected"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# Below it a packet or three are saved, for more CPU than they cost.
MIN_COMPRESSED: Final = 16 * 1024
_GZIP_LEVEL: Final = 1
_GZIP_WBITS: Final = zlib.MAX_WBITS | 16
_SERIES_SUFFIXES: Final = ("_bucket", "_sum", "_count")


def write(page: Page, families: Iterable[TextFamily]) -> list[bytes]:
    """Return the engine's page untouched, and in one piece the families behind it."""
    return [page.raw, b"".join([family.text for family in families])]


def write_selected(page: Page, families: Iterable[TextFamily], selected: Collection[str]) -> list[bytes]:
    """Return only the families with a name in `selected`.

    A family has its own name, without `_total` too, and its samples' names.
    """
    return [family.text for family in (*page.families(), *families) if _is_selected(family, selected)]


def _is_selected(family: TextFamily, selected: Collection[str]) -> bool:
    if family.full_name in selected or family.name in selected:
        return True
    has_parts = family.kind in ("histogram", "summary")
    return has_parts and any(family.full_name + suffix in selected for suffix in _SERIES_SUFFIXES)


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Tell whether an Accept-Encoding header takes gzip (RFC 9110, 12.5.3)."""
    weights: dict[str, float] = {}
    for item in (accept_encoding or "").lower().replace(" ", "").split(","):
        coding, _, weight = item.partition(";q=")
        try:
            weights[coding] = float(weight or 1)
        except ValueError:
            continue
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def compress(chunks: Iterable[bytes]) -> bytes:
    """Return the chunks as one gzip stream, at the fastest level."""
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WBITS)
    return b"".join([*map(packer.compress, chunks), packer.flush()])
