"""Recording rules and alerts: accepted and tested by the real promtool, made of what there is, and explained."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from exporter.telemetry.names import EXTENDED, KV, KV_ENABLED, LORA, OWN, STANDARD, STORAGE
from grafana import alert_rules
from grafana.alert_rules import ALERTS, SEVERITIES
from grafana.alerting import ALERTS_FILE, OPERATOR_FILE, RULES_FILE, RUNBOOKS, files, runbook
from grafana.recording_rules import RULES, SLOW_SECONDS
from simulators.misbehaving.engine import BadEngine
from simulators.ports import free_port
from simulators.versions import SGLANG_PAGES, VLLM_PAGES
from simulators.waiting import PATIENCE
from tests.dashboards.promtool_cases import CASES, alert_cases, check_rules, record_cases, run
from tests.dashboards.targets import dashboards, nodes
from tests.deploy.manifests import ENGINE, POD_MONITOR, PROMETHEUS, PROMETHEUS_STATIC, load
from tests.harness.documents import ROOT, blocks, cells, code, read
from tests.harness.every import every
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from pathlib import Path

    from grafana.alert_rules import Alert
    from grafana.recording_rules import Rule

pytestmark = pytest.mark.slow

ALL: Final = {alert.name: alert for group in ALERTS.values() for alert in group}
RECORDS: Final = {rule.record: rule for rule in RULES}
EXPRESSIONS: Final = {name: alert.expr for name, alert in ALL.items()} | {
    name: rule.expr for name, rule in RECORDS.items()
}
OWN_METRICS: Final = {metric.name for metric in (*OWN, KV_ENABLED, *KV, *LORA, *STORAGE)}
KNOWN: Final = {"up", *OWN_METRICS, *STANDARD, *EXTENDED, *RECORDS}
SUFFIX: Final = re.compile(r"_(bucket|sum|count)$")
# What Prometheus itself adds, and what the recording rules keep.
TARGET: Final = {"job", "instance", "namespace", "pod"}
OF_THE_ENGINE: Final = {"le", "model_name", "engine"}
PAGES: Final = sorted(path.stem for path in (ROOT / "docs/runbooks").glob("*.md") if path.stem != "README")

each_alert = pytest.mark.parametrize("alert", ALL.values(), ids=lambda alert: alert.name)
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.record)
each_expression = every("name", EXPRESSIONS)


def groups(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(read(name))["groups"]
    return found


def waiting(alert: Alert) -> int:
    """Return for how many minutes an alert must last."""
    return int(alert.wait.removesuffix("m"))


def vectors(expr: str) -> list[Any]:
    """Return the selectors of an expression."""
    return [node for node in nodes(expr) if isinstance(node, promql_parser.VectorSelector)]


def alternatives(matcher: Any) -> list[str]:
    """Return the values that a matcher names."""
    return str(matcher.value).split("|")


def label_values() -> dict[tuple[str, str], set[str]]:
    """Return the values of labels that docs/metrics.md lists, by metric and label."""
    found: dict[tuple[str, str], set[str]] = {}
    for table in re.split(r"\n(?!\|)", read("docs/metrics.md")):
        if table.lstrip("\n").startswith("| metric | label | values |"):
            for metrics, label, values in (map(code, row) for row in cells(table, "metric", "label", "values")):
                found |= {(metric, label[0]): set(values) for metric in metrics}
    return found


def counted(name: str) -> list[Any]:
    """Return the selectors that `increase()` is applied to."""
    calls = (node for node in nodes(EXPRESSIONS[name]) if isinstance(node, promql_parser.Call))
    return [call.args[0].vector_selector for call in calls if call.func.name == "increase"]


# The files


@pytest.mark.parametrize("name", files())
def test_the_files_are_as_the_code_makes_them(name: str) -> None:
    """What is committed is what `make dashboards` writes."""
    assert read(name) == files()[name]


@pytest.mark.parametrize(("name", "count"), [(RULES_FILE, len(RULES)), (ALERTS_FILE, len(ALL))])
def test_promtool_accepts_the_file(name: str, count: int) -> None:
    """Every rule of it, without advice."""
    status, said = check_rules(ROOT / name)

    assert status == 0, said
    assert f"{count} rules found" in said


def test_promtool_refuses_what_is_wrong(tmp_path: Path) -> None:
    """So that the test above can fail."""
    broken = tmp_path / "broken.yml"
    broken.write_text(read(ALERTS_FILE).replace("== 0", "= 0"))

    assert check_rules(broken)[0] != 0


def test_the_operators_file_has_the_same_groups() -> None:
    """deploy/prometheusrule.yaml holds both files, and nothing else."""
    document = load("prometheusrule.yaml")

    assert document["spec"] == {"groups": [*groups(RULES_FILE), *groups(ALERTS_FILE)]}
    assert document["metadata"]["labels"].items() >= POD_MONITOR["metadata"]["labels"].items()


def test_names_are_unique_and_of_the_form() -> None:
    """Alerts are called Kthena…, recording rules level:metric:operation, groups kthena-…, in quotes where it matters."""
    names = [*ALERTS, *ALL, *RECORDS]

    assert len(names) == len(set(names)) == len(ALERTS) + sum(map(len, ALERTS.values())) + len(RULES)
    assert all(re.fullmatch(r"Kthena[A-Z]\w+", name) for name in ALL)
    assert all(re.fullmatch(r"[a-z_]+:kthena_[a-z0-9_]+:[a-z0-9_]+", name) for name in RECORDS)
    assert read(RULES_FILE).count("- record: ") == sum(f'- record: "{name}"\n' in read(RULES_FILE) for name in RECORDS)


# What promtool says of them


@each_alert
def test_the_alert_fires_and_does_not(alert: Alert, tmp_path: Path) -> None:
    """It has cases of both, and all of them hold."""
    cases = alert_cases(alert.name)
    checks = [check for case in cases for check in case["alert_rule_test"]]

    assert any(check["exp_alerts"] for check in checks), "no case in which it fires"
    assert any(not any(check["exp_alerts"] for check in case["alert_rule_test"]) for case in cases), "always fires"
    assert run(cases, tmp_path) == (0, f"Unit Testing:  {tmp_path}/cases.yml\n  SUCCESS\n\n")


@pytest.mark.parametrize(
    ("alert", "minutes"),
    [(alert, wait) for alert in ALL.values() for wait in (waiting(alert) - 1, waiting(alert) + 1) if wait >= 0],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_alert_waits_as_long_as_it_says(alert: Alert, minutes: int, tmp_path: Path) -> None:
    """One that waits a minute more or less fails its cases: they know the minute in which it fires."""
    assert run(alert_cases(alert.name), tmp_path, waits={alert.name: f"{minutes}m"})[0] != 0


@each_rule
def test_the_rule_has_its_value(rule: Rule, tmp_path: Path) -> None:
    """Over several pods it is what somebody computed by hand."""
    cases = record_cases(rule.record)

    assert any(check["exp_samples"] for case in cases for check in case["promql_expr_test"]), "no value is expected"
    assert run(cases, tmp_path)[0] == 0, run(cases, tmp_path)[1]


@every("rule", RULES, lambda rule: rule.record)
def test_the_rule_spans_the_time_it_is_named_by(rule: Rule) -> None:
    """A steady load has the same rate over any window, so its value alone would not tell."""
    named = set(re.findall(r"(?:rate|increase)(\d+[mh])$", rule.record))

    assert set(re.findall(r"\[(\w+)\]", rule.expr)) == named


def test_nothing_recorded_is_not_a_number(tmp_path: Path) -> None:
    """The whole file holds; without traffic everything is 0 or not there."""
    cases = CASES["kthena-rules.test.yml"]["tests"]
    idle = [check["expr"] for case in cases if "without traffic" in case["name"] for check in case["promql_expr_test"]]

    assert '{__name__=~"namespace_model_name.*"} != 0' in idle
    assert run(cases, tmp_path)[0] == 0, run(cases, tmp_path)[1]


def test_the_cases_are_of_what_there_is() -> None:
    """No case is left of an alert or a rule that went, and the groups are evaluated in their order."""
    cases = [case for document in CASES.values() for case in document["tests"]]
    tested = {check["alertname"] for case in cases for check in case.get("alert_rule_test", ())}
    recorded = {
        check["expr"] for case in cases for check in case.get("promql_expr_test", ()) if "{" not in check["expr"]
    }
    orders = [document["group_eval_order"] for document in CASES.values() if "group_eval_order" in document]

    assert tested == set(ALL)
    assert recorded == set(RECORDS)
    assert orders == [["kthena-rules", *ALERTS]] * len(ALERTS)


# What they are made of


@each_expression
def test_each_series_is_known(name: str) -> None:
    """It is a documented metric, a series of one, another rule's, or Prometheus's own."""
    found = {vector.name for vector in vectors(EXPRESSIONS[name])}

    assert found
    assert {metric for metric in found if metric not in KNOWN and SUFFIX.sub("", metric) not in KNOWN} == set()


@each_expression
def test_each_label_value_is_listed(name: str) -> None:
    """A value that an expression looks for is one that docs/metrics.md has, so that it can be there at all."""
    listed = label_values()
    for vector in vectors(EXPRESSIONS[name]):
        for matcher in vector.matchers.matchers:
            if vector.name in OWN_METRICS and matcher.name != "metric":
                assert set(alternatives(matcher)) <= listed[vector.name, matcher.name]
            elif matcher.name == "metric":
                assert set(alternatives(matcher)) <= set(STANDARD)


@pytest.fixture(scope="module")
def fresh_page() -> dict[str, list[dict[str, str]]]:
    """Return the labels of all series of a runtime that has just started and found nobody, by name."""
    redis, events = f"redis://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}"
    with (
        BadEngine("refused") as nobody,
        Runtime(nobody.url, variables={"REDIS_URL": redis, "KV_EVENTS_ENDPOINT": events}) as runtime,
    ):
        page = runtime.session.get(f"{runtime.url}/metrics", timeout=PATIENCE).text
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


@every("name", [name for name in ALL if counted(name)])
def test_what_is_counted_is_there_from_the_start(name: str, fresh_page: dict[str, list[dict[str, str]]]) -> None:
    """A real runtime shows every value that `increase()` waits for at once: the first event would be missed otherwise."""
    for vector in counted(name):
        for matcher in vector.matchers.matchers:
            there = {labels[matcher.name] for labels in fresh_page[vector.name]}
            assert set(alternatives(matcher)) <= there


@every("alert", ALL.values(), lambda alert: alert.name)
def test_the_alert_says_what_its_series_have(alert: Alert) -> None:
    """Labels in its texts are there whenever it fires, but for an address's variables."""
    texts = f"{alert.summary} {alert.description}"
    used = set(re.findall(r"\$labels\.(\w+)", texts))
    fired = [
        one for case in alert_cases(alert.name) for check in case["alert_rule_test"] for one in check["exp_alerts"]
    ]

    assert all(used <= set(one["exp_labels"]) for one in fired)
    assert not any(
        re.search(r"\{\{|\}\}|<no value>|%!", text) for one in fired for text in one["exp_annotations"].values()
    )


