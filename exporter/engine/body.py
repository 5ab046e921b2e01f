"""The body of an HTTP answer, decoded, within a limit."""

from __future__ import annotations

import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Final

from exporter.page.errors import Reason, ScrapeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from http.client import HTTPResponse

__all__ = ["read_body"]

_CHUNK: Final = 1 << 16
_COMPRESSED: Final = frozenset({"gzip", "x-gzip", "deflate"})
# Bodies are one member. Each takes a decompressor, and a copy of what comes behind it.
_MOST_MEMBERS: Final = 1000
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32


def read_body(response: HTTPResponse, limit: int) -> bytes:
    """Read and decode the body, `limit` bytes at most, as it is sent and as it is decoded.

    Raises:
        ScrapeError: It is larger, or not encoded as was asked.
        HTTPException, OSError, zlib.error: It is damaged, or never ends.
    """
    encoding = (response.getheader("Content-Encoding") or "identity").strip().lower()
    if encoding not in ("identity", *_COMPRESSED):
        raise ScrapeError(Reason.ENCODING, f"the engine sends {encoding[:20]!r}, which was not asked for")
    if response.length is not None and response.length > limit:
        raise _too_large(limit)
    if encoding != "identity":
        return _gather(_decompress(_bounded(_pieces(response), limit)), limit)
    if response.length is not None:
        return response.read()
    return _gather(_pieces(response), limit)


def _pieces(response: HTTPResponse) -> Iterator[bytes]:
    while piece := response.read(_CHUNK):
        yield piece


def _bounded(pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Pass pieces on until there are too many: a compressed body may be endless and decode to nothing."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        yield piece


def _decompress(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Decompress bit by bit, so that a small body never becomes a large one unseen."""
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    members = 1
    for piece in pieces:
        packed = piece
        while packed:
            if unpacker.eof:
                # What follows is one more member, or zeros to fill a block.
                packed = packed.lstrip(b"\x00")
                if not packed:
                    break
                members += 1
                if members > _MOST_MEMBERS:
                    raise ScrapeError(Reason.ENCODING, f"the body is compressed in more than {_MOST_MEMBERS} pieces")
                unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
            yield unpacker.decompress(packed, _CHUNK)
            packed = unpacker.unconsumed_tail or unpacker.unused_data
    if not unpacker.eof:
        raise ScrapeError(Reason.TRUNCATED, "the compressed body ends in its middle")


def _gather(pieces: Iterable[bytes], limit: int) -> bytes:
    # One large block: many small ones would leave the heap in tatters.
    body = BytesIO()
    for piece in pieces:
        body.write(piece)
        if body.tell() > limit:
            raise _too_large(limit)
    return body.getvalue()


def _too_large(limit: int) -> ScrapeError:
    return ScrapeError(Reason.TOO_LARGE, f"the page is larger than {limit} bytes (--max-scrape-bytes)")
