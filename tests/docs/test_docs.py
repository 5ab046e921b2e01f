"""The documents say what the code does: every flag, metric, reason, route and link, and no others."""

from __future__ import annotations

import json
import re
import shlex
from itertools import pairwise, product
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest
import yaml

from exporter.api.app import _METHODS, ROUTES
from exporter.api.codes import CODES
from exporter.api.lora import LoadForm, UnloadForm, _shown
from exporter.api.models import DownloadForm
from exporter.assembly import Parts, _add_kv
from exporter.cli import build_parser
from exporter.kv import diagnosis
from exporter.kv.blockhash import hash_blocks
from exporter.kv.decode import Drop
from exporter.kv.events import LABELS
from exporter.kv.pump import REASONS
from exporter.options import OPTIONS
from exporter.page.errors import Reason
from exporter.page.parse import parse_page
from exporter.page.repairs import Repair
from exporter.settings import KV_ENGINES, resolve
from exporter.standard.rules import ENGINE_ALIASES, builtin_engines, load_rules
from exporter.standard.twins import standardize
from exporter.telemetry.downloads import OUTCOMES as DOWNLOAD_OUTCOMES
from exporter.telemetry.downloads import SCHEMES
from exporter.telemetry.names import EXTENDED, KV, KV_ENABLED, LORA, OWN, STANDARD, STORAGE
from lora import codes as lora_codes
from lora.adapter import State, Status
from lora.watcher import RECONCILES
from lora.workers import OPERATIONS as LORA_OPERATIONS
from lora.workers import OUTCOMES
from storage import codes as storage_codes
from storage import errors as storage_errors
from storage.cli import main as downloader
from storage.cli.display import FORMS
from storage.request.config import _KEYS, _VARIABLES
from storage.request.retries import Retry
from storage.supervisor import status as storage_status
from storage.supervisor.status import JobStatus
from tests.harness.documents import DOCUMENTS, ROOT, anchors, blocks, cells, code, links, read, section

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from exporter.options import Option
    from exporter.standard.rules import Source

pytestmark = pytest.mark.unit

README: Final = read("README.md")
CONFIGURATION: Final = read("docs/configuration.md")
DOWNLOADS: Final = read("docs/downloads.md")
ERRORS: Final = read("docs/errors.md")
ENGINES: Final = read("docs/engines.md")
HTTP_API: Final = read("docs/http-api.md")
KV_EVENTS: Final = read("docs/kv-events.md")
LORA_PAGE: Final = read("docs/lora.md")
METRICS: Final = read("docs/metrics.md")
OPERATIONS: Final = read("docs/operations.md")
RECORDS: Final = sorted(path.name for path in (ROOT / "docs/adr").glob("[0-9]*.md"))

