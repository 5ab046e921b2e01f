"""The manifests: valid by their published schemas, the pods of today, and true about this project."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from typing import Final

import pytest
import yaml

from exporter.options import OPTIONS
from tests.deploy.manifests import (
    COMPOSE,
    ENGINE,
    GUIDE,
    NETWORK_POLICY,
    POD,
    POD_MONITOR,
    PROMETHEUS_STATIC,
    ROOT,
    RUNTIME,
    SIDECAR,
    Document,
    flags_of,
    real_engine_instead,
)
from tests.deploy.published import compose_errors, kubernetes_errors

pytestmark = pytest.mark.unit

FLAGS: Final = {flag for option in OPTIONS for flag in option.flags}
VARIABLES: Final = {option.variable for option in OPTIONS}
OTHER_PROGRAMS_FLAGS: Final = {
    "--block-size",
    "--build",
    "--build-arg",
    "--from-literal",
    "--kv-events-config",
    "--served-model-name",
}
OTHER_READERS_VARIABLES: Final = {"ENDPOINT", "POD_NAME", "NAMESPACE", "VLLM_USE_V1"}

# The container as the pods in use today have it; in deploy/ its port has a name besides.
TODAY: Final = yaml.safe_load("""
name: runtime
ports: [{containerPort: 8900}]
image: kthena/runtime:latest
args: [--port, "8900", --engine, vllm, --engine-base-url, "http://localhost:8000", --engine-metrics-path, /metrics,
       --pod, $(POD_NAME).$(NAMESPACE), --model, test-model]
env:
  - {name: ENDPOINT, value: "https://obs.test.com"}
  - {name: RUNTIME_PORT, value: "8900"}
  - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
  - {name: VLLM_USE_V1, value: "1"}
envFrom: [{secretRef: {name: test-secret}}]
readinessProbe: {httpGet: {path: /health, port: 8900}, initialDelaySeconds: 5, periodSeconds: 10}
""")
# What its controller adds for Redis, and what deploy/ adds besides.
REDIS: Final = yaml.safe_load("""
- {name: REDIS_HOST, valueFrom: {configMapKeyRef: {name: redis-config, key: REDIS_HOST, optional: true}}}
- {name: REDIS_PORT, valueFrom: {configMapKeyRef: {name: redis-config, key: REDIS_PORT, optional: true}}}
- {name: REDIS_PASSWORD, valueFrom: {secretKeyRef: {name: redis-secret, key: REDIS_PASSWORD, optional: true}}}
""")
REPLAYS: Final = "KV_EVENTS_REPLAY_ENDPOINT"


def kv_config(words: list[str]) -> Document:
    """Return what an engine is told about KV events."""
    config: Document = json.loads(words[words.index("--kv-events-config") + 1])
    return config


def compose_with_redis() -> Document:
    """Return compose.yaml with a real engine, and what its comments have for Redis taken in."""
    text = (ROOT / "deploy/compose.yaml").read_text()
    document: Document = yaml.safe_load(re.sub(r"(?m)^(  |      )# (?=[A-Z_]+: |redis:|  )", r"\1", text))
    return document | {"services": document["services"] | {"engine": real_engine_instead()["services"]["engine"]}}


# The newest that the schemas know, and the oldest on which restartPolicy of an init container is on by default.
@pytest.mark.parametrize("version", ["1.29", "1.37"])
@pytest.mark.parametrize("document", [SIDECAR, NETWORK_POLICY], ids=["sidecar", "network policy of the guide"])
def test_kubernetes_accepts_the_object(document: Document, version: str) -> None:
    """Every object validates, with unknown fields refused."""
    assert kubernetes_errors(document, version) == []


@pytest.mark.parametrize(
    "document",
    [COMPOSE, real_engine_instead(), compose_with_redis()],
    ids=["embedded engine", "real engine", "real engine and Redis"],
)
def test_compose_accepts_the_file(document: Document) -> None:
    """All ways to run it validate against the Compose Specification."""
    assert compose_errors(document) == []
    assert "image" in document["services"]["engine"]


def test_the_schemas_see_a_misspelt_field() -> None:
    """What Kubernetes or Compose do not know is an error, so the tests above can fail."""
    deployment, compose = deepcopy(SIDECAR), deepcopy(COMPOSE)
    deployment["spec"]["template"]["spec"]["containers"][1]["livenessProb"] = {}
    compose["services"]["runtime"]["port"] = []

    assert kubernetes_errors(deployment, "1.37")
    assert compose_errors(compose)


def test_the_runtime_container_is_the_one_in_use() -> None:
    """Arguments, variables, secret and readiness probe are those of today's pods, unchanged; KV events come on top."""
    unnamed = [{key: value for key, value in port.items() if key != "name"} for port in RUNTIME["ports"]]
    count = len(TODAY["env"])

    assert {key: RUNTIME[key] for key in TODAY} | {"ports": unnamed, "env": RUNTIME["env"][:count]} == TODAY
    assert RUNTIME["env"][count:-1] == REDIS
    assert RUNTIME["env"][-1]["name"] == REPLAYS


