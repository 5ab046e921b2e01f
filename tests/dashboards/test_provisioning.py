"""How dashboards, rules and alerts come into Grafana and Prometheus: every file agrees with the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import yaml

from tests.dashboards.targets import dashboards
from tests.deploy.manifests import COMPOSE, POD_MONITOR, PROMETHEUS, PROMETHEUS_STATIC
from tests.harness.documents import ROOT, blocks, read

if TYPE_CHECKING:
    from typing import Any

pytestmark = pytest.mark.unit

DASHBOARDS: Final = sorted(dashboards())
DATASOURCES: Final = yaml.safe_load(read("grafana/provisioning/datasources/prometheus.yaml"))
PROVIDERS: Final = yaml.safe_load(read("grafana/provisioning/dashboards/kthena.yaml"))
KUSTOMIZATION: Final = yaml.safe_load(read("grafana/kustomization.yaml"))
RESOURCES: Final = list(yaml.safe_load_all(read("grafana/operator/dashboards.yaml")))
# What `kubectl apply` may write into the annotation that remembers what it applied, with room for the rest.
APPLY_BYTES: Final = 256 * 1024 - 4096


def mounts(service: str) -> dict[str, str]:
    """Return what a service of compose.yaml has mounted: path in the container by path in the repository."""
    volumes = (volume.split(":")[:2] for volume in COMPOSE["services"][service]["volumes"])
    return {str((ROOT / "deploy" / source).resolve().relative_to(ROOT)): target for source, target in volumes}


def test_the_datasource_is_prometheus_at_its_interval() -> None:
    """Its uid is stable, queries go by POST, and its interval is that of all scrapes of deploy/."""
    assert DATASOURCES["apiVersion"] == 1
    (source,) = DATASOURCES["datasources"]
    scrapes = {
        POD_MONITOR["spec"]["podMetricsEndpoints"][0]["interval"],
        *(config["global"]["scrape_interval"] for config in (PROMETHEUS, PROMETHEUS_STATIC)),
    }

    assert (source["type"], source["uid"], source["access"]) == ("prometheus", "prometheus", "proxy")
    assert source["isDefault"]
    assert source["jsonData"]["httpMethod"] == "POST"
    assert {source["jsonData"]["timeInterval"]} == scrapes


def test_the_provider_keeps_the_files_dashboards() -> None:
    """They come from one folder into one, and are not changed in the browser, where they would be overwritten."""
    assert PROVIDERS["apiVersion"] == 1
    (provider,) = PROVIDERS["providers"]

    assert (provider["type"], provider["folder"]) == ("file", "Kthena")
    assert provider["allowUiUpdates"] is False
    assert provider["options"] == {"path": "/var/lib/grafana/dashboards/kthena"}


def test_no_folder_of_provisioning_is_strange_to_grafana() -> None:
    """Grafana reads these two, and logs an error about others."""
    assert sorted(path.name for path in (ROOT / "grafana/provisioning").iterdir()) == ["dashboards", "datasources"]


def test_compose_mounts_what_is_provisioned() -> None:
    """Files lie where the provider, the home page and Prometheus's configuration look for them."""
    grafana, prometheus = mounts("grafana"), mounts("prometheus")
    path = PROVIDERS["providers"][0]["options"]["path"]
    home = COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]

    assert grafana == {"grafana/provisioning": "/etc/grafana/provisioning", "grafana/dashboards": path}
    assert home in {f"{path}/{uid}.json" for uid in DASHBOARDS}
    assert DATASOURCES["datasources"][0]["url"] == "http://prometheus:9090"
    for pattern in PROMETHEUS_STATIC["rule_files"]:
        folder, _, files = pattern.partition("/")
        assert prometheus[f"grafana/{folder}"] == f"/etc/prometheus/{folder}"
        assert list((ROOT / "grafana" / folder).glob(files))


def test_each_dashboard_is_a_config_map() -> None:
    """With the sidecar's label, each small enough for `kubectl apply`, its name the same after each change."""
    options = KUSTOMIZATION["generatorOptions"]
    made = {entry["name"]: entry["files"] for entry in KUSTOMIZATION["configMapGenerator"]}

    assert options["labels"] == {"grafana_dashboard": "1"}
    assert options["disableNameSuffixHash"] is True
    assert made == {uid: [f"dashboards/{uid}.json"] for uid in DASHBOARDS}
    assert all((ROOT / f"grafana/dashboards/{uid}.json").stat().st_size < APPLY_BYTES for uid in DASHBOARDS)


def test_each_dashboard_is_a_resource_of_the_operator() -> None:
    """It refers to the key of its ConfigMap."""
    found = {one["metadata"]["name"]: one for one in RESOURCES}

    assert sorted(found) == DASHBOARDS
    assert {(one["apiVersion"], one["kind"]) for one in RESOURCES} == {
        ("grafana.integreatly.org/v1beta1", "GrafanaDashboard")
    }
    for name, one in found.items():
        assert one["spec"]["configMapRef"] == {"name": name, "key": f"{name}.json"}
        assert one["spec"]["instanceSelector"]["matchLabels"]
        assert one["spec"]["folder"] == PROVIDERS["providers"][0]["folder"]


def test_the_readme_loads_the_rules() -> None:
    """What it tells to put into Prometheus's configuration names both files."""
    (config,) = [
        found for block in blocks(read("grafana/README.md"), "yaml") if "rule_files" in (found := loaded(block.text))
    ]

    assert [name.rpartition("/")[2] for name in config["rule_files"]] == ["kthena.rules.yml", "kthena.alerts.yml"]


def loaded(text: str) -> dict[str, Any]:
    """Return a block of YAML."""
    document: dict[str, Any] = yaml.safe_load(text)
    return document
