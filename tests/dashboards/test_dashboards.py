"""The dashboards are valid, complete and made by the code: the rules of Grafana's dashboard-linter, and ours."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import promql_parser
import pytest

from exporter.telemetry.names import EXTENDED, KV, KV_ENABLED, LORA, OWN, STANDARD, STORAGE
from grafana.boards import BOARDS
from grafana.boards.engine import SGLANG, VLLM
from grafana.boards.kv_events import ROUTER
from grafana.generate import generated
from grafana.names import RUNTIME_JOB
from simulators.versions import SGLANG_PAGES, VLLM_PAGES
from tests.dashboards.targets import (
    Panel,
    Target,
    dashboards,
    families,
    nodes,
    panels,
    selectors,
    substitute,
    targets,
    variable_queries,
)
from tests.harness.documents import ROOT, read
from tests.harness.every import every

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.dashboards.targets import VariableQuery

DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
UNITS: Final = {"none", "short", "s", "reqps", "percentunit", "bytes", "binBps"}
CUSTOM_UNIT: Final = re.compile(r"(count|suffix):\S+")
WINDOWS: Final = {"$__rate_interval", "$__range"}
COUNTER: Final = re.compile(r"_(total|bucket|sum|count)$")
OVER_TIME: Final = {"rate", "increase", "resets", "changes"}
# Of Grafana itself, in addresses of links.
BUILT_IN: Final = re.compile(r"__(rate_interval|range|url_time_range|value\.raw|data\.fields\.\w+)")
USED: Final = re.compile(r"\$\{?((?:__)?[a-z_]+(?:\.\w+)*)")
FOREIGN: Final = {"up", "ALERTS", *ROUTER.values()}
DOCUMENTED: Final = {metric.name for metric in (*OWN, KV_ENABLED, *KV, *LORA, *STORAGE)} | {*STANDARD, *EXTENDED}

ALL: Final = dashboards()
PANELS: Final = panels()
TARGETS: Final = targets()
VARIABLES: Final = variable_queries()


def _of(panel: Panel) -> str:
    return f"{panel.dashboard}:{panel.title}"


each_dashboard = pytest.mark.parametrize("uid", ALL)
each_panel = every("panel", PANELS, _of)
each_target = every("target", TARGETS, lambda target: target.name)
each_variable = every("variable", VARIABLES, lambda variable: variable.name)


def _variable(uid: str, name: str) -> dict[str, Any]:
    (found,) = (variable for variable in ALL[uid]["templating"]["list"] if variable["name"] == name)
    return dict(found)


def _everything(value: object) -> Iterator[tuple[str, object]]:
    """Return every key and value below, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from _everything(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _everything(inner)


def _flat(uid: str) -> list[dict[str, Any]]:
    """Return all panels with the headings of rows."""
    return [panel for top in ALL[uid]["panels"] for panel in (top, *top.get("panels", ()))]


# The dashboard as a whole


def test_six_dashboards() -> None:
    assert list(ALL) == sorted(board.uid for board in BOARDS)
    assert len(ALL) == 6


@each_dashboard
def test_envelope(uid: str) -> None:
    """It can be imported by hand, from a file and from a ConfigMap, by Grafana 10.4 and later."""
    dashboard = ALL[uid]
    assert dashboard["uid"] == uid
    assert dashboard["id"] is None
    assert dashboard["title"].startswith("Kthena / ")
    assert dashboard["description"]
    assert dashboard["schemaVersion"] == 39
    assert dashboard["tags"] == ["kthena"]
    assert dashboard["graphTooltip"] == 1
    assert dashboard["refresh"] == "30s"
    assert dashboard["time"] == {"from": "now-1h", "to": "now"}
    assert "__inputs" not in dict(_everything(dashboard))


@each_dashboard
def test_uneditable(uid: str) -> None:
    assert ALL[uid]["editable"] is False


@each_dashboard
def test_datasources(uid: str) -> None:
    """No data source but the chosen one, and Grafana's own for annotations made by hand."""
    named = [value for key, value in _everything(ALL[uid]) if key == "datasource"]
    assert named
    assert all(source in (DATASOURCE, {"type": "grafana", "uid": "-- Grafana --"}) for source in named)


@each_dashboard
def test_template_datasource(uid: str) -> None:
    variable = _variable(uid, "datasource")
    assert ALL[uid]["templating"]["list"][0] == variable
    assert (variable["type"], variable["query"], variable["label"]) == ("datasource", "prometheus", "Data source")


@each_dashboard
def test_template_job(uid: str) -> None:
    variable = _variable(uid, "job")
    assert (variable["type"], variable["label"], variable["datasource"]) == ("query", "Job", DATASOURCE)
    assert variable["multi"]
    assert variable.get("allValue") == (None if uid == "kthena-engine" else ".+")


@each_dashboard
def test_chain(uid: str) -> None:
    """Each variable is chosen from the series that those before it leave."""
    chain = [query for query in VARIABLES if query.dashboard == uid and query.label]
    names = [query.variable for query in chain]
    assert names in (["job", "namespace", "model_name", "pod"], ["job", "namespace", "pod"])
    for number, query in enumerate(chain):
        assert re.findall(r'(\w+)=~"\$\1"', query.query) == names[:number]
    assert _variable(uid, "filters")["type"] == "adhoc"


@each_variable
def test_on_time_change_reload(variable: VariableQuery) -> None:
    definition = _variable(variable.dashboard, variable.variable)
    assert definition["refresh"] == 2
    assert definition["multi"]
    assert definition["includeAll"]
    assert definition.get("allValue") in {".*", ".+", None}
    assert definition["current"]["value"] == ["$__all"]
    assert definition["datasource"] == DATASOURCE


@each_variable
def test_variable_query(variable: VariableQuery) -> None:
    """It names a metric, so that nobody else's labels are offered."""
    read_by = families(substitute(variable.query))
    assert read_by
    assert set(read_by) <= DOCUMENTED


@each_dashboard
def test_variables_are_defined(uid: str) -> None:
    defined = {variable["name"] for variable in ALL[uid]["templating"]["list"]}
    texts = [value for _, value in _everything(ALL[uid]) if isinstance(value, str)]
    used = {name for text in texts for name in USED.findall(text.replace("$__all", ""))}
    assert {name for name in used if not BUILT_IN.fullmatch(name)} <= defined


@each_dashboard
def test_variables_are_used(uid: str) -> None:
    text = str([ALL[uid]["panels"], [query.query for query in VARIABLES if query.dashboard == uid]])
    for variable in ALL[uid]["templating"]["list"]:
        assert variable["type"] == "adhoc" or f"${variable['name']}" in text or f"${{{variable['name']}" in text


@each_dashboard
def test_annotations(uid: str) -> None:
    """Firing alerts are shown, the others can be switched on, and each is valid PromQL over known metrics."""
    own, alerts, *others = ALL[uid]["annotations"]["list"]
    assert own["builtIn"] == 1
    assert alerts["enable"]
    assert families(substitute(alerts["expr"])) == ["ALERTS"]
    assert len(others) == 3
    for annotation in others:
        assert not annotation["enable"]
        assert set(families(substitute(annotation["expr"]))) <= DOCUMENTED


@each_dashboard
def test_links_to_the_others(uid: str) -> None:
    (link,) = ALL[uid]["links"]
    assert link["type"] == "dashboards"
    assert link["tags"] == ["kthena"]
    assert link["includeVars"]
    assert link["keepTime"]


@each_dashboard
def test_ids(uid: str) -> None:
    ids = [panel["id"] for panel in _flat(uid)]
    assert len(ids) == len(set(ids))


@each_dashboard
def test_titles(uid: str) -> None:
    """Whoever names a panel of a dashboard means one."""
    titles = [panel["title"] for panel in _flat(uid)]
    assert len(titles) == len(set(titles))


@each_dashboard
def test_grid(uid: str) -> None:
    """No panel overlaps another or leaves the grid, before and after a collapsed row is opened."""
    tops = ALL[uid]["panels"]
    for shown in (tops, *(top["panels"] for top in tops if top.get("panels"))):
        places = [panel["gridPos"] for panel in shown]
        assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
        assert not [pair for pair in combinations(places, 2) if _overlap(*pair)]


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


@each_dashboard
def test_rows(uid: str) -> None:
    """What is collapsed says what turns it on."""
    for row in (panel for panel in ALL[uid]["panels"] if panel["type"] == "row"):
        assert not row["collapsed"] or re.search(r"\((needs|--engine) .+\)", row["title"])


# Each panel


@each_panel
def test_panel_title_description(panel: Panel) -> None:
    assert panel.title
    assert len(panel.json["description"]) > 60


@each_panel
def test_panel_names_its_metrics(panel: Panel) -> None:
    """The description ends with the metrics that the panel queries, those and no others."""
    text, _, last = panel.json["description"].rpartition("\n\n")
    assert text.endswith(".")
    queried = dict.fromkeys(name for target in panel.json["targets"] for name in families(substitute(target["expr"])))
    shown = ", ".join(f"`{name}`" for name in queried)
    assert last == f"Metric{'s' if len(queried) > 1 else ''}: {shown}"


@each_panel
def test_panel_datasource(panel: Panel) -> None:
    assert panel.json["datasource"] == DATASOURCE
    assert all(target["datasource"] == DATASOURCE for target in panel.json["targets"])


@each_panel
def test_panel_unit(panel: Panel) -> None:
    config = panel.json["fieldConfig"]
    units = [config["defaults"]["unit"]]
    units += [entry["value"] for part in config["overrides"] for entry in part["properties"] if entry["id"] == "unit"]
    assert all(unit in UNITS or CUSTOM_UNIT.fullmatch(unit) for unit in units)


@each_panel
def test_panel_ref_ids(panel: Panel) -> None:
    references = [target["refId"] for target in panel.json["targets"]]
    assert references
    assert len(references) == len(set(references))


@each_panel
def test_panel_without_data(panel: Panel) -> None:
    """It says why it is empty, in words."""
    assert re.fullmatch(r"[A-Z][\w\s,-]+|No --\w[\w-]+", panel.json["fieldConfig"]["defaults"]["noValue"])


@each_panel
def test_panel_judges_only_where_it_is_a_tile(panel: Panel) -> None:
    """Green, orange and red are for tiles and cells; lines have no thresholds."""
    steps = panel.json["fieldConfig"]["defaults"].get("thresholds", {"steps": []})["steps"]
    judges = any(step["color"] in {"green", "orange", "red"} for step in steps)
    assert not judges or panel.json["type"] == "stat"
    assert judges == (panel.json["options"].get("colorMode") == "background")


@each_panel
def test_panel_links(panel: Panel) -> None:
    """A click leads to one of our dashboards, keeps the time, and sets variables that it has."""
    for part in panel.json["fieldConfig"]["overrides"]:
        for link in (link for entry in part["properties"] if entry["id"] == "links" for link in entry["value"]):
            address = re.fullmatch(r"/d/([\w-]+)\?(.+)&\$\{__url_time_range\}", link["url"])
            assert address, link["url"]
            assert address[1] in ALL
            names = {variable["name"] for variable in ALL[address[1]]["templating"]["list"]}
            kept = re.findall(r"\$\{(\w+):queryparam\}", address[2])
            chosen = re.findall(r"var-(\w+)=", address[2])
            assert "datasource" in kept
            assert {*kept, *chosen} <= names


@each_panel
def test_table_columns(panel: Panel) -> None:
    """Every column that an override is for is one that the table makes."""
    if panel.json["type"] != "table":
        return
    organize = panel.json["transformations"][-1]["options"]
    heads = set(organize["renameByName"].values())
    assert {part["matcher"]["options"] for part in panel.json["fieldConfig"]["overrides"]} <= heads
    assert list(organize["indexByName"]) == list(organize["renameByName"])
    assert organize["excludeByName"]["Time"]


# Each query


@each_target
def test_target_promql(target: Target) -> None:
    expression = substitute(target.expr)
    assert "$" not in expression
    promql_parser.parse(expression)


@each_target
def test_target_job(target: Target) -> None:
    """Every series is chosen by job; only the router has one of its own, and targets are known by their job's name."""
    for selector in selectors(substitute(target.expr, job="chosen")):
        known = selector.startswith(ROUTER["matched"]) or selector == f'up{{job=~"{RUNTIME_JOB}"}}'
        assert known or 'job=~"chosen"' in selector


@each_target
def test_target_rate_interval(target: Target) -> None:
    """A range is Grafana's, or one that the title of a table says; over the whole time only of one instant."""
    windows = set(re.findall(r"\[([^\]]+)\]", target.expr))
    if "(last 5 minutes)" in target.panel:
        assert windows <= {"5m"}
    else:
        assert windows <= WINDOWS
    assert "$__range" not in windows or target.instant or "_over_time" in target.expr
    assert "$__interval" not in target.expr


def name_of(selector: promql_parser.VectorSelector) -> str:
    assert selector.name is not None
    return selector.name


@each_target
def test_target_counter_agg(target: Target) -> None:
    """Counters are never shown as they are, and are added up only after the rate is taken."""
    expression = substitute(target.expr)
    ranged = {
        node.args[0].vector_selector.name
        for node in nodes(expression)
        if isinstance(node, promql_parser.Call) and node.func.name in OVER_TIME
    }
    named = {name_of(node) for node in nodes(expression) if isinstance(node, promql_parser.VectorSelector)}
    assert {name for name in named if COUNTER.search(name)} <= ranged


@each_target
def test_target_division(target: Target) -> None:
    """What is divided by is filtered to be above 0, so that idle is nothing and not NaN."""
    for node in nodes(substitute(target.expr)):
        if isinstance(node, promql_parser.BinaryExpr) and str(node.op) == "/":
            assert re.fullmatch(r"\(.+ > 0\)", str(node.rhs), re.DOTALL)


@each_target
def test_target_quantile(target: Target) -> None:
    """A quantile of nothing is nothing and not NaN."""
    quantiles = len(re.findall(r"histogram_quantile\(", target.expr))
    assert len(re.findall(r"\)\) >= 0", target.expr)) == quantiles


@each_target
def test_target_never_mixes_engines(target: Target) -> None:
    """Engines have different bounds: their buckets are only added up by engine, by pod, or at a bound they share."""
    if re.search(r"kthena:\w+_bucket", target.expr):
        by = re.search(r"sum by \(([\w, ]+)\)", target.expr)
        apart = by is not None and {"engine", "pod"} & set(by[1].split(", "))
        assert apart or 'engine=~"$engine"' in target.expr or 'le="$ttft_slo"' in target.expr
        assert 'engine=~"$engine"' not in target.expr or target.repeat == "engine"


@each_target
def test_target_metrics_exist(target: Target) -> None:
    """What is queried is what the runtime, or an engine of today, has."""
    for name in families(substitute(target.expr)):
        assert name in DOCUMENTED | FOREIGN | set(VLLM.values()) | set(SGLANG.values())
        if name in DOCUMENTED:
            assert f"`{name}`" in read("docs/metrics.md")


# What the dashboards take for granted


@every("name", VLLM.values())
def test_vllm_has(name: str) -> None:
    captured = read("simulators/data/captures/vllm-0.32-lora.prom")
    assert f"\n# TYPE {name} " in captured


@every("name", SGLANG.values())
def test_sglang_has(name: str) -> None:
    assert f"\n# TYPE {name} " in SGLANG_PAGES[-1].text.decode()


@pytest.mark.parametrize("page", [VLLM_PAGES[-1], SGLANG_PAGES[-1]], ids=lambda page: page.engine)
def test_bounds_of_the_first_token(page: Any) -> None:
    """The times that can be asked for are bounds of both engines' histograms."""
    bounds = re.findall(r'time_to_first_token_seconds_bucket\{.*?le="([^"]+)"', page.text.decode())
    offered = {option["value"] for option in _variable("kthena-overview", "ttft_slo")["options"]}
    assert offered <= set(bounds)


# The generator


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The generator and what it makes, apart from the project."""
    shutil.copytree(ROOT / "grafana", tmp_path / "grafana", ignore=shutil.ignore_patterns("viewer", "__pycache__"))
    for name in generated():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def _generate(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONHASHSEED": "random", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "grafana.generate", *arguments]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_deterministic() -> None:
    assert generated() == generated()


def test_check_of_what_is_there(clone: Path) -> None:
    """The files are as the code makes them, whatever the order of sets."""
    done = _generate(clone, "--check")
    assert (done.returncode, done.stderr) == (0, "")


def test_check_of_an_edit(clone: Path) -> None:
    """An edited and a missing file are named, nothing is written, and a run without --check mends both."""
    edited, missing = (clone / f"grafana/dashboards/{uid}.json" for uid in ("kthena-overview", "kthena-pods"))
    text = edited.read_text().replace('"reqps"', '"ops"')
    edited.write_text(text)
    missing.unlink()
    done = _generate(clone, "--check")
    assert done.returncode == 1
    assert "grafana/dashboards/kthena-overview.json" in done.stderr
    assert "grafana/dashboards/kthena-pods.json" in done.stderr
    assert edited.read_text() == text
    assert _generate(clone).returncode == 0
    assert _generate(clone, "--check").returncode == 0


@pytest.mark.parametrize("name", ["dashboards/mine.json", "rules/mine.yml", "alerts/mine.yaml"])
def test_check_of_a_stranger(clone: Path, name: str) -> None:
    """A file that nothing makes is an error: nobody would keep it up to date."""
    (clone / "grafana" / name).write_text("{}")
    done = _generate(clone, "--check")
    assert done.returncode == 1
    assert f"grafana/{name}" in done.stderr