@every("alert", ALL.values(), lambda alert: alert.name)
def test_the_alert_is_complete(alert: Alert) -> None:
    """A severity, one line of summary without the value, a description, and where to read on."""
    (written,) = (rule for group in groups(ALERTS_FILE) for rule in group["rules"] if rule["alert"] == alert.name)

    assert written["labels"] == {"severity": alert.severity}
    assert alert.severity in SEVERITIES
    assert "$value" not in alert.summary
    assert alert.summary.endswith(".")
    assert alert.description.endswith(".")
    assert written["annotations"]["runbook_url"] == f"{RUNBOOKS}/{alert.name}.md"
    assert RUNBOOKS.endswith("/docs/runbooks")


@every("alert", [alert for alert in ALL.values() if alert.dashboard], lambda alert: alert.name)
def test_the_alert_leads_to_a_dashboard(alert: Alert) -> None:
    """The dashboard is there, and has the variables that the address sets."""
    assert alert.dashboard is not None
    address = urlsplit(alert_rules.DASHBOARDS[alert.dashboard])
    dashboard = dashboards()[address.path.removeprefix("/d/")]
    variables = {f"var-{variable['name']}" for variable in dashboard["templating"]["list"]}

    assert dashboard["uid"] == alert.dashboard
    assert {name for name, _ in parse_qsl(address.query)} <= variables


# What they take from the manifests and the engines


def test_the_job_is_that_of_the_manifests() -> None:
    """Prometheus's own, and the operator's, which is the PodMonitor's namespace and name."""
    (matcher,) = vectors(ALL["KthenaRuntimeDown"].expr)[0].matchers.matchers
    jobs = [config["scrape_configs"][0]["job_name"] for config in (PROMETHEUS, PROMETHEUS_STATIC)]

    for job in (*jobs, f"models/{POD_MONITOR['metadata']['name']}"):
        assert re.fullmatch(matcher.value, job)
    assert not re.fullmatch(matcher.value, "kthena-runtime-canary")


def test_an_engine_has_as_long_to_start_as_its_pod_gives_it() -> None:
    """The alert's patience is the startupProbe's."""
    probe = ENGINE["startupProbe"]

    assert probe["failureThreshold"] * probe["periodSeconds"] == alert_rules._STARTUP_MINUTES * 60


@pytest.mark.parametrize("page", [VLLM_PAGES[-1], SGLANG_PAGES[-1]], ids=["vllm", "sglang"])
def test_the_objective_is_a_bound_of_the_buckets(page: Any) -> None:
    """Both engines count the first tokens that come in time."""
    bounds = re.findall(rb'time_to_first_token_seconds_bucket\{[^}]*le="([^"]+)"', page.text)

    assert f"{SLOW_SECONDS:.1f}".encode() in bounds


