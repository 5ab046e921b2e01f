"""The router's hash of a block, which is part of its Redis key.

The hash is SHA-256 over the block's token ids, each as an unsigned 32-bit big-endian
integer: the first 8 bytes of the digest, big-endian, without the sign bit. It depends
on the block's own tokens only, not on its parent. kthena's router defines it
(kvcache_aware.go). Tokens 1 to 16 give 6615856733697512468.
"""

from __future__ import annotations

import sys
from array import array
from hashlib import sha256
from struct import Struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["hash_blocks"]

_UINT32: Final = next(code for code in "IL" if array(code).itemsize == 4)
_SWAPPED: Final = sys.byteorder == "little"
_MASK: Final = (1 << 63) - 1
_first: Final = Struct(">Q").unpack_from


def hash_blocks(token_ids: Iterable[int], block_size: int) -> list[int]:
    """Return the hash of each run of `block_size` tokens; the last run may be shorter.

    Raises:
        OverflowError: A token id is negative or does not fit 32 bits.
        TypeError: A token id is not an integer.
    """
    tokens = array(_UINT32, token_ids)
    if _SWAPPED:
        tokens.byteswap()
    data, width = tokens.tobytes(), block_size * tokens.itemsize
    return [_first(sha256(data[start : start + width]).digest())[0] & _MASK for start in range(0, len(data), width)]
