"""What is downloaded: a set of files like a model's, one like a LoRA adapter's, and the same as a copy must be."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from boto3.s3.transfer import TransferConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from simulators.s3 import Bucket

__all__ = ["LORA", "MODEL", "FileSet", "make"]

_PIECE: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class FileSet:
    """Files of one prefix.

    Attributes:
        name: `model` or `lora`; the prefix in the bucket.
        folder: Where they lie on this machine.
        digests: SHA-256 of each, by name.
        size: Bytes of all.
    """

    name: str
    folder: Path
    digests: Mapping[str, str]
    size: int

    def upload(self, bucket: Bucket) -> None:
        """Put them into a bucket as boto3's `upload_file` does by default: parts of 8 MiB, each with its CRC-32."""
        client = bucket.server.client()
        for name in self.digests:
            client.upload_file(
                str(self.folder / name), bucket.name, f"{self.name}/{name}", Config=TransferConfig(max_concurrency=2)
            )
        client.close()

    def check(self, copy: Path) -> None:
        """See that a copy has the same files with the same bytes: who leaves something out is fast.

        Raises:
            RuntimeError: It has not.
        """
        found = _digests(copy)
        if found != self.digests:
            wrong = sorted({name for name, _ in found.items() ^ self.digests.items()})
            message = f"the copy of the {self.name} set is another in {', '.join(wrong[:5])}"
            raise RuntimeError(message)

    def warm(self) -> None:
        """Read all of it, so that it lies in the page cache."""
        _digests(self.folder)


MODEL: Final = "model"
LORA: Final = "lora"


def _sizes(name: str, scale: float) -> dict[str, int]:
    """Return the length of each file: 4 of 500 MB and 20 small ones, or an adapter of 20 MB."""
    if name == LORA:
        return {"adapter_config.json": 672, "adapter_model.safetensors": int(scale * 20_971_520)}
    shards = {f"model-{number:05}-of-00004.safetensors": int(scale * 524_288_000) for number in range(1, 5)}
    sizes = random.Random(7)
    small = {
        f"{'extra/' if number >= 12 else ''}{number}.json": sizes.randrange(2_000, 135_000) for number in range(20)
    }
    return shards | small


def make(name: str, folder: Path, *, scale: float = 1.0) -> FileSet:
    """Write the files of a set, of random bytes that no store can shrink."""
    sizes = _sizes(name, scale)
    for path, size in sizes.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with (folder / path).open("wb") as file:
            for start in range(0, size, _PIECE):
                file.write(os.urandom(min(_PIECE, size - start)))
    return FileSet(name, folder, _digests(folder), sum(sizes.values()))


def _digests(folder: Path) -> dict[str, str]:
    paths = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and ".kthena" not in path.parts
    }
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(paths, pool.map(_sha256, paths.values()), strict=True))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(folder: Path) -> None:
    """Remove a copy, whatever is in it."""
    shutil.rmtree(folder, ignore_errors=True)