# The metrics of each section of docs/metrics.md that has a table of them, in order.
METRIC_SECTIONS: Final = {
    "The runtime's own metrics": [own for own in OWN if own not in (KV_ENABLED, *KV)],
    "Metrics of KV events": [KV_ENABLED, *KV],
    "Metrics of LoRA adapters": list(LORA),
    "Metrics of downloads": list(STORAGE),
}
KINDS: Final = {rule.name: rule.kind for rule in load_rules("vllm").rules}
FLAGGED: Final = [option for option in OPTIONS if option.flags]
UNFLAGGED: Final = [option for option in OPTIONS if not option.flags]
DOWNLOADER_FLAGS: Final = {flag for flags, _ in downloader._FLAGS for flag in flags}
FLAGS: Final = {flag for option in OPTIONS for flag in option.flags} | {"-h", "--help", "--version"} | DOWNLOADER_FLAGS
STORAGE_VARIABLES: Final = {name for names in _VARIABLES.values() for name in names}
# Routes as people write them: Falcon's converters are left out.
SHOWN_ROUTES: Final = {re.sub(r":\w+}", "}", route): method for route, method in ROUTES.items()}
# Any status may stand for 503.
RETRIES: Final = {*Retry, "http_503"}
# Flags of other programs that the documents may name.
FOREIGN_FLAGS: Final = {
    "bench": {"--check", "--json", "--quick"},
    "curl": {"--compressed"},
    "docker": {"--build", "--build-arg"},
    "kubectl": {"--from-literal", "--previous"},
    "llama.cpp": {"--metrics"},
    "lmdeploy": {"--disable-metrics"},
    "ray": {"--metrics-export-port"},
    "redis-cli": {"--pattern", "--scan"},
    "sglang": {
        "--enable-metrics",
        "--enable-metrics-for-all-schedulers",
        "--enable-lora",
        "--enable-priority-scheduling",
        "--kv-events-config",
        "--model-path",
        "--page-size",
        "--smg-http-sidecar-port",
    },
    "triton": {"--metrics-config"},
    "vllm": {
        "--api-server-count",
        "--block-size",
        "--disable-log-stats",
        "--enable-lora",
        "--kv-events-config",
        "--max-lora-rank",
        "--max-loras",
        "--served-model-name",
        "--show-hidden-metrics-for-version",
    },
}
# What each engine's section of docs/engines.md is called.
SECTIONS: Final = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "trtllm": "TensorRT-LLM",
    "lmdeploy": "LMDeploy",
    "tgi": "Text Generation Inference",
    "llamacpp": "llama.cpp",
    "mindie": "MindIE",
    "dynamo": "NVIDIA Dynamo",
    "ray": "Ray Serve LLM",
}


def in_code(text: str) -> str:
    """Return a text as it stands in a cell, empty for nothing."""
    return f"`{text}`" if text else ""


def named(option: Option) -> str:
    return ", ".join(map(in_code, option.flags))


def default(option: Option) -> str:
    return "required" if option.required else in_code(option.default or "") or "none"


def test_configuration_has_each_option_as_it_is() -> None:
    """The tables are the one of the code: same rows, same order, same words."""
    flagged = [
        [
            named(option),
            in_code(option.variable or ""),
            in_code(option.metavar or "") or "switch",
            default(option),
            option.help,
        ]
        for option in FLAGGED
    ]
    unflagged = [
        [in_code(option.variable or ""), ", ".join(map(in_code, option.older)), default(option), option.help]
        for option in UNFLAGGED
    ]

    assert cells(CONFIGURATION, "flag", "variable", "value", "default", "meaning") == flagged
    assert cells(CONFIGURATION, "variable", "older names", "default", "meaning") == unflagged


@pytest.mark.parametrize(
    ("head", "options"),
    [
        pytest.param("value", {option.metavar: option for option in OPTIONS if option.metavar}, id="flags"),
        pytest.param("variable", {option.variable: option for option in UNFLAGGED}, id="variables"),
    ],
)
def test_configuration_says_what_each_value_may_be(head: str, options: dict[str, Option]) -> None:
    """What is called accepted is accepted by every option of that kind, the rest refused."""
    rows = [[code(cell) for cell in row] for row in cells(CONFIGURATION, head, "what it may be")]

    assert {value for values, *_ in rows for value in values} == set(options)
    for values, _, accepted, refused in rows:
        for parse in (options[value].parse for value in values):
            for text in accepted:
                parse(text)
            for text in refused:
                with pytest.raises(ValueError, match="must"):
                    parse(text)


def test_configuration_has_each_variable_of_downloads() -> None:
    """With the names that stand in for it, and the key that a request has for it."""
    rows = cells(CONFIGURATION, "variable", "also read", "key in `config`", "meaning")

    assert [(*code(row[0]), *code(row[1])) for row in rows] == list(_VARIABLES.values())
    assert [code(row[2]) for row in rows] == [[key] for key in _VARIABLES]
    assert {key for row in rows for key in code(row[2])} == set(_KEYS)


