"""Recording rules and alerts as files: for Prometheus, and the same for its operator.

`files()` is what `grafana/generate.py` writes and checks.
"""

from __future__ import annotations

import sys
from typing import Any, Final, TypeAlias

import yaml

from grafana.alert_rules import ALERTS, DASHBOARDS, Alert
from grafana.recording_rules import RULES, Rule

__all__ = ["ALERTS_FILE", "OPERATOR_FILE", "RULES_FILE", "RUNBOOKS", "files", "runbook"]

Document: TypeAlias = dict[str, Any]

RULES_FILE: Final = "grafana/rules/kthena.rules.yml"
ALERTS_FILE: Final = "grafana/alerts/kthena.alerts.yml"
OPERATOR_FILE: Final = "deploy/prometheusrule.yaml"
# Where the pages of docs/runbooks can be read. Another place: change this, and run `make dashboards`.
RUNBOOKS: Final = "https://github.com/volcano-sh/kthena-runtime/blob/main/docs/runbooks"

_HEAD: Final = "# Made by `make dashboards` out of grafana/{source}: change it there.\n"
_SELECTED: Final = """\
# For clusters with the Prometheus Operator: the groups of grafana/rules and grafana/alerts.
# Your Prometheus may select rules by a label, as kube-prometheus-stack does: release: <name of the release>
"""


def runbook(alert: str) -> str:
    """Return the path of an alert's runbook from the top of the repository."""
    return f"docs/runbooks/{alert}.md"


def files() -> dict[str, str]:
    """Return the text of each file by its path from the top of the repository."""
    rules = [{"name": "kthena-rules", "rules": [_recording(rule) for rule in RULES]}]
    alerts = [{"name": name, "rules": [_alerting(alert) for alert in group]} for name, group in ALERTS.items()]
    return {
        RULES_FILE: _HEAD.format(source="recording_rules.py") + _yaml({"groups": rules}),
        ALERTS_FILE: _HEAD.format(source="alert_rules.py") + _yaml({"groups": alerts}),
        OPERATOR_FILE: _HEAD.format(source="recording_rules.py and alert_rules.py")
        + _SELECTED
        + _yaml(_prometheus_rule([*rules, *alerts])),
    }


def _recording(rule: Rule) -> Document:
    return {"record": _Quoted(rule.record), "expr": rule.expr}


def _alerting(alert: Alert) -> Document:
    annotations = {
        "summary": alert.summary,
        "description": alert.description,
        "runbook_url": f"{RUNBOOKS}/{alert.name}.md",
    }
    if alert.dashboard:
        annotations["dashboard_url"] = DASHBOARDS[alert.dashboard]
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": alert.wait,
        "labels": {"severity": alert.severity},
        "annotations": annotations,
    }


def _prometheus_rule(groups: list[Document]) -> Document:
    labels = {"app.kubernetes.io/name": "kthena-runtime", "app.kubernetes.io/part-of": "kthena"}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "kthena-runtime", "labels": labels},
        "spec": {"groups": groups},
    }


class _Quoted(str):
    """A text that stands in quotes."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Lists are indented, lines are not broken, expressions of several lines stand as they are."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - PyYAML's
        super().increase_indent(flow, indentless=False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else '"' if isinstance(text, _Quoted) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style=style)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(_Quoted, _text)


def _yaml(document: Document) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=sys.maxsize)
