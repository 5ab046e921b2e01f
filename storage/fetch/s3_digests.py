"""What an object must add up to, as its ETag and the headers of an answer say."""

from __future__ import annotations

import base64
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from storage.plan import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["checksum", "composite", "etag_digest", "is_opaque", "likely_part_size", "multipart"]

# A header of each; an object has one of them, as a rule.
_CHECKSUMS: Final = tuple(
    (f"x-amz-checksum-{name}", name) for name in ("sha256", "sha1", "crc64nvme", "crc32c", "crc32")
)
_MD5: Final = re.compile(r"[0-9a-f]{32}")
_MULTIPART: Final = re.compile(r"([0-9a-f]{32})-(\d+)")
_MIB: Final = 1 << 20
# Part sizes that uploaders use, tried where the store does not say.
_PART_SIZES: Final = tuple(size * _MIB for size in (8, 5, 16, 64, 32, 100, 128, 256, 512, 1024))


def etag_digest(etag: str) -> Digest | None:
    """Return the MD5 that an ETag is, if it looks like one."""
    return Digest("md5", etag) if _MD5.fullmatch(etag) else None


def checksum(headers: Mapping[str, str]) -> Digest | None:
    """Return a checksum of the full object, if the headers hold one that can be computed here."""
    if headers.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    for header, algorithm in _CHECKSUMS:
        value = headers.get(header, "")
        if value and "-" not in value:
            try:
                return Digest(algorithm, base64.b64decode(value, validate=True).hex())
            except ValueError:
                return None
    return None


def composite(headers: Mapping[str, str]) -> tuple[str, str, int] | None:
    """Return a checksum over the checksums of an object's parts, and the number of parts."""
    for header, algorithm in _CHECKSUMS:
        value, dash, count = headers.get(header, "").rpartition("-")
        if dash and count.isdigit():
            with suppress(ValueError):
                return f"{algorithm}-parts", base64.b64decode(value, validate=True).hex(), int(count)
    return None


def is_opaque(headers: Mapping[str, str]) -> bool:
    """Whether the ETag is no digest, as the object is encrypted."""
    kms = headers.get("x-amz-server-side-encryption", "").startswith("aws:kms")
    return kms or bool(headers.get("x-amz-server-side-encryption-customer-algorithm"))


def multipart(etag: str) -> tuple[str, str, int] | None:
    """Return the MD5 over the MD5s of parts, and their number, if an ETag is of a multipart upload."""
    match = _MULTIPART.fullmatch(etag)
    return ("md5-parts", match[1], int(match[2])) if match else None


def likely_part_size(size: int, count: int) -> int | None:
    """Return a part size that uploaders use and that makes so many parts."""
    sizes = (*_PART_SIZES, (-(-size // count) // _MIB + 1) * _MIB)
    return next((part for part in sizes if -(-size // part) == count), None)