def test_the_downloader_has_its_flags_and_defaults() -> None:
    """The table of downloads.md is that of the parser: same flags, same order, same defaults."""
    rows = cells(DOWNLOADS, "flag", "value", "default", "meaning")
    shown = [
        (
            list(flags),
            [] if options.get("action") == "store_true" else [options.get("metavar", "FORM")],
            "required" if options.get("required") else options.get("default") or None,
            options.get("action") == "append",
        )
        for flags, options in downloader._FLAGS
    ]

    assert [code(row[0]) for row in rows] == [flags for flags, *_ in shown]
    assert [code(row[1]) for row in rows] == [value for _, value, *_ in shown]
    for row, (flags, value, default, repeatable) in zip(rows, shown, strict=True):
        text = f"{default:g}" if isinstance(default, float) else str(default)
        assert row[2].strip("`") == (text if default else "none" if value else ""), flags
        assert ("repeatable" in row[3]) == repeatable, flags
    (forms,) = (code(row[3]) for row in rows if row[0] == "`--progress`")
    assert set(forms) == set(FORMS)


def test_every_code_is_in_the_reference() -> None:
    """With its status, its exit code, whether a retry helps, and what to do: the tables of the code, word for word."""
    rows = cells(ERRORS, "code", "HTTP status", "exit code", "a retry helps", "what to do")

    assert rows == [
        [
            f"`{row.name}`",
            str(int(row.status)),
            str(row.exit_code or ""),
            "yes" if row.retry_helps else "no",
            row.advice,
        ]
        for row in CODES.values()
    ]


def test_the_downloaders_exit_codes_have_their_causes() -> None:
    """Each exit code with the codes of its errors, each of these once."""
    rows = cells(DOWNLOADS, "exit code", "codes", "what to do")
    ends = {int(row[0]): code(row[1]) for row in rows}
    exits = {row.name: row.exit_code for row in storage_codes.CODES.values()}

    assert {name: end for end, names in ends.items() if end != 143 for name in names} == exits
    assert set(ends) == {0, 143, *exits.values()}
    assert all(row[2] for row in rows)


def test_every_error_has_a_row_of_its_own() -> None:
    """A worker reports its error by this word, and the supervisor makes the error of it again."""
    assert {error.row.name for error in storage_errors._BY_CODE.values()} == set(storage_codes.CODES)
    assert len(storage_errors._BY_CODE) == len(list(storage_errors._tree(storage_errors.StorageError)))


def test_what_the_engine_says_is_explained() -> None:
    """The table of lora.md has every code that an adapter can fail with."""
    rows = cells(LORA_PAGE, "code", "what it is", "what to do")

    assert sorted(name for row in rows for name in code(row[0])) == sorted(lora_codes.CODES)


def test_the_states_of_an_adapter_are_explained() -> None:
    """In the order of the code; the diagram has them all."""
    rows = cells(LORA_PAGE, "state", "means")
    (diagram,) = blocks(section(LORA_PAGE, "The life of an adapter"), "text")

    assert [code(row[0]) for row in rows] == [[state] for state in State]
    assert all(state in diagram.text for state in State)


def test_each_problem_has_its_status() -> None:
    """The table of http-api.md has every code once, with the status it is answered with."""
    rows = cells(HTTP_API, "status", "code", "when")
    shown = [(name, int(row[0])) for row in rows for name in code(row[1])]

    assert sorted(shown) == sorted((row.name, int(row.status)) for row in CODES.values())


@pytest.mark.parametrize(
    ("heading", "form"),
    [
        ("`POST /v1/load_lora_adapter`", LoadForm),
        ("`POST /v1/unload_lora_adapter`", UnloadForm),
        ("`POST /v1/download_model`", DownloadForm),
    ],
)
def test_each_body_has_its_fields(heading: str, form: type) -> None:
    """In the order of the code, with the same defaults."""
    rows = cells(section(HTTP_API, heading), "field", "type", "default", "meaning")
    fields = msgspec.structs.fields(form)

    assert [code(row[0]) for row in rows] == [[field.name] for field in fields]
    for row, field in zip(rows, fields, strict=True):
        assert (row[2] == "required") == field.required, field.name
        if isinstance(field.default, (bool, int)):
            assert code(row[2]) == [json.dumps(field.default)], field.name


