"""Every dashboard is what Grafana accepts: JSON Schema is made of its own types, names come from its own code."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from jsonschema import Draft7Validator

from tests.dashboards.viewer import DASHBOARDS, accepted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Json = dict[str, Any]

# What a Prometheus annotation has besides; each datasource adds its own.
ANNOTATION_FIELDS: Final = ("expr", "step", "textFormat", "titleFormat", "useValueForTime")
# Units that say what stands before or behind a number.
COMPOSED_UNITS: Final = ("suffix:", "prefix:", "count:", "si:", "time:", "currency:", "bool:")


@pytest.fixture(scope="module")
def grafana() -> Json:
    """What Grafana accepts."""
    found = accepted()
    annotation = found["dashboard"]["definitions"]["AnnotationQuery"]["properties"]
    annotation.update({field: {} for field in ANNOTATION_FIELDS})
    return found


@pytest.fixture(params=DASHBOARDS, ids=lambda path: path.stem)
def dashboard(request: pytest.FixtureRequest) -> Json:
    """Each dashboard."""
    path: Path = request.param
    found: Json = json.loads(path.read_text())
    return found


def panels_of(dashboard: Json) -> Iterator[Json]:
    """Yield the panels, those in closed rows among them, but no rows."""
    for panel in dashboard["panels"]:
        yield from panel["panels"] if panel["type"] == "row" else [panel]


def errors(schema: Json, value: object) -> list[str]:
    """Return what a schema refuses, each with its place."""
    found = Draft7Validator(schema).iter_errors(value)
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}" for error in found]


def panel_errors(grafana: Json, panel: Json) -> list[str]:
    """Return what is wrong with the settings of a panel and of its fields."""
    kind = grafana["panels"][panel["type"]]
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    found = errors(kind["options"], panel.get("options", {}))
    if kind["custom"]:
        found += errors(kind["custom"], custom)
    elif custom:
        found.append(f"no custom settings in {panel['type']}: {custom}")
    properties = [each for rule in panel["fieldConfig"]["overrides"] for each in rule["properties"]]
    found += [error for each in properties for error in property_errors(grafana, kind, each["id"], each["value"])]
    return [f"{panel['title']}: {error}" for error in found]


def property_errors(grafana: Json, kind: Json, name: str, value: object) -> list[str]:
    """Return what is wrong with one property of an override, a standard one or `custom.…`."""
    schema = kind["custom"] if name.startswith("custom.") else grafana["dashboard"]
    key = name.removeprefix("custom.")
    if not schema or key not in schema["definitions"]["FieldConfig"]["properties"]:
        return [f"no such property: {name}"]
    return errors({**schema, "$ref": f"#/definitions/FieldConfig/properties/{key}"}, value)


def units_of(panel: Json) -> Iterator[str]:
    """Yield the units that a panel names."""
    settings = panel["fieldConfig"]
    properties = [each for rule in settings["overrides"] for each in rule["properties"]]
    yield from (each["value"] for each in properties if each["id"] == "unit")
    yield from filter(None, [settings["defaults"].get("unit"), panel["options"].get("yAxis", {}).get("unit")])
    yield from filter(None, [panel["options"].get("cellValues", {}).get("unit")])


def test_there_are_six() -> None:
    """A test of nothing would pass."""
    assert len(DASHBOARDS) == 6


def test_the_file_has_the_form_of_a_dashboard(grafana: Json, dashboard: Json) -> None:
    """Nothing is unknown, nothing that must be there is missing."""
    assert errors(grafana["dashboard"], dashboard) == []


def test_every_panel_has_settings_that_it_knows(grafana: Json, dashboard: Json) -> None:
    """Options, field settings and overrides, each in its place."""
    assert [error for panel in panels_of(dashboard) for error in panel_errors(grafana, panel)] == []


def test_every_unit_is_one_that_grafana_knows(grafana: Json, dashboard: Json) -> None:
    """An unknown one would stand behind the number as it is written."""
    units = {unit for panel in panels_of(dashboard) for unit in units_of(panel)}
    assert {unit for unit in units if not unit.startswith(COMPOSED_UNITS)} <= set(grafana["names"]["units"])


def test_every_transformation_matcher_and_reducer_is_one_that_grafana_knows(grafana: Json, dashboard: Json) -> None:
    """Unknown ones do nothing, without a word."""
    known = {name: set(values) for name, values in grafana["names"].items()}
    for panel in panels_of(dashboard):
        options = panel["options"]
        calculations = {*options.get("legend", {}).get("calcs", []), *options.get("reduceOptions", {}).get("calcs", [])}
        assert calculations <= known["reducers"]
        assert {each["id"] for each in panel.get("transformations", [])} <= known["transformations"]
        assert {rule["matcher"]["id"] for rule in panel["fieldConfig"]["overrides"]} <= known["matchers"]


def _leave_inputs(dashboard: Json) -> None:
    dashboard["__inputs"] = [{"name": "DS_PROMETHEUS", "type": "datasource"}]


def _misplace(dashboard: Json) -> None:
    _first(dashboard, "timeseries")["options"]["spanNulls"] = True


def _misspell(dashboard: Json) -> None:
    _first(dashboard, "timeseries")["fieldConfig"]["defaults"]["custom"]["fillOpacitiy"] = 10


def _misuse(dashboard: Json) -> None:
    _first(dashboard, "timeseries")["fieldConfig"]["defaults"]["custom"]["drawStyle"] = "curve"


def _override_nothing(dashboard: Json) -> None:
    rule = {"matcher": {"id": "byName", "options": "x"}, "properties": [{"id": "custom.colour", "value": "red"}]}
    _first(dashboard, "timeseries")["fieldConfig"]["overrides"].append(rule)


def _first(dashboard: Json, kind: str) -> Json:
    return next(panel for panel in panels_of(dashboard) if panel["type"] == kind)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_leave_inputs, "__inputs"),
        (_misplace, "spanNulls"),
        (_misspell, "fillOpacitiy"),
        (_misuse, "curve"),
        (_override_nothing, "custom.colour"),
    ],
)
def test_mistakes_of_others_dashboards_are_found(grafana: Json, spoil: Callable[[Json], None], said: str) -> None:
    """What Grafana passes over in silence is an error here."""
    dashboard = copy.deepcopy(json.loads(DASHBOARDS[0].read_text()))
    spoil(dashboard)
    found = errors(grafana["dashboard"], dashboard)
    found += [error for panel in panels_of(dashboard) for error in panel_errors(grafana, panel)]
    assert [error for error in found if said in error]
