"""The digests of an object, from its ETag and the headers of an answer (docs/adr/0012)."""

from __future__ import annotations

import base64
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from storage.disk.listing import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["checksum", "composite", "etag_digest", "is_opaque", "likely_part_size", "multipart"]

# Checksums that S3 stores, and their length in bytes. An object usually has one of them.
_CHECKSUMS: Final = {"sha256": 32, "sha1": 20, "crc64nvme": 8, "crc32c": 4, "crc32": 4}
_HEADER: Final = "x-amz-checksum-"
_MD5: Final = re.compile(r"[0-9a-f]{32}")
_MULTIPART: Final = re.compile(r"([0-9a-f]{32})-(\d+)")
_MIB: Final = 1 << 20
# S3's own limit. A larger number in an ETag must not make this process compute more digests.
_MAX_PARTS: Final = 10_000
# Part sizes that uploaders use, to guess from if the store does not tell.
_PART_SIZES: Final = tuple(size * _MIB for size in (8, 5, 16, 64, 32, 100, 128, 256, 512, 1024))


def etag_digest(etag: str) -> Digest | None:
    """Return the ETag as an MD5, if it has the form of one."""
    return Digest("md5", etag) if _MD5.fullmatch(etag) else None


def checksum(headers: Mapping[str, str]) -> Digest | None:
    """Return a checksum of the whole object, if the headers have one."""
    if headers.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    for algorithm in _CHECKSUMS:
        found = _decoded(algorithm, headers.get(_HEADER + algorithm, ""))
        if found:
            return Digest(algorithm, found)
    return None


def composite(headers: Mapping[str, str]) -> tuple[str, str, int] | None:
    """Return the algorithm and value of a checksum over the parts' checksums, and the number of parts."""
    for algorithm in _CHECKSUMS:
        value, _, count = headers.get(_HEADER + algorithm, "").rpartition("-")
        found = _decoded(algorithm, value)
        if found and (parts := _parts(count)):
            return f"{algorithm}-parts", found, parts
    return None


def _decoded(algorithm: str, text: str) -> str | None:
    """Return a Base64 header value in hex; `None` if it is not a checksum of this algorithm."""
    with suppress(ValueError):
        value = base64.b64decode(text, validate=True)
        return value.hex() if len(value) == _CHECKSUMS[algorithm] else None
    return None


def is_opaque(headers: Mapping[str, str]) -> bool:
    """Whether the object is encrypted so that its ETag is not a digest, even if it looks like one."""
    kms = headers.get("x-amz-server-side-encryption", "").startswith("aws:kms")
    return kms or bool(headers.get("x-amz-server-side-encryption-customer-algorithm"))


def multipart(etag: str) -> tuple[str, str, int] | None:
    """Return the algorithm and value of an MD5 over the parts' MD5s, and the number of parts, for a multipart ETag."""
    match = _MULTIPART.fullmatch(etag)
    parts = _parts(match[2]) if match else 0
    return ("md5-parts", match[1], parts) if match and parts else None


def _parts(text: str) -> int:
    """Parse a number of parts; 0 if it is invalid."""
    number = int(text) if re.fullmatch(r"[0-9]{1,5}", text) else 0
    return number if number <= _MAX_PARTS else 0


def likely_part_size(size: int, count: int) -> int | None:
    """Return a usual part size that divides `size` bytes into `count` parts; `None` if there is none."""
    sizes = (*_PART_SIZES, (-(-size // count) // _MIB + 1) * _MIB)
    return next((part for part in sizes if -(-size // part) == count), None)
