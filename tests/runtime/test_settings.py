"""Settings: a flag wins over its variable, a variable over the default; mistakes are named by where they came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from redis.connection import parse_url

from exporter.cli import build_parser
from exporter.options import OPTIONS
from exporter.settings import KV_ENGINES, ConfigError, Settings, resolve
from exporter.standard.rules import builtin_engines
from storage.request.config import Config, Secret

if TYPE_CHECKING:
    from exporter.options import Option

pytestmark = pytest.mark.unit

PORT = "must be a number from 0 to 65535 (0 takes a free port)"
REDIS_PORT = "must be a port from 1 to 65535"
SECRET_URLS = (
    "http://me:s3cret@redis",
    "me:s3cret@redis",
    "s3cret@redis",
    "//:s3cret@redis:6379",
    "redis://:s3cret/x@redis",
    "redis://me:s3cret#x@redis",
    "redis://:s3cret℀@redis",
    "redis://:s3cret@[::1",
    "redis://:s3cret@redis:99999",
)

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
        max_scrape_bytes=16777216,
        raw_metrics=True,
        log_format="text",
        log_level="info",
        write_roots=(),
        stall_timeout=60.0,
        worker_memory=80 << 20,
        download_replace=False,
        worker_nice=19,
        lora_dir=Path("/models/lora-adapters"),
        state_dir=None,
        model_config=None,
        backend=None,
        reconcile_interval=5.0,
        engine_api_key_file=None,
        api_token_file=None,
        storage=Config(),
        redis_url=None,
        kv_endpoint="tcp://localhost:5557",
        kv_topic="",
        kv_replay_endpoint=None,
        data_parallel_size=1,
        kv_max_blocks=200_000,
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


def test_the_flags_of_adapters_and_downloads_have_one_name() -> None:
    """Each changes its own setting; a write root may be given several times."""
    flags = (
        "--write-root /models --write-root /cache --stall-timeout 5 --worker-nice 0 --lora-dir /models/lora --state-dir /state "
        "--model-config model.yaml --backend b1 --reconcile-interval 0.5 --engine-api-key-file key --api-token-file token"
    )

    got = settings(*flags.split())

    assert (got.write_roots, got.stall_timeout, got.worker_nice) == (("/models", "/cache"), 5.0, 0)
    assert got.lora_dir == Path("/models/lora")
    assert (got.state_dir, got.model_config, got.backend) == (Path("/state"), Path("model.yaml"), "b1")
    assert (got.reconcile_interval, got.engine_api_key_file, got.api_token_file) == (0.5, Path("key"), Path("token"))


def test_the_pods_credentials_come_from_the_environment() -> None:
    """They are those of the downloader; a mistake is one of the settings, and shows no secret."""
    got = settings(ACCESS_KEY="me", SECRET_KEY="s3cret", ENDPOINT="obs.test.com", HF_AUTH_TOKEN="s3cret")

    assert got.storage == Config(
        access_key=Secret("me"), secret_key=Secret("s3cret"), endpoint="https://obs.test.com", hf_token=Secret("s3cret")
    )
    assert "s3cret" not in repr(got)
    assert (
        error_of(ACCESS_KEY="s3cret")
        == "access_key and secret_key (ACCESS_KEY and SECRET_KEY) come together or not at all"
    )
    assert error_of(ENDPOINT="ftp://x").startswith("ENDPOINT must be an http or https URL")


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

    assert known == {case.variable for case in VARIABLES} | {
        *KV_VARIABLES, *REDIS_PARTS, "REDIS_URL", "DOWNLOAD_REPLACE",
    }  # fmt: skip


@pytest.mark.parametrize(("text", "value"), [("true", True), ("Yes", True), ("0", False), (" ", False)])
def test_downloads_replace_when_the_variable_says_so(text: str, value: bool) -> None:
    """Blank counts as not set."""
    assert settings(DOWNLOAD_REPLACE=text).download_replace is value


def test_the_memory_of_workers_is_enough_for_one() -> None:
    """A size, and not one that no download could live with."""
    assert settings("--worker-memory", "96Mi").worker_memory == 96 << 20
    assert "at least 64Mi" in error_of("--worker-memory", "32Mi")


REDIS_PARTS = ("REDIS_HOST", "REDIS_PORT", "REDIS_DB", "REDIS_USERNAME", "REDIS_PASSWORD")
# Variable -> its field, two values, and the names it had.
KV_VARIABLES = {
    "KV_EVENTS_ENDPOINT": (
        "kv_endpoint",
        ("tcp://engine:5557", "ipc:///run/kv/events"),
        ("VLLM_ZMQ_ENDPOINT", "SGLANG_ZMQ_ENDPOINT"),
    ),
    "KV_EVENTS_TOPIC_FILTER": (
        "kv_topic",
        ("kv-events", "kv@pod-0"),
        ("VLLM_ZMQ_TOPIC_FILTER", "SGLANG_ZMQ_TOPIC_FILTER"),
    ),
    "KV_EVENTS_REPLAY_ENDPOINT": ("kv_replay_endpoint", ("tcp://[::1]:5558", "tcp://10.0.0.1:5558"), ()),
    "DATA_PARALLEL_SIZE": ("data_parallel_size", ("1024", "2"), ()),
    "KV_EVENTS_MAX_BLOCKS": ("kv_max_blocks", ("100000000", "5000"), ()),
}


@pytest.mark.parametrize("variable", KV_VARIABLES)
def test_a_variable_wins_over_its_older_names(variable: str) -> None:
    """The older ones count from left to right; what is set but empty does not."""
    field, texts, older = KV_VARIABLES[variable]
    names = (variable, *older)

    for place, name in enumerate(names):
        later = dict.fromkeys(names[place + 1 :], texts[1])
        earlier = dict.fromkeys(names[:place], " ")
        assert str(getattr(settings(**{**earlier, name: texts[0], **later}), field)) == texts[0]
    assert getattr(settings(**{variable: ""}), field) == getattr(settings(), field)


def redis_url(**environ: str) -> str | None:
    return settings(**environ).redis_url


@pytest.mark.parametrize(
    ("parts", "url"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"PORT": "6380", "PASSWORD": "secret", "USERNAME": "me"}, None, id="no host"),
        pytest.param({"HOST": "redis"}, "redis://redis:6379/0", id="host only"),
        pytest.param({"HOST": "redis", "PORT": "6380", "DB": "3"}, "redis://redis:6380/3", id="port and database"),
        pytest.param({"HOST": "redis", "PORT": ""}, "redis://redis:6379/0", id="empty port"),
        pytest.param(
            {"HOST": "redis", "PORT": "tcp://10.96.0.7:6380"}, "redis://redis:6380/0", id="port of a service link"
        ),
        pytest.param({"HOST": "::1"}, "redis://[::1]:6379/0", id="IPv6"),
        pytest.param({"HOST": "redis", "PASSWORD": "secret"}, "redis://:secret@redis:6379/0", id="password only"),
        pytest.param({"HOST": "redis", "PASSWORD": ""}, "redis://redis:6379/0", id="empty password"),
        pytest.param(
            {"HOST": "fd00::7", "USERNAME": "me@home", "PASSWORD": "p@ss:/?#[%41] ü"},
            "redis://me%40home:p%40ss%3A%2F%3F%23%5B%2541%5D%20%C3%BC@[fd00::7]:6379/0",
            id="all quoted",
        ),
    ],
)
def test_redis_is_composed_of_its_parts(parts: dict[str, str], url: str | None) -> None:
    """Without a host there is none, whatever else is set."""
    assert redis_url(**{f"REDIS_{name}": value for name, value in parts.items()}) == url


@pytest.mark.parametrize("secret", ["plain", "p@ss:/?#[%41] ü", "%", "a:b@c", "[::1]"])
def test_the_client_gets_the_parts_as_they_were(secret: str) -> None:
    """redis-py reads the URL as it was meant: what is quoted here is unquoted there."""
    url = redis_url(REDIS_HOST="fd00::7", REDIS_PORT="6380", REDIS_DB="2", REDIS_USERNAME=secret, REDIS_PASSWORD=secret)

    found = parse_url(url)  # type: ignore[no-untyped-call]
    assert found == {"host": "fd00::7", "port": 6380, "db": 2, "username": secret, "password": secret}


@pytest.mark.parametrize(
    "url", ["redis://other", "rediss://me:p%40ss@other:6380/1?ssl_ca_certs=/ca.pem", "unix:///run/redis.sock"]
)
def test_a_url_wins_over_the_parts(url: str) -> None:
    """It is taken as it is, and nothing is added to it."""
    assert redis_url(REDIS_URL=f" {url} ", **dict.fromkeys(REDIS_PARTS, "1")) == url


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        *[("REDIS_PORT", value, REDIS_PORT) for value in ("redis", "0", "65536", "tcp://10.0.0.1")],
        *[("REDIS_DB", value, "must be a number from 0 on") for value in ("-1", "main", "1.5", "²")],
        *[("DATA_PARALLEL_SIZE", value, "must be a number from 1 to 1024") for value in ("0", "1025", "two", "-1")],
        *[
            (variable, value, "must be a ZeroMQ endpoint such as tcp://localhost:5557")
            for variable in ("KV_EVENTS_ENDPOINT", "VLLM_ZMQ_ENDPOINT", "SGLANG_ZMQ_ENDPOINT", "KV_EVENTS_REPLAY_ENDPOINT")
            for value in ("localhost:5557", "tcp://localhost", "http://localhost:5557", "tcp://my host:5557", "ipc://")
        ],
    ],
)  # fmt: skip
def test_a_bad_value_of_a_variable_is_named(variable: str, value: str, problem: str) -> None:
    """By the name that was set, which may be an older one; even when there is no Redis."""
    assert error_of(**{variable: value}) == f"{variable} {problem}, got {value!r}"


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.variable], ids=lambda option: option.name)
def test_a_value_that_is_not_utf_8_is_refused(option: Option) -> None:
    """Such bytes come as lone surrogates, which no page, log or Redis takes."""
    assert option.variable is not None
    assert error_of(**{option.variable: "a\udcffb"}) == f"{option.variable} is not valid UTF-8"


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "[::]"])
@pytest.mark.parametrize("variable", ["KV_EVENTS_ENDPOINT", "VLLM_ZMQ_ENDPOINT", "KV_EVENTS_REPLAY_ENDPOINT"])
def test_the_engines_own_spelling_of_an_endpoint_is_this_pod(variable: str, host: str) -> None:
    """What the engine binds to is no address to connect to."""
    got = settings(**{variable: f"tcp://{host}:5560"})

    assert "tcp://localhost:5560" in (got.kv_endpoint, got.kv_replay_endpoint)


@pytest.mark.parametrize("url", SECRET_URLS)
def test_a_secret_is_never_shown(url: str) -> None:
    """Neither in an error nor where the settings are printed."""
    assert "s3cret" not in error_of(REDIS_URL=url)
    for known in ({"REDIS_URL": "redis://me:s3cret@redis"}, {"REDIS_HOST": "redis", "REDIS_PASSWORD": "s3cret"}):
        assert "s3cret" not in repr(settings(**known))


@pytest.mark.parametrize("pod", ["pod-0", "pod-0.", ".default", "pod 0.default"])
def test_with_redis_a_pod_has_a_namespace(pod: str) -> None:
    """The router knows pods by both; without Redis, or with an engine that has no KV events, any name will do."""
    assert settings("--pod", pod).pod == pod
    for variables in ({"REDIS_HOST": "redis"}, {"REDIS_URL": "redis://redis"}):
        assert settings("--engine", "tgi", "--pod", pod, **variables).pod == pod
        for engine in KV_ENGINES:
            assert error_of("--engine", engine, "--pod", pod, **variables) == (
                f"--pod must look like name.namespace: the router knows pods by it, got {pod!r}"
            )


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
        *[("--engine-base-url", "RUNTIME_URL", f"http://e{end}", "must not have a query or a fragment") for end in ("#a", "?")],
        *[("--engine-base-url", "RUNTIME_URL", value, URL) for value in ("http://e:99999", "http://e:port", "http://[::1")],
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
        *[
            (flag, "models", "must be an absolute directory such as /models")
            for flag in ("--lora-dir", "--state-dir", "--write-root")
        ],
        *[
            (flag, value, SECONDS)
            for flag in ("--stall-timeout", "--reconcile-interval")
            for value in ("0", "3601", "s")
        ],
        *[("--worker-nice", value, "must be a number from 0 to 19") for value in ("-1", "20", "low")],
        ("--log-format", "xml", "must be one of text, json"),
        ("--log-level", "loud", "must be one of debug, info, warning, error"),
        *[
            (flag, " ", "must not be empty")
            for flag in (
                "--engine",
                "--host",
                "--pod",
                "--model",
                "--metric-rules",
                "--model-config",
                "--backend",
                "--engine-api-key-file",
                "--api-token-file",
            )
        ],
        ("--port", "", PORT),
        ("--engine-base-url", "", URL),
    ],
)
def test_a_bad_value_of_a_flag_is_named(flag: str, value: str, problem: str) -> None:
    """A flag that is given but empty is a mistake, unlike an empty variable."""
    assert error_of(f"{flag}={value}") == f"{flag} {problem}, got {value!r}"


@pytest.mark.parametrize(
    ("rules", "way"),
    [(None, "bring rules for it with --metric-rules"), ("metrics: {}\n", "write 'engine: other' into FILE")],
)
def test_an_unknown_engine_is_told_the_known_ones(tmp_path: Path, rules: str | None, way: str) -> None:
    """And how to bring another."""
    path = tmp_path / "rules.yaml"
    path.write_text(rules or "")
    flags = ("--metric-rules", str(path)) if rules else ()

    assert error_of("-E", "other", *flags) == (
        f"--engine 'other' is not known: use one of {', '.join(builtin_engines())}, or {way.replace('FILE', str(path))}"
    )


@pytest.mark.parametrize("engine", ["other", "vllm"])
def test_a_rule_file_of_another_engine_is_refused(tmp_path: Path, engine: str) -> None:
    """Whichever of the two is wrong, the error names both."""
    path = tmp_path / "rules.yaml"
    path.write_text("engine: mine\nmetrics: {}\n")

    assert error_of("-E", engine, "--metric-rules", str(path)) == (
        f"--metric-rules {path} is for engine 'mine', not for {engine!r}: change --engine, or 'engine' in the file"
    )


@pytest.mark.parametrize(
    ("missing", "names"), [("engine", "-E/--engine NAME"), ("pod", "-I/--pod POD"), ("model", "-N/--model MODEL")]
)
def test_a_missing_value_is_named(missing: str, names: str) -> None:
    """By both names of its flag; the help has the rest."""
    flags = {"engine": "vllm", "pod": "p.n", "model": "m", missing: None}

    with pytest.raises(ConfigError, match=rf"^missing: {names}; see --help$"):
        resolve(flags, {})


URLS_WITH_SECRETS = (
    "http://me:s3cret@e",
    "me:s3cret@e:80",
    "http://me:s3cret/x@e",
    "http://s3cret:x@e:99999",
    "//s3cret@e",
    "ht:s3cret://x@e",
    "http://me:s3@cret:s3cret@[::1",
    "http://e?token=s3cret",
    "http://me:a?b@e?token=s3cret",
)


@pytest.mark.parametrize("value", URLS_WITH_SECRETS)
@pytest.mark.parametrize("option", [option for option in OPTIONS if option.variable], ids=lambda option: option.name)
def test_no_error_shows_what_may_be_a_secret(option: Option, value: str) -> None:
    """A login or a token in any variable's value, right or wrong there, is hidden."""
    assert option.variable is not None
    problem = ""
    try:
        settings(**{option.variable: value})
    except ConfigError as error:
        problem = str(error)

    assert "s3cret" not in problem


