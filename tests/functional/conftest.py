"""Servers that functional tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.peers.bad_proxy import BadProxy
from tests.peers.downloader import Downloader
from tests.peers.hub import Hub
from tests.peers.s3 import S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server; each test takes a bucket of its own."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def downloader(tmp_path: Path) -> Downloader:
    """The downloader, in a home of its own."""
    return Downloader(tmp_path)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder for a model, which is not there yet."""
    return tmp_path / "models" / "target"


@pytest.fixture
def s3_proxy(s3: S3Server) -> Iterator[BadProxy]:
    """A proxy before the S3 server."""
    with BadProxy(s3.netloc) as proxy:
        yield proxy


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hugging Face hub."""
    with Hub() as hub:
        yield hub
