"""Everything that the dashboards, rules and alerts ask for while nobody uses the engines: nothing, or numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.dashboards.cases import QUESTIONS, RULE_FILES, each_alert, each_question
from tests.dashboards.stage import stage
from tests.dashboards.view import RATE_SECONDS, Question, View

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from grafana.alert_rules import Alert
    from tests.dashboards.targets import Target

pytestmark = pytest.mark.slow

SECONDS: Final = 15
# Enough for rates.
SCRAPES: Final = RATE_SECONDS + 4
# SGLang shows nothing before its first request.
SHOWN_BEFORE_TRAFFIC: Final = "Standard metrics that a readable engine lacks"
KV_EVENTS: Final = "kthena-kv-events"


@pytest.fixture(scope="module", params=["bare", "configured", "quiet again"])
def situation(request: pytest.FixtureRequest) -> str:
    """Return what is idle: runtimes as they start, those with Redis and adapters, or what has served some requests."""
    return str(request.param)


@pytest.fixture(scope="module")
def view(situation: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    with stage(tmp_path_factory.mktemp("stage"), load=0, bare=situation == "bare", rule_files=RULE_FILES) as cluster:
        cluster.wait_for_scrapes(SCRAPES)
        if situation == "quiet again":
            for pod in cluster.pods:
                pod.engine.run_requests(20)
            cluster.wait_for_scrapes(2 * SCRAPES)
        view = cluster.view(seconds=SECONDS)
        cluster.stop()
        yield view


def shown(view: View, chosen: Sequence[Question]) -> list[Target]:
    """Return what has something other than 0 to show."""
    return [each.target for each in chosen if any(any(series.values) for series in view.ask(each))]


@each_question
def test_idle_is_nothing_or_a_number(view: View, question: Question) -> None:
    """Prometheus answers, and never with NaN or infinity."""
    assert all(series.finite for series in view.ask(question))


@each_alert
def test_nobody_is_alarmed(view: View, alert: Alert) -> None:
    """An idle service is not a broken one."""
    assert view.now(alert.expr) == []


def test_what_is_recorded_is_a_number(view: View) -> None:
    """Without traffic it is 0 or not there, and every rule could be evaluated."""
    recorded = view.now('{__name__=~"namespace_model_name.*"}')

    assert recorded
    assert all(series.finite for series in recorded)
    assert {rule["health"] for rule in view.rules()} == {"ok"}


def test_what_lacks_metrics_is_told(view: View, situation: str) -> None:
    """Until SGLang's first request the table of missing standard metrics names its pod, and afterwards nobody's."""
    (question,) = (each for each in QUESTIONS if each.target.panel == SHOWN_BEFORE_TRAFFIC)
    pods = {series.labels["pod"] for series in view.ask(question)}

    assert pods == (set() if situation == "quiet again" else {"qwen3-8b-0"})


def test_kv_events_are_shown_where_they_are_on(view: View, situation: str) -> None:
    """Without Redis the dashboard shows no more than that no pod has KV events."""
    found = shown(view, [each for each in QUESTIONS if each.target.dashboard == KV_EVENTS])

    assert bool(found) == (situation != "bare")
