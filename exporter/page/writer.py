"""Write families as text format 0.0.4.

Always that format: on OpenMetrics without `escaping=`, which Prometheus 2 sends,
prometheus_client's negotiation turns `kthena:x` into `kthena_x`.
"""

from __future__ import annotations

import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Final

from exporter.page.text_format import series_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from exporter.page.family import TextFamily
    from exporter.page.page import Page

__all__ = ["accepts_gzip", "compress", "write", "write_selected"]

# Below it a packet or three are saved, for more CPU than they cost.
MIN_COMPRESSED: Final = 16 * 1024
# To copy such a text into another costs more than a piece of its own.
_LARGE: Final = 256 * 1024
_GZIP_LEVEL: Final = 1
_GZIP_WBITS: Final = zlib.MAX_WBITS | 16


def write(page: Page, families: Iterable[TextFamily]) -> list[bytes | memoryview]:
    """Return the engine's page untouched, and behind it the families, the small ones in one piece."""
    return [page.raw, *_joined(family.text for family in families)]


def write_selected(page: Page, families: Iterable[TextFamily], selected: Collection[str]) -> list[bytes | memoryview]:
    """Return only the families with a name in `selected`.

    A family has its own name, without `_total` too, and its samples' names.
    """
    wanted = (
        place for place, shape in enumerate(page.shape.families) if _is_selected(shape.name, shape.kind, selected)
    )
    others = (family.text for family in families if _is_selected(family.full_name, family.kind, selected))
    return [*page.blocks(wanted), *_joined(others)]


def _joined(texts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield small texts in one piece, and large ones as they are."""
    small: list[bytes] = []
    for text in texts:
        if len(text) < _LARGE:
            small.append(text)
        else:
            yield b"".join(small)
            small.clear()
            yield text
    if small:
        yield b"".join(small)


def _is_selected(name: str, kind: str, selected: Collection[str]) -> bool:
    if kind == "counter" and name.removesuffix("_total") in selected:
        return True
    return not series_names(name, kind).isdisjoint(selected)


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


def compress(chunks: Iterable[bytes | memoryview]) -> bytes:
    """Return the chunks as one gzip stream, at the fastest level."""
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WBITS)
    packed = BytesIO()
    packed.writelines(map(packer.compress, chunks))
    packed.write(packer.flush())
    return packed.getvalue()
