"""What the Prometheus Operator makes of the manifests, by its own definitions: one file, for they take long to import."""

from __future__ import annotations

from copy import deepcopy

from tests.deploy.manifests import POD_MONITOR, PROMETHEUS, load
from tests.deploy.published import pod_monitor_errors, prometheus_rule_errors, scrape_config_errors


def test_it_accepts_the_pod_monitor() -> None:
    """It validates, and a misspelt field would not."""
    misspelt = deepcopy(POD_MONITOR)
    misspelt["spec"]["podMetricsEndpoints"][0]["honourLabels"] = False

    assert pod_monitor_errors(POD_MONITOR) == []
    assert pod_monitor_errors(misspelt)


def test_it_accepts_the_rules() -> None:
    """They validate, and a misspelt field would not."""
    document = load("prometheusrule.yaml")
    misspelt = deepcopy(document)
    misspelt["spec"]["groups"][0]["rules"][0]["record_as"] = "x"

    assert prometheus_rule_errors(document) == []
    assert prometheus_rule_errors(misspelt)


def test_the_discovery_is_one_that_prometheus_has() -> None:
    """Its definition of the same settings accepts them."""
    (discovery,) = deepcopy(PROMETHEUS["scrape_configs"][0]["kubernetes_sd_configs"])
    spec = {"kubernetesSDConfigs": [discovery | {"role": discovery["role"].capitalize()}]}
    twin = {"apiVersion": "monitoring.coreos.com/v1alpha1", "kind": "ScrapeConfig", "spec": spec}

    assert scrape_config_errors(twin) == []
