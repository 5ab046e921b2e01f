"""The cases of grafana/tests, to be run one alert or recording rule at a time by the real promtool."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import yaml

from grafana.alerting import ALERTS_FILE, RULES_FILE
from tests.documents import ROOT
from tests.peers.prometheus import binary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["CASES", "alert_cases", "check_rules", "record_cases", "run"]

Document: TypeAlias = dict[str, Any]

CASES: Final[dict[str, Document]] = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "grafana/tests").iterdir())
}


def alert_cases(alert: str) -> list[Document]:
    """Return the cases of an alert, with what they say of other alerts left out."""
    return _cases("alert_rule_test", lambda check: check["alertname"] == alert)


def record_cases(record: str) -> list[Document]:
    """Return the cases of a recording rule, with what they say of others left out."""
    return _cases("promql_expr_test", lambda check: check["expr"] == record)


def _cases(kind: str, wanted: Callable[[Document], bool]) -> list[Document]:
    every = (case for document in CASES.values() for case in document["tests"])
    chosen = ({**case, kind: [check for check in case.get(kind, ()) if wanted(check)]} for case in every)
    return [case for case in chosen if case[kind]]


def run(cases: list[Document], folder: Path, *, alerts: Path = ROOT / ALERTS_FILE) -> tuple[int, str]:
    """Let promtool test some cases, with other alerts if need be; return its exit code and words."""
    files = [str(ROOT / RULES_FILE), str(alerts)]
    order = next(document["group_eval_order"] for document in CASES.values() if "group_eval_order" in document)
    document = {"rule_files": files, "evaluation_interval": "1m", "group_eval_order": order, "tests": cases}
    path = folder / "cases.yml"
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    return _promtool("test", "rules", str(path))


def check_rules(path: Path) -> tuple[int, str]:
    """Let promtool check a file of rules, its advice counting as errors."""
    return _promtool("check", "rules", "--lint=all", "--lint-fatal", str(path))


def _promtool(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([binary("promtool"), *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr
