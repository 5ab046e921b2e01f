"""Everything that the dashboards, rules and alerts ask a real Prometheus for, over a small cluster that is busy and well."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

from grafana.recording_rules import RULES
from simulators.waiting import wait_until
from tests.dashboards.cases import ALL_ALERTS, PASSING, QUESTIONS, RULE_FILES, each_alert, each_question
from tests.dashboards.promises import columns, legend, promised
from tests.dashboards.screenshots import EMPTY_WHEN_WELL
from tests.dashboards.stage import JOB, NAMESPACE, PATIENT_SECONDS, PROVOKED, Cluster, stage
from tests.dashboards.targets import dashboards, variable_queries
from tests.dashboards.view import Question, View, any_of
from tests.dashboards.viewer import DASHBOARDS, Picture, draw
from tests.harness.every import every

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from grafana.alert_rules import Alert
    from grafana.recording_rules import Rule
    from simulators.engine.api import FlavourName
    from tests.dashboards.targets import VariableQuery
    from tests.dashboards.view import Series

pytestmark = pytest.mark.slow

FLAVOURS: Final[Sequence[FlavourName]] = ("vllm", "sglang")
SECONDS: Final = 30
# What must have happened, besides scrapes for as long as is looked at.
HAPPENED: Final = {
    "downloads from the Hub": 'min(kthena_runtime_downloads_total{scheme="hf", outcome="done"}) >= 1',
    "adapters that went": 'min(kthena_runtime_lora_operations_total{operation="unload", outcome="done"}) >= 1',
    "failed loads": (
        'max_over_time(kthena_runtime_lora_operations_total{operation="load", outcome="failed"}[1h]) - '
        'min_over_time(kthena_runtime_lora_operations_total{operation="load", outcome="failed"}[1h]) >= 3'
    ),
    "evicted blocks": 'min(increase(kthena_runtime_kv_events_dropped_total{reason="tier"}[20s])) > 0',
    "an alert": 'ALERTS{alertstate="firing"}',
}
# Requests at once: more than an engine can run.
BURST: Final = 40
BURST_IS_OVER: Final = (
    "max_over_time(sum(kthena:num_requests_waiting)[20s:1s]) > 0"
    " and max_over_time(sum(kthena:num_requests_waiting)[3s:1s]) == 0"
)
# Seconds.
LASTING: Final = 5
# What is under way comes and goes, so there may be none at the moment of the picture.
MOMENTARY: Final = {("Progress", "no data")}
PNG: Final = b"\x89PNG\r\n\x1a\n"
# The pictures end at a time that fits the axes, up to 40 s ago; rates cover the 15 s before.
SCRAPES: Final = SECONDS + 40 + 15
# Queries that have an answer only when something is wrong, besides whole panels that do.
QUIET_WHEN_WELL: Final = {"kthena-kv-events:Left out / s by reason:B"}

COLUMNS: Final = columns()
ANNOTATIONS: Final = {
    f"{uid}:{each['name']}": each["expr"]
    for uid, dashboard in dashboards().items()
    for each in dashboard["annotations"]["list"]
    if "expr" in each
}

each_raw = every(
    "question",
    [each for each in QUESTIONS if re.search(r"\b(vllm|sglang):", each.target.expr)],
    lambda question: question.name,
)
each_variable = every("variable", variable_queries(), lambda variable: variable.name)
each_annotation = every("name", ANNOTATIONS)
each_rule = every("rule", RULES, lambda rule: rule.record)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A busy cluster in which everything has happened that can be shown; Prometheus has the real rules."""
    with stage(tmp_path_factory.mktemp("stage"), FLAVOURS, rule_files=RULE_FILES) as running:
        running.wait_for_scrapes(SCRAPES)
        for what, expression in HAPPENED.items():
            wait_until(partial(running.prometheus.query, expression), what, every=0.5)
        yield running


@pytest.fixture(scope="module")
def view(cluster: Cluster) -> View:
    """The last seconds, with a burst of requests in them: as many bursts came as it takes to provoke each alert."""
    provoked = [alert for alert in ALL_ALERTS if alert.name in PROVOKED]

    def after_a_burst() -> View | None:
        for pod in cluster.pods:
            pod.engine.submit_requests(BURST)
        wait_until(lambda: cluster.prometheus.query(BURST_IS_OVER), "a burst is over", every=0.2)
        seen = cluster.look(seconds=SECONDS)
        return seen if seen and all(lasts(seen, alert) for alert in provoked) else None

    what = f"scrapes are in time, and these alerts hold: {', '.join(PROVOKED)}"
    seen = wait_until(after_a_burst, what, seconds=PATIENT_SECONDS)
    cluster.stop()
    return seen


@pytest.fixture(scope="module")
def labels(cluster: Cluster) -> dict[str, set[str]]:
    """What the variables' labels are on this stage."""
    return {
        "job": {JOB},
        "namespace": {NAMESPACE},
        "model_name": {pod.model for pod in cluster.pods},
        "pod": {pod.name for pod in cluster.pods},
        "engine": {pod.flavour for pod in cluster.pods},
    }


def lasts(view: View, alert: Alert) -> bool:
    """Return whether the alert's expression has held for a while."""
    # Counted, since the sides of an "or" may take turns, and would be two series of the same labels.
    seconds = SECONDS if alert.name in PASSING else LASTING
    lasting = f"count_over_time(count({alert.expr})[{seconds}s:1s]) >= {seconds}"
    return bool(view.now(alert.expr if alert.wait == "0m" else lasting))


def points(answer: list[Series]) -> dict[tuple[object, ...], float]:
    """Return each value by its series and place: floats add up to others in another order."""
    return {
        (*sorted(series.labels.items()), place): value for series in answer for place, value in enumerate(series.values)
    }


# Panels


@each_question
def test_there_is_an_answer(view: View, question: Question) -> None:
    """Prometheus has data, all of it finite; what shows only faults has none."""
    shows_faults = question.target.panel in EMPTY_WHEN_WELL or question.name in QUIET_WHEN_WELL
    # What is under way comes and goes: a moment without any is no lack of an answer.
    answer = view.ask(question) or ([] if shows_faults else view.ever(question))

    assert bool(answer) != shows_faults
    assert all(series.values and series.finite for series in answer)


@each_question
def test_the_answer_has_its_labels(view: View, question: Question) -> None:
    """Each series has what its legend, its column or its grouping names, and no two lines are called the same."""
    target = question.target
    answer = view.ask(question)
    lines = [legend(target, series.labels) for series in answer]

    assert all(series.labels.get(name) for series in answer for name in promised(target))
    assert target.kind == "table" or len(set(lines)) == len(lines)


@each_question
def test_all_by_name_are_all(view: View, question: Question, labels: dict[str, set[str]]) -> None:
    """Whoever ticks every job, namespace, model and pod sees what "All" shows: each selector is by labels that exist."""
    by_name = {name: any_of(values) for name, values in labels.items() if name != "engine"}

    assert points(view.ask(question, **by_name)) == pytest.approx(points(view.ask(question)))


@each_raw
def test_an_engines_own_metrics_are_its_pods(view: View, question: Question, cluster: Cluster) -> None:
    """They are there for the pods of that engine, and for no other."""
    (flavour,) = set(re.findall(r"\b(vllm|sglang):", question.target.expr))
    of_it = [pod.name for pod in cluster.pods if pod.flavour == flavour]
    others = [pod.name for pod in cluster.pods if pod.flavour != flavour]

    assert view.ask(question, pod=any_of(of_it))
    assert not view.ask(question, pod=any_of(others))


@pytest.mark.parametrize(("dashboard", "title"), COLUMNS)
def test_a_table_has_its_columns(view: View, dashboard: str, title: str) -> None:
    """Each label that has a head comes with some query, and none comes that has no head."""
    of_panel = [each for each in QUESTIONS if (each.target.dashboard, each.target.panel) == (dashboard, title)]
    found = {name for question in of_panel for series in view.ask(question) for name in series.labels}

    assert found == (set() if title in EMPTY_WHEN_WELL else COLUMNS[dashboard, title])


# Variables and annotations


@each_variable
def test_a_variable_offers_what_there_is(view: View, variable: VariableQuery, labels: dict[str, set[str]]) -> None:
    """Every job, namespace, model, pod or engine of the stage, and nothing else."""
    assert view.choices(variable) == labels[variable.variable]


@each_variable
def test_a_variable_follows_those_before_it(view: View, variable: VariableQuery, cluster: Cluster) -> None:
    """What belongs to the one chosen pod's namespace, or model, is offered; nothing for a job that is not there."""
    pod = cluster.pods[0]
    one = {"job": JOB, "namespace": NAMESPACE, "model_name": pod.model, "pod": pod.name, "engine": pod.flavour}
    before = [name for name in one if f"${name}" in variable.query]

    offered = view.choices(variable, **{name: any_of([one[name]]) for name in before})
    assert one[variable.variable] in offered
    assert "model_name" not in before or offered == {one[variable.variable]}
    assert not before or not view.choices(variable, job="nobody")