# What is written about them


def test_each_alert_has_a_runbook() -> None:
    """And each runbook an alert."""
    assert sorted(ALL) == PAGES
    assert all((ROOT / runbook(name)).is_file() for name in ALL)


@every("name", PAGES)
def test_the_runbook_has_its_parts(name: str) -> None:
    """Meaning, impact, diagnosis, mitigation, with something to run in it."""
    text = read(runbook(name))
    parts = re.split(r"(?m)^## ", text)

    assert text.startswith(f"# {name}\n")
    assert [part.partition("\n")[0] for part in parts[1:]] == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    assert all(len(part.partition("\n")[2].strip()) > 40 for part in parts[1:])
    assert blocks(parts[3], "sh") or blocks(parts[3], "promql")


def runbook_queries() -> list[str]:
    """Return the queries of the runbooks, one a line."""
    found = (block.text.splitlines() for name in PAGES for block in blocks(read(runbook(name)), "promql"))
    return [line for lines in found for line in lines]


@every("query", runbook_queries())
def test_the_runbooks_queries_can_be_asked(query: str) -> None:
    """Each is PromQL over series that there are, with labels that they have."""
    described = {metric.name: set(metric.labels) for metric in (*OWN, KV_ENABLED, *KV, *LORA, *STORAGE)}
    for vector in vectors(query):
        labels = {matcher.name for matcher in vector.matchers.matchers}
        family = vector.name if vector.name in KNOWN else SUFFIX.sub("", vector.name)
        assert family in KNOWN
        assert labels <= TARGET | described.get(family, OF_THE_ENGINE)


def test_the_list_of_runbooks_is_that_of_the_alerts() -> None:
    """In order, with severity and time, and a sentence each; all severities are explained."""
    text = read("docs/runbooks/README.md")
    rows = cells(text, "alert", "severity", "after", "fires when")

    assert [row[:3] for row in rows] == [
        [f"[{alert.name}]({alert.name}.md)", alert.severity, alert.wait] for alert in ALL.values()
    ]
    assert all(row[3] for row in rows)
    assert all(f"`{severity}`: " in text for severity in SEVERITIES)
    assert f"{len(ALL)} alerts" in read("CHANGELOG.md")


def test_each_recording_rule_is_listed() -> None:
    """grafana/README.md has them in order, each with what it is."""
    rows = cells(read("grafana/README.md"), "recorded", "is")

    assert [code(row[0]) for row in rows] == [[name] for name in RECORDS]
    assert all(row[1] for row in rows)


def test_the_runbooks_name_the_manifests_containers() -> None:
    """The commands are for the pod of deploy/sidecar.yaml."""
    text = "".join(read(runbook(name)) for name in PAGES)

    assert set(re.findall(r"(?<=llama-0 -c )(\S+)", text)) == {"runtime", ENGINE["name"]}
    assert set(re.findall(r"port-forward llama-0 (\d+)|localhost:(\d+)", text)) == {("8900", ""), ("", "8900")}


def test_the_operators_file_is_in_the_guide() -> None:
    """Whoever looks for alerts in docs/deployment.md finds them."""
    assert f"](../{OPERATOR_FILE})" in read("docs/deployment.md")