def test_each_field_of_an_answer_is_explained() -> None:
    """Of an adapter and of a download."""
    adapter = _shown(Status("a", State.LOADED, managed=True, path="/a"))
    download = JobStatus("i", "s", "hf", "/d", storage_status.State.DONE, 0.0).to_json()
    for heading, answer in (
        ("`GET /v1/lora_adapters/{name}`", adapter),
        ("`GET /v1/downloads/{download}`", download),
    ):
        rows = cells(section(HTTP_API, heading), "field", "meaning")
        assert {name for row in rows for name in code(row[0])} == set(answer)


def test_configuration_lists_each_engine() -> None:
    """The names that --engine takes are all there, and the other names of some."""
    (line,) = (line for line in CONFIGURATION.splitlines() if line.startswith("- **`--engine`**"))

    assert set(code(line)) == {"--engine", *builtin_engines(), *ENGINE_ALIASES}


def test_what_is_called_unread_is_unread() -> None:
    """No variable of the list is an option's, and none that the manifest sets is missing."""
    unread = {name for row in cells(CONFIGURATION, "variable", "whose") for name in code(row[0])}
    variables = {variable for option in OPTIONS for variable in option.variables}
    pod = yaml.safe_load(read("deploy/sidecar.yaml"))["spec"]["template"]["spec"]
    (runtime,) = (container for container in pod["containers"] if container["name"] == "runtime")

    assert unread.isdisjoint(variables | STORAGE_VARIABLES)
    assert {variable["name"] for variable in runtime["env"]} <= unread | variables | STORAGE_VARIABLES


def test_readme_has_the_startup_arguments() -> None:
    """The table has the options of the sidecar's container with their defaults, the text all the others."""
    rows = cells(README, "flag", "default", "meaning")

    assert [row[:2] for row in rows] == [[named(option), default(option)] for option in OPTIONS[: len(rows)]]
    assert {option.flags[-1] for option in FLAGGED} <= set(code(section(README, "Startup arguments")))