def test_the_runtime_container_has_no_privileges() -> None:
    """It runs as a number that is not root, on a file system it cannot write but for its volumes."""
    security = RUNTIME["securityContext"]

    assert security["runAsNonRoot"]
    assert security["runAsUser"] == POD["spec"]["securityContext"]["fsGroup"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}


def test_the_probes_ask_the_runtime_alone() -> None:
    """They ask /health at the runtime's own port, not /ready, which is about the engine too."""
    engine, runtime = (container["ports"][0]["containerPort"] for container in (ENGINE, RUNTIME))

    assert engine != runtime
    for probe in ("readinessProbe", "livenessProbe"):
        assert RUNTIME[probe]["httpGet"] == {"path": "/health", "port": runtime}


def test_the_runtime_is_told_the_name_the_engine_serves() -> None:
    """--model is the engine's --served-model-name, and the adapters lie at one path in both containers."""
    served = ENGINE["args"][ENGINE["args"].index("--served-model-name") + 1]
    shared = [{mount["name"]: mount["mountPath"] for mount in one["volumeMounts"]} for one in (ENGINE, RUNTIME)]

    assert flags_of(RUNTIME["args"])["--model"] == served
    assert shared[0]["models"] == shared[1]["models"]


def test_the_engine_publishes_where_the_runtime_listens() -> None:
    """Events at the runtime's default, replays where it is told, in blocks of the router's size; in Compose too."""
    config, words = kv_config(ENGINE["args"]), ENGINE["args"]
    default = next(option.default for option in OPTIONS if option.name == "kv_endpoint")
    services = compose_with_redis()["services"]
    told = services["runtime"]["environment"]

    assert config["endpoint"].replace("*", "localhost") == default
    assert config["replay_endpoint"].replace("*", "localhost") == RUNTIME["env"][-1]["value"]
    assert words[words.index("--block-size") + 1] == "16"
    assert kv_config(services["engine"]["command"]) == config
    assert told["KV_EVENTS_ENDPOINT"] == config["endpoint"].replace("*", "engine")
    assert told[REPLAYS] == config["replay_endpoint"].replace("*", "engine")
    assert told["REDIS_HOST"] in services


def test_the_pod_monitor_finds_the_pod() -> None:
    """It selects labels and a port name that the pod has, and gives up before the next scrape."""
    (endpoint,) = POD_MONITOR["spec"]["podMetricsEndpoints"]

    assert POD_MONITOR["spec"]["selector"]["matchLabels"].items() <= POD["metadata"]["labels"].items()
    assert endpoint["port"] == RUNTIME["ports"][0]["name"]
    assert int(endpoint["scrapeTimeout"].rstrip("s")) < int(endpoint["interval"].rstrip("s"))


def test_the_network_policy_of_the_guide_fits_the_pod() -> None:
    """It selects the pod, names the runtime's port, and leaves the engine's open."""
    rules = NETWORK_POLICY["spec"]["ingress"]
    ports = [port["port"] for rule in rules for port in rule["ports"]]

    assert NETWORK_POLICY["spec"]["podSelector"]["matchLabels"].items() <= POD["metadata"]["labels"].items()
    assert ports == [RUNTIME["ports"][0]["name"], ENGINE["ports"][0]["containerPort"]]


def test_compose_joins_what_belongs_together() -> None:
    """The runtime asks the engine for the model it serves, and Prometheus asks the runtime."""
    services = COMPOSE["services"]
    flags = flags_of(services["runtime"]["command"])
    (target,) = PROMETHEUS_STATIC["scrape_configs"][0]["static_configs"][0]["targets"]

    assert flags["--engine-base-url"] == "http://engine:8000"
    assert target == f"runtime:{services['runtime']['environment']['RUNTIME_PORT']}"
    assert (ROOT / "deploy" / services["prometheus"]["volumes"][0].partition(":")[0]).is_file()
    for engine in (services["engine"], real_engine_instead()["services"]["engine"]):
        assert flags["--model"] in engine["command"]


@pytest.mark.parametrize(
    "words", [RUNTIME["args"], COMPOSE["services"]["runtime"]["command"]], ids=["sidecar", "compose"]
)
def test_every_flag_is_one_of_the_runtime(words: list[str]) -> None:
    """No manifest uses a flag that the table of options lacks."""
    assert flags_of(words).keys() <= FLAGS


def test_every_flag_of_the_guide_exists() -> None:
    """No flag in the text is unknown to the runtime, but for those of other programs."""
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", GUIDE)) <= FLAGS | OTHER_PROGRAMS_FLAGS


def test_every_variable_has_a_reader() -> None:
    """No manifest sets a variable that nothing reads."""
    sidecar = {variable["name"] for variable in RUNTIME["env"]}
    compose = compose_with_redis()["services"]["runtime"]["environment"].keys()

    assert sidecar | compose <= VARIABLES | OTHER_READERS_VARIABLES


def test_the_guide_names_every_file() -> None:
    """Whoever opens deploy/ finds each file explained, and each link leads somewhere."""
    files = {path.name for path in (ROOT / "deploy").iterdir() if path.suffix in {".yaml", ".yml"}}
    links = re.findall(r"\]\((\.\./[^)]+)\)", GUIDE)

    assert {name for name in files if f"](../deploy/{name})" not in GUIDE} == set()
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
