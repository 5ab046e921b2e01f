"""Read and decompress the body of an HTTP answer within a limit, so that no engine can fill the pod's memory."""

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
# Usual bodies are one gzip member. Each member costs a decompressor and a copy of the data behind it.
_MOST_MEMBERS: Final = 1000
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32  # zlib detects which of the two headers the data has


def read_body(response: HTTPResponse, limit: int) -> bytes:
    """Read and decompress the body; `limit` bounds the bytes as sent and as decompressed.

    Raises:
        ScrapeError: The body is larger, incomplete, or in an encoding that the runtime cannot decode.
        HTTPException, OSError, zlib.error: The body is damaged or does not arrive in time.
    """
    encoding = (response.getheader("Content-Encoding") or "identity").strip().lower()
    if encoding not in ("identity", *_COMPRESSED):
        raise ScrapeError(Reason.ENCODING, f"the engine sends {encoding[:20]!r}, which was not asked for")
    if response.length is not None and response.length > limit:
        raise _too_large(limit)
    if encoding != "identity":
        return _gather(_decompress(_bounded(_pieces(response), limit)), limit)
    if response.length is not None:
        # A known length within the limit: one read, without copies of pieces.
        return response.read()
    return _gather(_pieces(response), limit)


def _pieces(response: HTTPResponse) -> Iterator[bytes]:
    while piece := response.read(_CHUNK):
        yield piece


def _bounded(pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Pass pieces on, up to `limit` bytes: a compressed body may be endless and decompress to nothing."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        yield piece


def _decompress(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Decompress in chunks of at most `_CHUNK` bytes, so that the caller can stop before a small body grows large."""
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    members = 1
    for piece in pieces:
        packed = piece
        while packed:
            if unpacker.eof:
                # Behind a gzip member there may be another one, or zero padding.
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
    # One growing buffer: a list of small pieces would fragment the heap.
    body = BytesIO()
    for piece in pieces:
        body.write(piece)
        if body.tell() > limit:
            raise _too_large(limit)
    return body.getvalue()


def _too_large(limit: int) -> ScrapeError:
    return ScrapeError(Reason.TOO_LARGE, f"the page is larger than {limit} bytes (--max-scrape-bytes)")
