"""The cases of grafana/tests, to be run one alert or recording rule at a time by the real promtool."""

from __future__ import annotations

import subprocess
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import yaml

from grafana.alerting import ALERTS_FILE, RULES_FILE
from simulators.prometheus import binary
from simulators.waiting import PATIENCE
from tests.harness.documents import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
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


def run(cases: list[Document], folder: Path, *, waits: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Let promtool test some cases; return its exit code and words.

    It evaluates every rule that it is given in every minute of every case, for hours: so it gets those that the cases
    are about, and those that they are made of.

    Args:
        cases: What to test.
        folder: Where the files go.
        waits: For how long alerts must last, by name, when that is another time than the committed one.
    """
    order = next(document["group_eval_order"] for document in CASES.values() if "group_eval_order" in document)
    documents = [_only(_needed(cases), document, waits or {}) for document in _committed()]
    names = [str(_written(folder / f"rules-{number}.yml", document)) for number, document in enumerate(documents)]
    whole = {"rule_files": names, "evaluation_interval": "1m", "group_eval_order": order, "tests": cases}
    return _promtool("test", "rules", str(_written(folder / "cases.yml", whole)))


@cache
def _committed() -> tuple[Document, ...]:
    return tuple(yaml.safe_load((ROOT / name).read_text(encoding="utf-8")) for name in (RULES_FILE, ALERTS_FILE))


def _rules() -> Iterator[Document]:
    return (rule for document in _committed() for group in document["groups"] for rule in group["rules"])


def _name(rule: Document) -> str:
    return str(rule.get("alert") or rule["record"])


def _needed(cases: list[Document]) -> set[str]:
    """Return the rules that the cases check, and those whose results these read; all for other queries."""
    rules = {_name(rule): rule["expr"] for rule in _rules()}
    checks = [
        check for case in cases for kind in ("alert_rule_test", "promql_expr_test") for check in case.get(kind, ())
    ]
    found = {check.get("alertname") or check["expr"] for check in checks}
    if not found <= set(rules):
        return set(rules)
    while more := {name for name in rules if any(name in rules[one] for one in found)} - found:
        found |= more
    return found


def _only(names: set[str], document: Document, waits: Mapping[str, str]) -> Document:
    groups = [
        group | {"rules": [_waiting(rule, waits) for rule in group["rules"] if _name(rule) in names]}
        for group in document["groups"]
    ]
    return document | {"groups": groups}


def _waiting(rule: Document, waits: Mapping[str, str]) -> Document:
    return rule | {"for": waits[_name(rule)]} if _name(rule) in waits else rule


def _written(path: Path, document: Document) -> Path:
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    return path


def check_rules(path: Path) -> tuple[int, str]:
    """Let promtool check a file of rules, its advice counting as errors."""
    return _promtool("check", "rules", "--lint=all", "--lint-fatal", str(path))


def _promtool(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [binary("promtool"), *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return done.returncode, done.stdout + done.stderr
