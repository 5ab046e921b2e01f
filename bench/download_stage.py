"""Where downloads are measured: the sets, the stores that hold them, and the directories that copies go to."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from bench import download_nginx
from bench.download_peers import NGINX, Store
from bench.download_sets import LORA, MODEL, make
from bench.process import HOST
from simulators.s3 import S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.download_sets import FileSet

__all__ = ["SEAWEEDFS", "Effort", "Stage", "stage"]

SEAWEEDFS: Final = "SeaweedFS"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done to measure.

    Attributes:
        rounds: How often the peers take turns.
        scale: Bytes of the large files, of those that a model has.
        scrapes: How many are made beside each load.
        rate: Scrapes a second.
        downloads: How many the sidecar makes.
        careful: Whether measurements wait for a calm machine, caches are filled before, and downloads and the store
            step back for scrapes. Without, it is shown that everything works, on a machine that is busy as well.
    """

    rounds: int = 5
    scale: float = 1.0
    scrapes: int = 1000
    rate: float = 50.0
    downloads: int = 10
    careful: bool = True


@dataclass(frozen=True, slots=True)
class Stage:
    """What all measurements share.

    Attributes:
        stores: Which hold both sets, by the name of their server; nginx only where it can be had.
        sets: By name.
        copies: Where copies of the store go: memory as a rule, so that no disk is measured.
        volume: Where copies of a volume go: the file system that the sets lie on.
        home: Where programs start.
    """

    stores: dict[str, Store]
    sets: dict[str, FileSet]
    copies: Path
    volume: Path
    home: Path


@contextmanager
def stage(effort: Effort, copies: Path, *, without: Sequence[str]) -> Iterator[Stage]:
    """Make the sets and start the stores."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        into = Path(stack.enter_context(TemporaryDirectory(prefix="bench-", dir=copies)))
        for each in ("server", "nginx", "home", "volume"):
            (folder / each).mkdir()
        sets = {each: make(each, folder / each, scale=effort.scale if each == MODEL else 1.0) for each in (MODEL, LORA)}
        server = stack.enter_context(S3Server(folder / "server", frugal=False))
        bucket = server.bucket("models")
        for files in sets.values():
            files.upload(bucket)
        stores = {SEAWEEDFS: Store(server.url, bucket.name, server.pid)}
        if NGINX not in without:
            lean = stack.enter_context(download_nginx.serve(list(sets.values()), folder / "nginx"))
            stores[NGINX] = Store(f"http://{HOST}:{lean.port}", download_nginx.BUCKET, lean.pid)
        yield Stage(stores, sets, into, folder / "volume", folder / "home")
