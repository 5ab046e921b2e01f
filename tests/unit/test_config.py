"""Settings: a flag wins over its variable, a variable over the default; mistakes are named by where they came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from exporter.cli import build_parser
from exporter.config import OPTIONS, ConfigError, Settings, resolve

if TYPE_CHECKING:
    from pathlib import Path

REQUIRED = ("-E", "vllm", "-I", "pod-0.default", "-N", "test-model")


def settings(*flags: str, **environ: str) -> Settings:
    return resolve(vars(build_parser().parse_args([*REQUIRED, *flags])), environ)


def error_of(*flags: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        settings(*flags, **environ)
    return str(caught.value)


def test_what_is_not_given_has_its_default() -> None:
    """Those of the order, and those that are the runtime's own."""
    assert settings() == Settings(
        engine="vllm",
        host="0.0.0.0",
        port=9000,
        engine_base_url="http://localhost:8000",
        engine_metrics_path="/metrics",
        pod="pod-0.default",
        model="test-model",
        metric_rules=None,
        request_timeout=30.0,
        max_scrape_bytes=67108864,
        raw_metrics=True,
        log_format="text",
        log_level="info",
    )


@pytest.mark.parametrize(
    "flags",
    [
        "-E sglang -H ::1 -P 8900 -B https://e:1 -M /m -I p.n -N m",
        "--engine sglang --host ::1 --port 8900 --engine-base-url https://e:1 --engine-metrics-path /m --pod p.n --model m",
        "--engine=sglang --host=::1 --port=8900 --engine-base-url=https://e:1 --engine-metrics-path=/m --pod=p.n --model=m",
    ],
)
def test_the_ordered_flags_have_short_and_long_names(flags: str) -> None:
    """Both mean the same."""
    got = settings(*flags.split())

    assert (got.engine, got.host, got.port, got.engine_metrics_url) == ("sglang", "::1", 8900, "https://e:1/m")
    assert (got.pod, got.model) == ("p.n", "m")


def test_the_other_flags_have_one_name() -> None:
    """Each changes its own setting."""
    flags = "--request-timeout 2.5 --max-scrape-bytes 1Mi --no-raw-metrics --log-format json --log-level debug"

    got = settings(*flags.split())

    assert (got.request_timeout, got.max_scrape_bytes, got.raw_metrics) == (2.5, 1048576, False)
    assert (got.log_format, got.log_level) == ("json", "debug")


class Case(NamedTuple):
    """A variable, its flag and their field; a text and its value for each, and the default."""

    variable: str
    flag: str
    field: str
    texts: tuple[str, str]
    values: tuple[object, object, object]


VARIABLES = [
    Case("RUNTIME_PORT", "-P", "port", ("8900", "8901"), (8900, 8901, 9000)),
    Case(
        "RUNTIME_URL",
        "-B",
        "engine_base_url",
        ("http://a:1", "http://b:2"),
        ("http://a:1", "http://b:2", "http://localhost:8000"),
    ),
    Case("RUNTIME_METRICS_PATH", "-M", "engine_metrics_path", ("/a", "/b"), ("/a", "/b", "/metrics")),
    Case("REQUEST_TIMEOUT", "--request-timeout", "request_timeout", ("5", "6"), (5.0, 6.0, 30.0)),
]


@pytest.mark.parametrize("case", VARIABLES, ids=lambda case: case.variable)
def test_a_flag_wins_over_its_variable_and_that_over_the_default(case: Case) -> None:
    """A variable that is set but empty counts as not set."""
    of_variable, of_flag = case.texts
    by_variable, by_flag, default = case.values

    assert getattr(settings(**{case.variable: of_variable}), case.field) == by_variable
    assert getattr(settings(case.flag, of_flag, **{case.variable: of_variable}), case.field) == by_flag
    assert getattr(settings(**{case.variable: ""}), case.field) == default
    assert getattr(settings(**{case.variable: "  "}), case.field) == default


def test_these_are_all_the_variables() -> None:
    """A new one needs a row in the table above."""
    known = {option.variable for option in OPTIONS if option.variable}

    assert known == {case.variable for case in VARIABLES}


@pytest.mark.parametrize(
    ("given", "engine"),
    [
        ("vllm", "vllm"),
        ("VLLM", "vllm"),
        (" SGLang ", "sglang"),
        ("vLLMDisaggregated", "vllm"),
    ],
)
def test_engines_are_known_in_any_case(given: str, engine: str) -> None:
    """And by the other names they go by."""
    assert settings("--engine", given).engine == engine


def test_an_engine_may_come_with_its_rules(tmp_path: Path) -> None:
    """The file's name for it is as good as a built-in one."""
    path = tmp_path / "rules.yaml"
    path.write_text("engine: Mine\nmetrics: {}\n")

    got = settings("--engine", "mine", "--metric-rules", str(path))

    assert (got.engine, got.metric_rules) == ("mine", path)


