"""Digests against known values, fed in any pieces."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.disk.digests import Parts, hash_file, make_hasher, matches
from storage.disk.listing import Digest

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

pytestmark = pytest.mark.unit

HELLO = [
    ("md5", 0, "b1946ac92492d2347c6235b4d2611184"),
    ("sha256", 0, "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"),
    ("sha1", 0, "f572d396fae9206628714fb2ce00f72e94f2258f"),
    ("crc32", 0, "363a3020"),
    ("crc32c", 0, "353dd8be"),
    ("crc64nvme", 0, "6a43fb4bad5a5607"),
    ("git-sha1", 0, "ce013625030ba8dba906f756967f9e9ca394464a"),
]


@pytest.mark.parametrize(("algorithm", "part", "value"), HELLO)
def test_known_values(tmp_path: Path, algorithm: str, part: int, value: str) -> None:
    """Of `hello` with a line end."""
    path = tmp_path / "hello"
    path.write_bytes(b"hello\n")

    assert value == hash_file(path, Digest(algorithm, value, part))
    assert matches(path, Digest(algorithm, value, part))


@pytest.mark.parametrize("data", [b"", b"a", b"ab", b"abcdef", b"abcdefg"])
def test_parts(data: bytes) -> None:
    """The MD5 of the parts' MD5s; a last part that is full is counted once."""
    parts = [data[at : at + 3] for at in range(0, len(data), 3)]
    expected = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()
    hasher = make_hasher(Digest("md5-parts", "", 3), len(data))

    hasher.update(memoryview(data))

    assert expected == hasher.hexdigest()


# Of the nine digits "123456789", as the catalogue of CRCs has it, and the polynomial, least bit first.
CHECKS = {
    "crc32": (0xCBF43926, 0xEDB88320, 32),
    "crc32c": (0xE3069283, 0x82F63B78, 32),
    "crc64nvme": (0xAE8B14860A799888, 0x9A6C9329AC4BC9B5, 64),
}


@pytest.mark.parametrize(("algorithm", "check"), CHECKS.items())
def test_a_crc_of_parts_in_any_order(
    monkeypatch: pytest.MonkeyPatch, algorithm: str, check: tuple[int, int, int]
) -> None:
    """It is the one of the whole, bit by bit, whatever the size of the parts that it is taken of."""
    value, polynomial, bits = check

    @given(st.binary(max_size=60) | st.just(b"123456789"), st.integers(1, 20), st.randoms())
    def holds(data: bytes, stride: int, order: Random) -> None:
        monkeypatch.setattr("storage.disk.digests._STRIDE", stride)
        hasher = make_hasher(Digest(algorithm, ""), len(data))
        assert isinstance(hasher, Parts)
        starts = list(range(0, len(data), stride))
        order.shuffle(starts)
        for start in starts:
            hasher.update_at(start, memoryview(data)[start : start + stride])
        expected = value if data == b"123456789" else crc_by_bits(data, polynomial, bits)
        assert hasher.hexdigest() == f"{expected:0{bits // 4}x}"

    holds()


def crc_by_bits(data: bytes, polynomial: int, bits: int) -> int:
    """Return a CRC as its definition says."""
    register = (1 << bits) - 1
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (polynomial if register & 1 else 0)
    return register ^ (1 << bits) - 1


@given(st.binary(max_size=200), st.lists(st.integers(1, 50)), st.integers(1, 40))
def test_pieces_do_not_matter(data: bytes, cuts: list[int], part: int) -> None:
    """However the bytes come."""
    for algorithm in ("md5", "md5-parts", "sha256", *CHECKS, "crc32c-parts", "git-sha1"):
        digest = Digest(algorithm, "", part)
        whole, pieces = make_hasher(digest, len(data)), make_hasher(digest, len(data))
        whole.update(memoryview(data))
        left = memoryview(data)
        for cut in cuts:
            pieces.update(left[:cut])
            left = left[cut:]
        pieces.update(left)

        assert whole.hexdigest() == pieces.hexdigest()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A file is read, not what it points to."""
    (tmp_path / "a").write_bytes(b"hello\n")
    (tmp_path / "link").symlink_to("a")

    with pytest.raises(OSError, match="symbolic links"):
        hash_file(tmp_path / "link", Digest("md5", ""))
