"""The labels that a query promises to whoever looks at its panel: in its grouping, its legend, its columns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import promql_parser

from tests.dashboards.targets import nodes, panels, substitute

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.dashboards.targets import Panel, Target

__all__ = ["columns", "legend", "promised"]

_NAMED: Final = re.compile(r"\{\{(\w+)\}\}")


def promised(target: Target) -> set[str]:
    """Return the labels that each series of the answer must have."""
    return _grouping(target) | set(_NAMED.findall(target.legend))


def legend(target: Target, labels: Mapping[str, str]) -> str:
    """Return what a line is called."""
    return _NAMED.sub(lambda name: labels.get(name[1], ""), target.legend)


def columns() -> dict[tuple[str, str], set[str]]:
    """Return the labels that are columns of tables, by dashboard and title."""
    return {(panel.dashboard, panel.title): _columns(panel) for panel in panels() if panel.json["type"] == "table"}


def _columns(panel: Panel) -> set[str]:
    organize = panel.json["transformations"][-1]["options"]
    return {name for name in organize["renameByName"] if not name.startswith("Value")}


def _grouping(target: Target) -> set[str]:
    """Return the labels by which the outermost aggregation groups; a quantile uses `le` up."""
    used = set()
    for node in nodes(substitute(target.expr)):
        if isinstance(node, promql_parser.Call) and node.func.name == "histogram_quantile":
            used.add("le")
        if isinstance(node, promql_parser.AggregateExpr):
            return set(node.modifier.labels if node.modifier else ()) - used
    return set()