@each_annotation
def test_an_annotation_can_be_asked_for(view: View, name: str) -> None:
    """The mark of firing alerts is there: some fire here by design. Nothing that was marked is NaN."""
    answer = view.over_time(ANNOTATIONS[name])

    assert answer or "ALERTS" not in ANNOTATIONS[name]
    assert all(series.finite for series in answer)


# Rules


@each_alert
def test_an_alert_is_quiet_unless_provoked(view: View, alert: Alert) -> None:
    """Its expression does not last where all is well, and does where the stage sees to it."""
    assert lasts(view, alert) == (alert.name in PROVOKED)
    assert all(series.finite for series in view.over_time(alert.expr))


@each_rule
def test_a_rule_records(view: View, rule: Rule) -> None:
    """Prometheus has its series, finite, for each model and with the labels by which it is named."""
    level = rule.record.partition(":")[0]
    answer = view.now(rule.record)

    assert answer
    for series in answer:
        assert series.finite
        assert series.labels["namespace"] == NAMESPACE
        assert ("engine" in series.labels) == level.endswith("engine")
    assert len({series.labels["model_name"] for series in answer}) == len(FLAVOURS)


def test_all_rules_are_evaluated(view: View) -> None:
    """Prometheus knows every rule and had no trouble with any."""
    states = {rule["name"]: (rule["health"], rule.get("lastError", "")) for rule in view.rules()}
    names = [rule.record for rule in RULES] + [alert.name for alert in ALL_ALERTS]

    assert states == dict.fromkeys(names, ("ok", ""))


# As a person sees them: drawn by Grafana's own components


def panel(title: str, expression: str, *, kind: str = "stat", unit: str = "none", width: int = 8) -> dict[str, Any]:
    return {
        "type": kind,
        "title": title,
        "gridPos": {"x": 0, "y": 0, "w": width, "h": 4},
        "options": {},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [{"refId": "A", "expr": expression, "instant": True, "format": "table"}],
    }


BAD: Final = {
    "no data": panel("Empty", "vector(1) > 2"),
    "query failed": panel("Failing", "sum(((up)"),
    "unknown unit: parsecs": panel("Strange unit", "vector(1)", unit="parsecs"),
    "shows NaN": panel("Nothing by nothing", "vector(0) / 0", kind="table"),
    "text cut": panel("A title that is much longer than its panel is wide", "vector(1)", width=3),
    "table wider than its panel": panel("Too many columns", "up", kind="table", width=4),
}


def bad_dashboard(folder: Path) -> Path:
    """Write a dashboard with all bad panels, one below the other."""
    panels = [
        each | {"id": number, "gridPos": each["gridPos"] | {"y": 4 * number}}
        for number, each in enumerate(BAD.values())
    ]
    file = folder / "bad.json"
    file.write_text(json.dumps({"uid": "bad", "title": "Bad", "panels": panels}))
    return file


@pytest.fixture(scope="module")
def pictures(view: View, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Picture]:
    """All six, drawn, and the bad one."""
    folder = tmp_path_factory.mktemp("pictures")
    dashboards = [*DASHBOARDS, bad_dashboard(folder)]
    drawn = draw(dashboards, cluster.prometheus.url, folder, seconds=SECONDS, now=view.end, colours=0)
    found = {picture.dashboard: picture for picture in drawn}
    assert all((folder / f"{name}.png").read_bytes().startswith(PNG) for name in found)
    return found


@pytest.mark.parametrize("name", [path.stem for path in DASHBOARDS])
def test_every_panel_shows_something_and_nothing_is_cut(pictures: dict[str, Picture], name: str) -> None:
    """No empty panel, failed query, unknown unit, NaN, cut text or table that is too wide."""
    picture = pictures[name]
    assert picture.panels > 5
    problems = {each for each in picture.problems if each[0] not in EMPTY_WHEN_WELL}
    assert problems - MOMENTARY == set()


@pytest.mark.parametrize("said", BAD)
def test_what_is_amiss_is_said(pictures: dict[str, Picture], said: str) -> None:
    """The viewer finds what a person would stumble over."""
    title = BAD[said]["title"]
    assert [problem for panel, problem in pictures["bad"].problems if panel == title and said in problem]
