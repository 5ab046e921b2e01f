"""How a download looks where no terminal is."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from storage.cli.display import make_display

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.unit


def shown(*events: Mapping[str, object]) -> list[str]:
    """Return the lines of a log that is told these events at once."""
    stderr = io.StringIO()
    display = make_display("log", verbose=False, stderr=stderr)
    for event in events:
        display.show(event)
    display.close()
    return stderr.getvalue().splitlines()


def waiting(seconds: float) -> Mapping[str, object]:
    return {"event": "waiting", "holder": "process 7 on pod-a", "seconds": seconds}


def plan(action: str) -> Mapping[str, object]:
    return {
        "event": "planned", "action": action, "source": "s3://b/m", "revision": "", "files": 3, "bytes": 2048,
        "kept_bytes": 2048, "fetch_files": 0, "fetch_bytes": 0, "resumed_bytes": 0,
    }  # fmt: skip


def test_a_long_wait_is_said_now_and_then() -> None:
    """It may be for hours."""
    lines = shown(*(waiting(2.0 * n) for n in range(5)))

    assert lines == ["kthena-downloader: waiting for process 7 on pod-a, who has the directory, for 0 s now"]


def test_a_check_is_no_fetch() -> None:
    """Nothing is fetched by it, so nothing is said of that."""
    assert shown(plan("verify")) == ["kthena-downloader: s3://b/m: 3 files to check, 2.0 KiB"]
    assert shown(plan("download")) == ["kthena-downloader: s3://b/m: 0 of 3 files to fetch, 0 B"]
