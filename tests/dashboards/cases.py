"""The cases of the tests over a live cluster, and the rules that Prometheus has there."""

from __future__ import annotations

from typing import Final

from grafana.alert_rules import ALERTS
from grafana.alerting import ALERTS_FILE, RULES_FILE
from tests.dashboards.view import questions
from tests.harness.documents import ROOT
from tests.harness.every import every

__all__ = ["ALL_ALERTS", "PASSING", "QUESTIONS", "RULE_FILES", "each_alert", "each_question"]

QUESTIONS: Final = questions()
# A burst may just be waiting, an adapter just loading, a download just begun: these alerts ask for many minutes of it.
PASSING: Final = {"KthenaRequestsQueueing", "KthenaLoraAdapterStuck", "KthenaDownloadStalled"}
ALL_ALERTS: Final = [alert for group in ALERTS.values() for alert in group]
RULE_FILES: Final = [ROOT / RULES_FILE, ROOT / ALERTS_FILE]

each_question = every("question", QUESTIONS, lambda question: question.name)
each_alert = every("alert", ALL_ALERTS, lambda alert: alert.name)
