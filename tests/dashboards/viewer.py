"""The programs of grafana/viewer: what Grafana accepts in a dashboard, and pictures of dashboards."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["DASHBOARDS", "Picture", "accepted", "draw"]

ROOT: Final = Path(__file__).parents[2]
DASHBOARDS: Final = tuple(sorted((ROOT / "grafana" / "dashboards").glob("*.json")))

_VIEWER: Final = ROOT / "grafana" / "viewer"
_BUILD: Final = _VIEWER / ".build"


@dataclass(frozen=True, slots=True)
class Picture:
    """A dashboard that was drawn.

    Attributes:
        dashboard: The name of its file, without suffix.
        panels: How many panels it has.
        problems: What a person would not like, as (panel, problem).
    """

    dashboard: str
    panels: int
    problems: frozenset[tuple[str, str]]


def accepted() -> dict[str, Any]:
    """Return what Grafana's published types and code accept; made once for each version of them."""
    made_of = b"".join((_VIEWER / name).read_bytes() for name in ("package-lock.json", "schema.mjs"))
    kept = _BUILD / f"accepted-{hashlib.sha256(made_of).hexdigest()[:16]}.json"
    if not kept.exists():
        _BUILD.mkdir(exist_ok=True)
        fresh = kept.with_suffix(".new")
        fresh.write_text(_run("schema.mjs"))
        fresh.rename(kept)
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def draw(
    dashboards: Sequence[Path], prometheus_url: str, folder: Path, *, seconds: int = 60, **options: object
) -> Iterator[Picture]:
    """Draw the last so many seconds of each dashboard into `folder`, as PNG files.

    Further options are those of render.mjs.
    """
    options |= {"prometheus": prometheus_url, "out": folder, "seconds": seconds}
    options["chromium"] = _program("chromium")
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    for line in _run("render.mjs", *arguments, *map(str, dashboards)).splitlines():
        report = json.loads(line)
        problems = frozenset((each["panel"], each["problem"]) for each in report["problems"])
        yield Picture(report["dashboard"], report["panels"], problems)


def _run(script: str, *arguments: str) -> str:
    assert (_VIEWER / "node_modules").is_dir(), "the viewer is not installed: run `make viewer`"
    command = [_program("node"), script, *arguments]
    done = subprocess.run(command, cwd=_VIEWER, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _program(name: str) -> str:
    path = shutil.which(name)
    assert path, f"{name} is not on this machine: run `make apt` as root"
    return path