def test_readme_shows_the_sidecar_of_the_manifest() -> None:
    """The container is the one of deploy/sidecar.yaml, less what the exporter does not read."""
    (container,) = yaml.safe_load(blocks(README, "yaml")[0].text)
    pod = yaml.safe_load(read("deploy/sidecar.yaml"))["spec"]["template"]["spec"]
    (whole,) = (whole for whole in pod["containers"] if whole["name"] == "runtime")

    assert {**container, "env": None} == {key: whole[key] for key in container} | {"env": None}
    assert [variable for variable in whole["env"] if variable in container["env"]] == container["env"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_can_be_run(name: str) -> None:
    """Every command line of the runtime in a shell block is one that it takes."""
    script = "".join(block.text for block in blocks(read(name), "sh")).replace("\\\n", "")
    lines = [shlex.split(line, comments=True) for line in script.splitlines() if "kthena-runtime --" in line]
    for words in lines:
        resolve(vars(build_parser().parse_args(words[1:])), {})
    for line in script.splitlines():
        if line.startswith("kthena-downloader "):
            downloader.build_parser().parse_args(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_flag_is_made_up(name: str) -> None:
    """A flag in a document is the runtime's, or another program's that is known to have it."""
    found = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", read(name)))

    assert found - FLAGS - set().union(*FOREIGN_FLAGS.values()) == set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_metric_is_made_up(name: str) -> None:
    """A name in a document that is of the project's form is one of its metrics."""
    known = {*STANDARD, *EXTENDED, *(own.name for own in (*OWN, *LORA, *STORAGE))}
    known |= {f"{metric}{suffix}" for metric in known for suffix in ("_bucket", "_sum", "_count")}
    found = set(re.findall(r"\bkthena(?:_runtime_|:)\w+(?<!_)(?![\w*.:])", read(name)))

    assert found - known == set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_make_target_exists(name: str) -> None:
    """Whatever a document tells to make can be made."""
    text = read(name)
    shell = [*code(text), *(block.text for block in blocks(text, "sh"))]
    found = {target for part in shell for target in re.findall(r"(?:^|\s)make +([a-z][a-z-]*)", part)}

    assert found - set(re.findall(r"(?m)^([a-z][a-z-]*):", read("Makefile"))) == set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_link_leads_somewhere(name: str) -> None:
    """The file is there, and so is the heading in it."""
    here = ROOT / name
    for link in links(read(name)):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = here.parent / path if path else here
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


@pytest.mark.parametrize(
    ("text", "heading", "names"),
    [
        pytest.param(README, "Standard metrics", STANDARD, id="README"),
        pytest.param(METRICS, "Standard metrics", STANDARD, id="metrics, standard"),
        pytest.param(METRICS, "Extended metrics", EXTENDED, id="metrics, extended"),
    ],
)
def test_standard_metrics_have_their_types(text: str, heading: str, names: tuple[str, ...]) -> None:
    """Each is there once, in order, with the type of the rules."""
    rows = cells(section(text, heading), "metric", "type", "meaning")

    assert [row[:2] for row in rows] == [[in_code(name), KINDS[name]] for name in names]


def test_engines_repeats_the_standard_metrics() -> None:
    """Its own table has the same rows in the same words."""
    heads = ("metric", "type", "meaning")
    rows = [*cells(section(METRICS, "Standard metrics"), *heads), *cells(section(METRICS, "Extended metrics"), *heads)]

    assert cells(ENGINES, "standard metric", "type", "meaning") == rows
    assert cells(section(README, "Standard metrics"), *heads) == rows[: len(STANDARD)]


def test_own_metrics_have_their_types_and_labels() -> None:
    """Each name of the runtime's is a row of its section, and no other."""
    for heading, metrics in METRIC_SECTIONS.items():
        rows = cells(section(METRICS, heading), "metric", "type", "labels", "meaning")

        assert [(*code(row[0]), row[1], code(row[2])) for row in rows] == [
            (own.name, own.kind, list(own.labels)) for own in metrics
        ]


def values_of_labels(heading: str) -> dict[tuple[str, str], set[str]]:
    """Return what a section calls the values of a label, by metric and label."""
    rows = [list(map(code, row)) for row in cells(section(METRICS, heading), "metric", "label", "values")]
    found = [(pair, set(values)) for metrics, labels, values in rows for pair in product(metrics, labels)]

    assert len(found) == len(dict(found)), "a label of a metric is explained twice"
    return dict(found)


@pytest.mark.parametrize(
    ("metric", "label", "values"),
    [
        ("engine_info", "engine", set(builtin_engines())),
        ("engine_scrape_errors_total", "reason", set(Reason)),
        ("engine_page_repairs_total", "kind", set(Repair)),
        ("http_requests_total", "route", {*ROUTES, "unmatched"}),
        ("http_requests_total", "method", {*_METHODS, "other"}),
        ("kv_events_total", "type", set(LABELS["event_types"])),
        ("kv_event_blocks_total", "type", set(LABELS["event_types"])),
        ("kv_events_dropped_total", "reason", set(LABELS["drop_reasons"])),
        ("kv_resyncs_total", "reason", set(LABELS["resync_reasons"])),
        ("redis_operation_duration_seconds", "operation", set(LABELS["operations"])),
        ("redis_errors_total", "operation", set(LABELS["operations"])),
        ("redis_errors_total", "reason", set(LABELS["redis_reasons"])),
        ("lora_adapters", "state", set(State)),
        ("lora_adapter_info", "state", set(State)),
        ("lora_adapter_info", "source_scheme", {*SCHEMES, "local"}),
        ("lora_operations_total", "operation", set(LORA_OPERATIONS)),
        ("lora_operations_total", "outcome", set(OUTCOMES)),
        ("lora_operation_duration_seconds", "operation", set(LORA_OPERATIONS)),
        ("lora_reconciles_total", "outcome", set(RECONCILES)),
        ("downloads_in_progress", "scheme", set(SCHEMES)),
        ("downloads_total", "scheme", set(SCHEMES)),
        ("downloads_total", "outcome", set(DOWNLOAD_OUTCOMES)),
        ("download_bytes_total", "scheme", set(SCHEMES)),
        ("download_duration_seconds", "scheme", set(SCHEMES)),
        ("download_retries_total", "scheme", set(SCHEMES)),
        ("download_retries_total", "reason", RETRIES),
    ],
)
def test_each_label_value_is_listed(metric: str, label: str, values: set[str]) -> None:
    """The values of a label are those of the code, all of them."""
    (found,) = (
        rows[f"kthena_runtime_{metric}", label]
        for rows in map(values_of_labels, METRIC_SECTIONS)
        if (f"kthena_runtime_{metric}", label) in rows
    )

    assert found == values


@pytest.mark.parametrize("heading", METRIC_SECTIONS)
def test_each_label_is_explained(heading: str) -> None:
    """Every label of every metric has its values described, but those of the build."""
    labels = {(own.name, label) for own in METRIC_SECTIONS[heading] for label in own.labels}

    assert set(values_of_labels(heading)) == {pair for pair in labels if pair[1] not in {"version", "python"}}


def test_what_cannot_be_decoded_is_named() -> None:
    """The counter of decoding errors lists the reasons that it adds up."""
    rows = {code(row[0])[0]: row for row in cells(section(METRICS, "Metrics of KV events"), "metric", "type", "labels")}

    assert code(rows["kthena_runtime_kv_event_decode_errors_total"][3]) == list(LABELS["undecodable"])


def test_each_reason_says_what_to_do() -> None:
    """The table of operations.md has every reason, in the order of the code, and something in each cell."""
    rows = cells(OPERATIONS, "reason", "meaning", "what to do")

    assert [code(row[0]) for row in rows] == [[reason] for reason in Reason]
    assert all(all(row) for row in rows)


def test_each_repair_is_explained() -> None:
    """The table of metrics.md has every kind, and something in each cell."""
    rows = cells(METRICS, "kind", "flaw", "what is done", "counts")

    assert [code(row[0]) for row in rows] == [[kind] for kind in Repair]
    assert all(all(row) for row in rows)


def test_each_drop_says_what_to_do() -> None:
    """The table of kv-events.md has every reason, in the order of the code, and something in each cell."""
    rows = cells(KV_EVENTS, "dropped", "counts", "what it was", "what to do")

    assert [code(row[0]) for row in rows] == [[reason] for reason in Drop]
    assert all(all(row) for row in rows)


def test_each_resync_has_its_cause() -> None:
    """The table of what happens when names every reason once."""
    rows = cells(KV_EVENTS, "when", "what the runtime does", "counted as")

    assert sorted(reason for row in rows for reason in code(row[2])) == sorted(LABELS["resync_reasons"])
    assert all(row[0] and row[1] for row in rows)


def stand_in(**attributes: Any) -> Any:
    """Return something that has these attributes and is nothing else."""
    return SimpleNamespace(**attributes)


def findings() -> list[tuple[str, str, str]]:
    """Return everything that /ready can say about KV events, as check, status and detail."""

    def subscriber(
        *,
        connected: bool = True,
        filtered: int = 0,
        received: bool = True,
        replay: str | None = None,
        refused: bool = False,
        shared: bool = False,
    ) -> Any:
        stream = stand_in(received=received, replay_failure=replay, is_shared=shared)
        return stand_in(
            rank=0, endpoint="tcp://e:1", connected=connected, filtered=filtered, stream=stream, refused=refused
        )

    def off(url: str | None) -> Any:
        parts = Parts()
        _add_kv(parts, stand_in(redis_url=url, engine="tgi"), stand_in(add=lambda _source: None))
        return parts.findings()["kv_events"]

    subscribers = [
        subscriber(connected=False),
        subscriber(received=False, filtered=1),
        subscriber(replay="no answer"),
        subscriber(received=False),
        subscriber(refused=True),
        subscriber(shared=True),
        subscriber(),
    ]
    roomy, full = stand_in(is_full=False, most=1), stand_in(is_full=True, most=1)
    engine = [
        off(None),
        off("redis://r"),
        *(diagnosis.diagnose_engine("vllm", [one], roomy) for one in subscribers),
        diagnosis.diagnose_engine("vllm", [subscriber()], full),
    ]
    failures = ["not asked yet", *REASONS, None]
    redis = [diagnosis.diagnose_redis(stand_in(failure=failure)) for failure in failures]
    return [(check, *found) for check, some in (("kv_events", engine), ("redis", redis)) for found in some]


def test_everything_that_ready_says_has_its_remedy() -> None:
    """A row of kv-events.md has a check, its status and words of one detail; no detail is without a row."""
    rows = [[*map(code, row[:3]), row[3]] for row in cells(KV_EVENTS, "check", "status", "detail", "what to do")]
    said = findings()
    fitting = [
        [one for one in said if one[:2] == (check, status) and words in one[2]]
        for (check,), (status,), (words,), _ in rows
    ]

    assert [len(some) for some in fitting] == [1] * len(rows)
    assert sorted(one for some in fitting for one in some) == sorted(said)
    assert all(remedy for *_, remedy in rows)


def test_a_redis_error_is_named_as_its_metric_names_it() -> None:
    """What /ready says about Redis stands beside the `reason` that the counter has."""
    rows = cells(KV_EVENTS, "check", "status", "detail", "what to do")
    reasons = {found[1]: code(row[2])[0] for row in rows if (found := re.match(r"reason `(\w+)`", row[3]))}

    assert set(reasons) == set(REASONS) - {"other", "internal"}
    for reason, words in reasons.items():
        assert words in diagnosis.diagnose_redis(stand_in(failure=reason)).detail


def configurations(text: str) -> list[dict[str, Any]]:
    """Return what the engines are given as --kv-events-config."""
    return [json.loads(found) for found in re.findall(r"--kv-events-config '(\{.+?\})'", text, re.DOTALL)]


def test_the_engines_are_told_what_the_runtime_reads() -> None:
    """The flags of the documents have all that /ready advises, and ports that the runtime is told."""
    advised = [configurations(diagnosis._FLAGS[engine])[0] for engine in KV_ENGINES]
    shown = configurations("".join(block.text for block in blocks(KV_EVENTS, "sh")))
    endpoint = next(option.default for option in OPTIONS if option.name == "kv_endpoint")

    assert endpoint is not None
    assert len(shown) == len(advised)
    for told, least in zip(shown, advised, strict=True):
        assert least.items() <= told.items()
        assert told["endpoint"] == endpoint.replace("localhost", "*")
        assert f"KV_EVENTS_REPLAY_ENDPOINT={told['replay_endpoint'].replace('*', 'localhost')}" in code(KV_EVENTS)
    assert configurations(README) == shown[:1]


def test_the_hash_of_the_example_is_the_routers() -> None:
    """Tokens 1 to 16, by which other implementations can be checked."""
    (block,) = hash_blocks(range(1, 17), 16)

    assert f"Tokens 1 to 16 give {block}." in KV_EVENTS


def test_each_route_has_a_section() -> None:
    """The headings and the table of http-api.md are the routes of the application."""
    headings = re.findall(r"(?m)^## `(GET|POST) (\S+)`$", HTTP_API)
    rows = cells(HTTP_API, "route", "answers")

    assert headings == [(method, route) for route, method in SHOWN_ROUTES.items()]
    assert [code(row[0]) for row in rows] == [
        [route if method == "GET" else f"{method} {route}"] for route, method in SHOWN_ROUTES.items()
    ]


def test_each_engine_has_a_row_and_a_section() -> None:
    """docs/engines.md knows every engine that has built-in rules, and no other."""
    rows = cells(ENGINES, "`--engine`", "`--engine-metrics-path`")

    assert set(builtin_engines()) == set(SECTIONS), "name the new engine's section of docs/engines.md in SECTIONS"
    assert {code(row[0])[0] for row in rows} == set(builtin_engines())
    for heading in SECTIONS.values():
        assert section(ENGINES, heading)


def spellings(source: Source) -> set[str]:
    """Return how a document may write a source; Ray's are vLLM's with a prefix."""
    bare = re.sub(r"^(ray_(?=vllm:)|trtllm:)", "", source.name.replace("ray_vllm_", "ray_vllm:"))
    labels = "".join(f'{{{name}="{value}"}}' for name, value in source.where.items() if value)
    return {bare, bare.removesuffix("_sum"), bare + labels}


def sources_by_metric(text: str) -> dict[str, set[str]]:
    """Return the sources in the table of an engine by their metric; a row without one goes on with the last."""
    found: dict[str, set[str]] = {}
    for first, *others in cells(text, "standard metric"):
        metric = code(first)[0] if first else next(reversed(found))
        found.setdefault(metric, set()).update(span for cell in others for span in code(cell))
    return found


@pytest.mark.parametrize("engine", builtin_engines())
def test_each_source_is_named(engine: str) -> None:
    """The section of an engine names every source of its rules."""
    text = section(ENGINES, SECTIONS[engine]) + (section(ENGINES, SECTIONS["vllm"]) if engine == "ray" else "")
    sources = [source for rule in load_rules(engine).rules for source in rule.sources]

    assert [source.name for source in sources if spellings(source).isdisjoint(code(text))] == []


@pytest.mark.parametrize("engine", sorted(set(builtin_engines()) - {"ray"}))
def test_each_row_has_the_sources_of_its_metric(engine: str) -> None:
    """A row has one of the rule's sources at least, and nothing that is none; without a rule it has none."""
    rows = sources_by_metric(section(ENGINES, SECTIONS[engine]))
    rules = {rule.name: set().union(*map(spellings, rule.sources)) for rule in load_rules(engine).rules}

    assert set(rules) <= set(rows)
    for metric, found in rows.items():
        assert found <= rules.get(metric, set()), metric
        assert bool(found) == (metric in rules), metric


def test_the_worked_example_works(tmp_path: Path) -> None:
    """The rules of metrics.md make of the page there the families shown there, byte for byte."""
    example = section(METRICS, "A worked example")
    page, made = (block.text.encode() for block in blocks(example, "text"))
    (rules,) = blocks(example, "yaml")
    file = tmp_path / "acme.yaml"
    file.write_text(rules.text)

    result = standardize(parse_page(page), load_rules("acme", file))

    assert b"".join(family.text for family in result.families) == made
    assert result.missing == ()


def test_each_record_is_listed() -> None:
    """docs/adr/README.md links every record under its title."""
    rows = cells(read("docs/adr/README.md"), "record", "decision")
    titles = {name: read(f"docs/adr/{name}").splitlines()[0] for name in RECORDS}

    assert [row[0] for row in rows] == [f"[{name[:4]}]({name})" for name in RECORDS]
    assert [f"# {int(name[:4])}. {row[1]}" for name, row in zip(RECORDS, rows, strict=True)] == list(titles.values())


@pytest.mark.parametrize("name", RECORDS)
def test_each_record_has_its_parts(name: str) -> None:
    """A record is short, and says context, decision and consequences."""
    text = read(f"docs/adr/{name}")

    assert re.findall(r"(?m)^## (.+)$", text) == ["Context", "Decision", "Consequences"]
    assert text.count("\n") < 60


def test_records_are_numbered_without_gaps() -> None:
    """The next record takes the next number."""
    numbers = [int(name[:4]) for name in RECORDS]

    assert numbers[0] == 1
    assert all(later == earlier + 1 for earlier, later in pairwise(numbers))


def test_each_page_is_named_in_the_readme() -> None:
    """Whoever starts at the README finds every page."""
    pages = [name for name in DOCUMENTS if re.fullmatch(r"docs/[^/]+\.md|CHANGELOG\.md|docs/adr/README\.md", name)]

    assert [name for name in pages if name not in section(README, "Documentation")] == []


def test_the_changelog_has_what_users_see() -> None:
    """Nothing is released yet: each standard metric, variable and route stands under Unreleased."""
    unreleased = section(read("CHANGELOG.md"), "[Unreleased]")
    variables = {variable for option in OPTIONS for variable in option.variables}

    routes = {route if method == "GET" else f"{method} {route}" for route, method in SHOWN_ROUTES.items()}

    assert {*STANDARD, *variables, *STORAGE_VARIABLES, *routes} <= set(code(unreleased))