@pytest.mark.parametrize(
    ("base", "path", "url"),
    [
        ("http://localhost:8000", "/metrics", "http://localhost:8000/metrics"),
        ("http://localhost:8000/", "/metrics", "http://localhost:8000/metrics"),
        ("http://localhost:8000/metrics", "/metrics", "http://localhost:8000/metrics"),
        ("http://localhost:8000/metrics/", "/metrics", "http://localhost:8000/metrics"),
        ("http://localhost:8000/metrics/", "/metrics/", "http://localhost:8000/metrics/"),
        ("http://localhost:8000/engine/metrics", "/metrics", "http://localhost:8000/engine/metrics"),
        ("http://localhost:8000/engine", "/metrics", "http://localhost:8000/engine/metrics"),
        ("http://localhost:8000/metrics", "/other", "http://localhost:8000/metrics/other"),
        ("http://localhost:8000", "/", "http://localhost:8000/"),
        ("http://metrics", "/metrics", "http://metrics/metrics"),
        ("http://[::1]:8000", "/metrics", "http://[::1]:8000/metrics"),
        ("http://my_engine.models.svc", "/metrics?x=1", "http://my_engine.models.svc/metrics?x=1"),
        (" http://127.0.0.1:8000 ", " /metrics ", "http://127.0.0.1:8000/metrics"),
    ],
)
def test_a_base_url_may_end_in_the_metrics_path(base: str, path: str, url: str) -> None:
    """The page's address is right in either case, with a slash at the end or without."""
    assert settings("-B", base, "-M", path).engine_metrics_url == url


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("64k", 64_000),
        ("64Ki", 65_536),
        ("10 MB", 10_000_000),
        ("1mib", 1_048_576),
        ("2G", 2_000_000_000),
        ("2Gi", 2 << 30),
    ],
)
def test_sizes_have_suffixes(text: str, size: int) -> None:
    """Decimal ones and binary ones."""
    assert settings("--max-scrape-bytes", text).max_scrape_bytes == size


@pytest.mark.parametrize(("text", "port"), [("0", 0), ("65535", 65535), (" 8900 ", 8900)])
def test_ports_have_a_range(text: str, port: int) -> None:
    """Zero takes a free one."""
    assert settings("--port", text).port == port


PORT = "must be a number from 0 to 65535 (0 takes a free port)"
URL = "must be an http or https URL such as http://localhost:8000"
PATH = "must be a path that begins with '/', such as /metrics"
SECONDS = "must be a number of seconds above 0 and up to 3600"
SIZE = "must be a size in bytes above 0, such as 67108864 or 64Mi"


@pytest.mark.parametrize(
    ("flag", "variable", "value", "problem"),
    [
        *[("--port", "RUNTIME_PORT", value, PORT) for value in ("http", "-1", "65536", "8.5", "²", "9" * 5000)],
        ("--port", "RUNTIME_PORT", "tcp://10.0.0.1:80", PORT),
        *[("--engine-base-url", "RUNTIME_URL", value, URL) for value in ("localhost:8000", "ftp://e", "http://", "http://:80")],
        *[("--engine-base-url", "RUNTIME_URL", value, URL) for value in ("http://my host", "http://a\tb", "http://a%zz", "http://ü")],
        ("--engine-base-url", "RUNTIME_URL", "http://u:p@e", "must not hold credentials"),
        *[("--engine-base-url", "RUNTIME_URL", f"http://e{end}", "must not have a query or a fragment") for end in ("?a=1", "#a", "?")],
        ("--engine-base-url", "RUNTIME_URL", "http://e:99999", "is not a URL: Port out of range 0-65535"),
        ("--engine-base-url", "RUNTIME_URL", "http://[::1", "is not a URL: Invalid IPv6 URL"),
        *[("--engine-metrics-path", "RUNTIME_METRICS_PATH", value, PATH) for value in ("metrics", "/my metrics", "/a#b")],
        *[("--request-timeout", "REQUEST_TIMEOUT", value, SECONDS) for value in ("soon", "0", "-1", "3601", "nan", "inf")],
    ],
)  # fmt: skip
def test_a_bad_value_is_named_by_where_it_came_from(flag: str, variable: str, value: str, problem: str) -> None:
    """The flag or the variable, what it must be, and what it was."""
    assert error_of(f"{flag}={value}") == f"{flag} {problem}, got {value!r}"
    assert error_of(**{variable: value}) == f"{variable} {problem}, got {value!r}"


@pytest.mark.parametrize(
    ("flag", "value", "problem"),
    [
        *[("--max-scrape-bytes", value, SIZE) for value in ("0", "-1", "1.5Mi", "64Ti", "lots", "")],
        ("--log-format", "xml", "must be one of text, json"),
        ("--log-level", "loud", "must be one of debug, info, warning, error"),
        *[(flag, " ", "must not be empty") for flag in ("--engine", "--host", "--pod", "--model", "--metric-rules")],
        ("--port", "", PORT),
        ("--engine-base-url", "", URL),
    ],
)
def test_a_bad_value_of_a_flag_is_named(flag: str, value: str, problem: str) -> None:
    """A flag that is given but empty is a mistake, unlike an empty variable."""
    assert error_of(f"{flag}={value}") == f"{flag} {problem}, got {value!r}"


def test_an_unknown_engine_is_told_the_known_ones(tmp_path: Path) -> None:
    """Those that a rule file declares are among them."""
    path = tmp_path / "rules.yaml"
    path.write_text("engine: mine\nmetrics: {}\n")

    assert error_of("-E", "other", "--metric-rules", str(path)) == (
        "--engine 'other' is not known: use one of dynamo, llamacpp, lmdeploy, mindie, mine, ray, sglang, tgi, trtllm, vllm, "
        "or bring rules for it with --metric-rules"
    )


@pytest.mark.parametrize(
    ("missing", "names"), [("engine", "-E/--engine"), ("pod", "-I/--pod"), ("model", "-N/--model")]
)
def test_a_missing_value_is_named_with_its_meaning(missing: str, names: str) -> None:
    """Both names of the flag, and what it is for."""
    flags = {"engine": "vllm", "pod": "p.n", "model": "m", missing: None}

    with pytest.raises(ConfigError, match=rf"^{names} is required: [A-Z].+\.$"):
        resolve(flags, {})
