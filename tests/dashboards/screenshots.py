"""Make the pictures of the dashboards that the documents show: `python -m tests.dashboards.screenshots`.

They are drawn with Grafana's own components from two minutes of a live cluster. The exit code is 1, and the panels are
named, if one of them shows nothing, an error, or a text that is cut.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from tests.dashboards.stage import stage
from tests.dashboards.viewer import DASHBOARDS, ROOT, draw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulators.engine.api import FlavourName

__all__ = ["EMPTY_WHEN_WELL", "FLAVOURS", "main"]

FLAVOURS: Final[Sequence[FlavourName]] = ("vllm", "vllm", "sglang")
# Panels that have something to show only when something is wrong; each says so in its place.
EMPTY_WHEN_WELL: Final = frozenset(
    {
        "Engine scrape errors / s",
        "Page repairs / s",
        "Standard metrics that a readable engine lacks",
        "Made anew / s by reason",
        "Redis errors / s",
    }
)

_IMAGES: Final = ROOT / "docs" / "images"
_SHOWN_SECONDS: Final = 120
# Until a rate over 15 s is there at the left edge, and the right edge is up to 45 s ago.
_MORE_SECONDS: Final = 65


def main() -> int:
    """Make them; return the exit code."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with TemporaryDirectory(prefix="kthena-") as folder, stage(Path(folder), FLAVOURS) as cluster:
        _say(f"a cluster is running; {_SHOWN_SECONDS + _MORE_SECONDS} s of it are waited for")
        cluster.wait_for_scrapes(_SHOWN_SECONDS + _MORE_SECONDS)
        _IMAGES.mkdir(exist_ok=True)
        pictures = list(draw(DASHBOARDS, cluster.prometheus.url, _IMAGES, seconds=_SHOWN_SECONDS))
    bad = False
    for picture in pictures:
        problems = {each for each in picture.problems if each[0] not in EMPTY_WHEN_WELL}
        size = (_IMAGES / f"{picture.dashboard}.png").stat().st_size // 1000
        _say(f"{picture.dashboard}: {picture.panels} panels, {size} kB")
        for panel, problem in sorted(problems):
            bad = True
            _say(f"  {panel}: {problem}")
    return int(bad)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
