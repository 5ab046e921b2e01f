"""The six dashboards, each a module."""

from __future__ import annotations

import json
from typing import Final

from grafana.boards.adapters import ADAPTERS
from grafana.boards.engine import ENGINE_BOARD
from grafana.boards.kv_events import KV_EVENTS_BOARD
from grafana.boards.overview import OVERVIEW
from grafana.boards.pods import PODS_BOARD
from grafana.boards.runtime import RUNTIME

__all__ = ["BOARDS", "FOLDER", "files"]

BOARDS: Final = (OVERVIEW, PODS_BOARD, ENGINE_BOARD, RUNTIME, ADAPTERS, KV_EVENTS_BOARD)
FOLDER: Final = "grafana/dashboards"


def files() -> dict[str, str]:
    """Return the text of each dashboard by its path from the top of the repository."""
    return {
        f"{FOLDER}/{board.uid}.json": json.dumps(board.json(), indent=2, ensure_ascii=False) + "\n" for board in BOARDS
    }