@pytest.mark.parametrize("flag", ["--engine", "--engine-base-url", "--port", "--log-level", "--request-timeout"])
@pytest.mark.parametrize("value", URLS_WITH_SECRETS)
def test_no_flags_error_shows_what_may_be_a_secret(flag: str, value: str) -> None:
    """The same for flags, whose error says what is wrong all the same."""
    error = error_of(f"{flag}={value}")

    assert error.startswith(flag)
    assert "s3cret" not in error


@pytest.mark.parametrize(
    ("value", "shown"),
    [("http://u:p@localhost:8000", "http://***@localhost:8000"), ("http://e/x?a=1", "http://e/x?***")],
)
def test_a_base_url_is_shown_without_its_secret(value: str, shown: str) -> None:
    """What is left tells which value is meant."""
    assert error_of("-B", value).endswith(f", got {shown!r}")


@pytest.mark.parametrize("flag", ["--pod", "--model"])
def test_a_variable_that_is_not_expanded_is_refused(flag: str) -> None:
    """Kubernetes leaves $(NAME) as it is when the container's env lacks it."""
    assert error_of(flag, "$(POD_NAME).default") == (
        f"{flag} has a variable that Kubernetes did not expand: define it in the container's env, above what uses it "
        "(docs/deployment.md), got '$(POD_NAME).default'"
    )


def test_a_pod_without_a_namespace_is_worth_a_warning() -> None:
    """It can be used where there is no router."""
    assert settings().warnings == ()
    assert settings("--pod", "pod-0").warnings == (
        "--pod 'pod-0' has no namespace: give it as name.namespace, by which the router knows pods",
    )
