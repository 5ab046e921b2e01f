"""A dashboard around its panels: what all six have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.telemetry.names import LORA_ADAPTERS
from grafana.frame import DATASOURCE
from grafana.layout import flow
from grafana.names import ALERTS, GENERATION_TOKENS, START_TIME
from grafana.promql import PODS, RATE
from grafana.variables import DATASOURCES, LABEL_FILTERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grafana.layout import Row
    from grafana.style import Json

__all__ = ["TAG", "Board", "drill_down"]

TAG: Final = "kthena"

# Classic dashboards of this version load in Grafana 10.4 and are brought up to date by later ones.
_SCHEMA_VERSION: Final = 39


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard.

    Attributes:
        uid: Its address, /d/UID, and the name of its file.
        title: Behind "Kthena / ".
        description: The question that it answers.
        variables: What can be chosen, besides data source and filters.
        rows: Its panels.
    """

    uid: str
    title: str
    description: str
    variables: Sequence[Json]
    rows: Sequence[Row]

    def json(self) -> Json:
        """Return what Grafana imports."""
        return {
            "id": None,
            "uid": self.uid,
            "title": f"Kthena / {self.title}",
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": _SCHEMA_VERSION,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "weekStart": "",
            "fiscalYearStartMonth": 0,
            "annotations": {"list": list(_ANNOTATIONS)},
            "links": [_OTHERS],
            "templating": {"list": [DATASOURCES, *self.variables, LABEL_FILTERS]},
            "panels": flow(self.rows),
        }


def drill_down(uid: str, **choices: str) -> str:
    """Return the address of a dashboard with the same time and variables, but for those that a click sets.

    `choices` are variables with what they become: `__value.raw` is the cell, `__data.fields.Pod` another of its row.
    """
    kept = [f"${{{name}:queryparam}}" for name in ("datasource", "job", "namespace") if name not in choices]
    chosen = [f"var-{name}=${{{source}:percentencode}}" for name, source in choices.items()]
    return f"/d/{uid}?{'&'.join((*kept, *chosen))}&${{__url_time_range}}"


def _annotation(
    name: str, query: str, color: str, *, text: str = "{{pod}}", title: str = "", shown: bool = False
) -> Json:
    return {
        "name": name,
        "datasource": dict(DATASOURCE),
        "enable": shown,
        "hide": False,
        "iconColor": color,
        "expr": query,
        "step": "60s",
        "titleFormat": title or name,
        "textFormat": text,
        "useValueForTime": False,
    }


_LOADED: Final = PODS.raw(LORA_ADAPTERS, state="loaded")

_ANNOTATIONS: Final = (
    {
        "name": "Annotations & Alerts",
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
        "type": "dashboard",
    },
    _annotation(
        "Firing alerts",
        f'{ALERTS}{{namespace=~"$namespace|", alertname=~"Kthena.+", alertstate="firing"}}',
        "red",
        title="{{alertname}}",
        text="{{severity}} {{pod}}",
        shown=True,
    ),
    _annotation(
        "Engine restarted",
        f"resets({PODS.raw(GENERATION_TOKENS)}[{RATE}]) > 0",
        "orange",
    ),
    _annotation(
        "Runtime restarted",
        f"changes({PODS.raw(START_TIME)}[{RATE}]) > 0",
        "yellow",
    ),
    _annotation(
        "Adapters changed",
        f"changes({_LOADED}[{RATE}]) > 0",
        "purple",
    ),
)

_OTHERS: Final[Json] = {
    "title": "Kthena",
    "type": "dashboards",
    "tags": [TAG],
    "asDropdown": True,
    "icon": "external link",
    "includeVars": True,
    "keepTime": True,
    "targetBlank": False,
    "tooltip": "The other dashboards, with the same time and variables",
    "url": "",
}
