"""The dashboards as a person sees them: drawn by Grafana's own components from a live cluster, and nothing is amiss."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.dashboards.screenshots import EMPTY_WHEN_WELL
from tests.dashboards.stage import Cluster, stage
from tests.dashboards.viewer import DASHBOARDS, Picture, draw

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(300)

PNG: Final = b"\x89PNG\r\n\x1a\n"
SECONDS: Final = 30


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A busy cluster, of which enough is there to draw."""
    with stage(tmp_path_factory.mktemp("stage")) as running:
        # The pictures end at a time that fits the axes, up to 40 s ago; rates cover the 15 s before.
        running.wait_for_scrapes(SECONDS + 40 + 15)
        yield running


# What is under way comes and goes, so there may be none at the moment of the picture.
MOMENTARY: Final = {("Progress", "no data")}


@pytest.fixture(scope="module")
def pictures(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Picture]:
    """All six, drawn."""
    folder = tmp_path_factory.mktemp("pictures")
    drawn = {each.dashboard: each for each in draw(DASHBOARDS, cluster.prometheus.url, folder, seconds=SECONDS)}
    assert all((folder / f"{name}.png").read_bytes().startswith(PNG) for name in drawn)
    return drawn


@pytest.mark.parametrize("name", [path.stem for path in DASHBOARDS])
def test_every_panel_shows_something_and_nothing_is_cut(pictures: dict[str, Picture], name: str) -> None:
    """No empty panel, failed query, unknown unit, NaN, cut text or table that is too wide."""
    picture = pictures[name]
    assert picture.panels > 5
    problems = {each for each in picture.problems if each[0] not in EMPTY_WHEN_WELL}
    assert problems - MOMENTARY == set()


def panel(title: str, expression: str, *, kind: str = "stat", unit: str = "none", width: int = 8) -> dict[str, Any]:
    return {
        "type": kind,
        "title": title,
        "gridPos": {"x": 0, "y": 0, "w": width, "h": 4},
        "options": {},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [{"refId": "A", "expr": expression, "instant": True, "format": "table"}],
    }


BAD: Final = {
    "no data": panel("Empty", "vector(1) > 2"),
    "query failed": panel("Failing", "sum(((up)"),
    "unknown unit: parsecs": panel("Strange unit", "vector(1)", unit="parsecs"),
    "shows NaN": panel("Nothing by nothing", "vector(0) / 0", kind="table"),
    "text cut": panel("A title that is much longer than its panel is wide", "vector(1)", width=3),
    "table wider than its panel": panel("Too many columns", "up", kind="table", width=4),
}


@pytest.fixture(scope="module")
def bad_picture(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Picture:
    """All bad panels, one below the other."""
    folder = tmp_path_factory.mktemp("bad")
    panels = [
        each | {"id": number, "gridPos": each["gridPos"] | {"y": 4 * number}}
        for number, each in enumerate(BAD.values())
    ]
    file = folder / "bad.json"
    file.write_text(json.dumps({"uid": "bad", "title": "Bad", "panels": panels}))
    (picture,) = draw([file], cluster.prometheus.url, folder, seconds=SECONDS)
    return picture


@pytest.mark.parametrize("said", BAD)
def test_what_is_amiss_is_said(bad_picture: Picture, said: str) -> None:
    """The viewer finds what a person would stumble over."""
    title = BAD[said]["title"]
    assert [problem for panel, problem in bad_picture.problems if panel == title and said in problem]
