"""What the dashboards in grafana/dashboards ask Prometheus for, read from the files as Grafana would."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import promql_parser

from tests.harness.documents import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Panel",
    "Target",
    "VariableQuery",
    "dashboards",
    "panels",
    "selectors",
    "substitute",
    "targets",
    "variable_queries",
]

_FOLDER: Final = ROOT / "grafana/dashboards"
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")
_LABEL_VALUES: Final = re.compile(r"label_values\((.+), (\w+)\)")
_QUERY_RESULT: Final = re.compile(r"query_result\((.+)\)")
_SUFFIX: Final = re.compile(r"_(bucket|sum|count)$")

# What the variables are when nobody chooses: "All" is its allValue.
_UNCHOSEN: Final = {
    "job": ".+",
    "namespace": ".*",
    "model_name": ".*",
    "pod": ".*",
    "engine": ".*",
    "ttft_slo": "1.0",
}


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel with the row that it stands in; `repeat` is the variable for which the row is repeated."""

    dashboard: str
    row: str
    repeat: str
    collapsed: bool
    json: dict[str, Any]

    @property
    def title(self) -> str:
        return str(self.json["title"])


@dataclass(frozen=True, slots=True)
class Target:
    """A query of a panel, its variables unsubstituted; `instant` if it is asked for one time, not for a range."""

    dashboard: str
    row: str
    panel: str
    kind: str
    ref: str
    expr: str
    legend: str
    instant: bool
    repeat: str

    @property
    def name(self) -> str:
        return f"{self.dashboard}:{self.panel}:{self.ref}"


@dataclass(frozen=True, slots=True)
class VariableQuery:
    """Where a variable's choices come from.

    Either the values of `label` over the series that `query` selects (`/api/v1/label/LABEL/values?match[]=QUERY`),
    or, without `label`, what `regex` finds in the series that the expression `query` gives.
    """

    dashboard: str
    variable: str
    query: str
    label: str
    regex: str

    @property
    def name(self) -> str:
        return f"{self.dashboard}:{self.variable}"


@cache
def dashboards() -> dict[str, dict[str, Any]]:
    """Return the dashboards by uid."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(_FOLDER.glob("*.json"))}


def panels() -> list[Panel]:
    """Return all panels but the headings of rows, those of collapsed rows included."""
    return [panel for uid, dashboard in dashboards().items() for panel in _panels(uid, dashboard)]


def _panels(uid: str, dashboard: dict[str, Any]) -> Iterator[Panel]:
    row = {"title": "", "repeat": ""}
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            yield Panel(uid, row["title"], row.get("repeat", ""), collapsed=False, json=panel)
            continue
        row = panel
        for inner in panel["panels"]:
            yield Panel(uid, row["title"], row.get("repeat", ""), collapsed=True, json=inner)


def targets() -> list[Target]:
    """Return every query of every panel."""
    return [
        Target(
            panel.dashboard,
            panel.row,
            panel.title,
            panel.json["type"],
            target["refId"],
            target["expr"],
            target["legendFormat"],
            target["instant"],
            panel.repeat,
        )
        for panel in panels()
        for target in panel.json["targets"]
    ]


def variable_queries() -> list[VariableQuery]:
    """Return the queries that fill the variables."""
    return [
        _variable_query(uid, variable)
        for uid, dashboard in dashboards().items()
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    ]


def _variable_query(uid: str, variable: dict[str, Any]) -> VariableQuery:
    text = variable["query"]["query"]
    if labels := _LABEL_VALUES.fullmatch(text):
        return VariableQuery(uid, variable["name"], labels[1], labels[2], "")
    result = _QUERY_RESULT.fullmatch(text)
    assert result, f"neither label_values nor query_result: {text}"
    return VariableQuery(uid, variable["name"], result[1], "", variable["regex"].strip("/"))


def substitute(text: str, *, rate_interval: str = "15s", range: str = "60s", **chosen: str) -> str:  # noqa: A002
    """Put values in the place of variables, as Grafana does; unchosen ones are "All".

    Raises:
        KeyError: A variable is not known.
    """
    values = {**_UNCHOSEN, "__rate_interval": rate_interval, "__range": range, **chosen}
    return _VARIABLE.sub(lambda match: values[match[1] or match[2]], text)


def selectors(expr: str) -> list[str]:
    """Return the series that an expression reads, as selectors: some may be there although the result is empty."""
    return [str(node) for node in nodes(expr) if isinstance(node, promql_parser.VectorSelector)]


def families(expr: str) -> list[str]:
    """Return the families that an expression reads, in order and once each."""
    names = [node.name for node in nodes(expr) if isinstance(node, promql_parser.VectorSelector)]
    return list(dict.fromkeys(_SUFFIX.sub("", name or "") for name in names))


def nodes(expr: str) -> Iterator[Any]:
    """Walk through an expression without variables, from the outside in and from left to right."""
    return _nodes(promql_parser.parse(expr))


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for name in ("lhs", "rhs", "param", "args", "expr", "vector_selector"):
        inner = getattr(node, name, None)
        for part in inner if isinstance(inner, list) else [inner]:
            if part is not None and not callable(part):
                yield from _nodes(part)
