"""Write families as text format 0.0.4, whatever the scraper accepts (docs/adr/0004).

prometheus_client's content negotiation is not used. When a scraper accepts
OpenMetrics without `escaping=`, as Prometheus 2 does, it turns `kthena:x` into
`kthena_x`.
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

# Compressing a smaller page saves a few packets at most, and costs more CPU than they do.
MIN_COMPRESSED: Final = 16 * 1024
# Copying a text of this size into another costs more than sending it as a chunk of its own.
_LARGE: Final = 256 * 1024
_GZIP_LEVEL: Final = 1
_GZIP_WBITS: Final = zlib.MAX_WBITS | 16


def write(page: Page, families: Iterable[TextFamily]) -> list[bytes | memoryview]:
    """Return the engine's page, not copied, followed by the families; small families are joined."""
    return [page.raw, *_joined(family.text for family in families)]


def write_selected(page: Page, families: Iterable[TextFamily], selected: Collection[str]) -> list[bytes | memoryview]:
    """Return only the families with a name in `selected` (`name[]` of the request).

    A family is selected by its own name, by its name without `_total`, or by the name of one of its series.
    """
    wanted = (
        place for place, shape in enumerate(page.shape.families) if _is_selected(shape.name, shape.kind, selected)
    )
    others = (family.text for family in families if _is_selected(family.full_name, family.kind, selected))
    return [*page.blocks(wanted), *_joined(others)]


def _joined(texts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield runs of small texts as one chunk, and large texts as they are."""
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
    """Tell whether an Accept-Encoding header accepts gzip (RFC 9110, 12.5.3); an invalid weight counts as absent."""
    weights: dict[str, float] = {}
    for item in (accept_encoding or "").lower().replace(" ", "").split(","):
        coding, _, weight = item.partition(";q=")
        try:
            weights[coding] = float(weight or 1)
        except ValueError:
            continue
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def compress(chunks: Iterable[bytes | memoryview]) -> bytes:
    """Return the chunks as one gzip stream, at the fastest level, which shrinks a typical page to a sixth."""
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WBITS)
    packed = BytesIO()
    packed.writelines(map(packer.compress, chunks))
    packed.write(packer.flush())
    return packed.getvalue()
