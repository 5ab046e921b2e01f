"""The command line: what it offers, and one line of help for whatever is wrong with it."""

from __future__ import annotations

import re
import socket
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

from exporter.options import OPTIONS
from exporter.standard.rules import builtin_engines
from simulators.addresses import has_ipv6, own_addresses
from simulators.ports import free_port
from tests.harness.runtime import run_to_end

if TYPE_CHECKING:
    from pathlib import Path

    from exporter.options import Option

REQUIRED = ("-E", "vllm", "-I", "pod-0.default", "-N", "test-model")
USAGE = 2
CANNOT_RUN = 1
needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
RULE = "metrics:\n  kthena:x:\n    type: gauge\n    help: Help.\n    sources: [my_x]\n"


def error_of(*arguments: str, code: int, **variables: str) -> str:
    """Run with these arguments; insist on this exit code and a single line, and return what it says."""
    ended = run_to_end(*arguments, variables=variables)
    lines = ended.stderr.splitlines()

    assert (ended.returncode, ended.stdout, len(lines)) == (code, "", 1), ended.stderr
    assert lines[0].startswith("kthena-runtime: error: ")
    return lines[0].removeprefix("kthena-runtime: error: ")


@pytest.fixture(scope="module")
def entries() -> list[str]:
    """The help's entries, one for each option, on one line each."""
    ended = run_to_end("--help", variables={"COLUMNS": "500"})
    assert (ended.returncode, ended.stderr) == (0, "")
    options = ended.stdout.partition("\noptions:")[2].partition("\n\n")[0]
    return [" ".join(entry.split()) for entry in options.split("\n  -")]


def test_version_is_the_distributions() -> None:
    """It needs no other flag."""
    ended = run_to_end("--version")

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"kthena-runtime {version('kthena-runtime')}\n", "")


@pytest.mark.parametrize(
    "entry",
    [
        r"-E( NAME)?, --engine NAME .*\[required\]",
        r"-H( ADDRESS)?, --host ADDRESS .*\[default 0\.0\.0\.0\]",
        r"-P( PORT)?, --port PORT .*\[default 9000, variable RUNTIME_PORT\]",
        r"-B( URL)?, --engine-base-url URL .*\[default http://localhost:8000, variable RUNTIME_URL\]",
        r"-M( PATH)?, --engine-metrics-path PATH .*\[default /metrics, variable RUNTIME_METRICS_PATH\]",
        r"-I( POD)?, --pod POD .*\[required\]",
        r"-N( MODEL)?, --model MODEL .*\[required\]",
        r"-h, --help .*",
        r"--version .*",
    ],
)
def test_help_has_the_ordered_flags(entries: list[str], entry: str) -> None:
    """Short and long names, variables and defaults are those of the order."""
    assert [found for found in entries if re.fullmatch(entry, f"-{found}")]


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.flags], ids=lambda option: option.name)
def test_help_has_every_option(entries: list[str], option: Option) -> None:
    """Its flags, its sentence, its default and its variable stand together."""
    (entry,) = [f"-{entry}" for entry in entries if option.help in entry]

    assert all(flag in entry.partition(option.help)[0] for flag in option.flags)
    assert option.default is None or not option.metavar or f"default {option.default}" in entry
    assert option.variable is None or f"variable {option.variable}" in entry
    assert not option.required or "[required]" in entry


def test_help_names_the_variables_without_a_flag() -> None:
    """All of them, in the order of the table; no flag is made up for them."""
    ended = run_to_end("--help", variables={"COLUMNS": "1000"})

    named = re.findall(r"Variables without a flag: ([\w, ]+)\.", ended.stdout)
    assert named == [", ".join(str(option.variable) for option in OPTIONS if not option.flags)]
    assert not re.findall(r"--(?:redis|kv)", ended.stdout)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ((), "-E/--engine NAME, -I/--pod POD, -N/--model MODEL"),
        (REQUIRED[:2], "-I/--pod POD, -N/--model MODEL"),
        (REQUIRED[2:], "-E/--engine NAME"),
    ],
)
def test_all_missing_flags_are_named_at_once(given: tuple[str, ...], missing: str) -> None:
    """By both their names, with the way to learn more."""
    assert error_of(*given, code=USAGE) == f"missing: {missing}; see --help"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--nope",), "no such flag: --nope; see --help"),
        (("--redis-password", "s3cret"), "no such flag: --redis-password; see --help"),
        (("--nope=s3cret", "extra"), "no such flag: --nope; see --help"),
        (
            ("--egine=x", "-prot"),
            "no such flag: --egine (did you mean --engine?), -prot (did you mean --port?); see --help",
        ),
        (("--rules", "x"), "no such flag: --rules (did you mean --metric-rules?); see --help"),
        (("serve",), "unknown argument 'serve': all is said with flags, see --help"),
        (("http://u:p@e",), "unknown argument 'http://***@e': all is said with flags, see --help"),
        (("--port",), "-P/--port needs a value"),
        (("--no-raw-metrics=true",), "--no-raw-metrics takes no value"),
        (
            ("-I", "$(POD_NAME).$(NAMESPACE)"),
            (
                "--pod has a variable that Kubernetes did not expand: define it in the container's env, above what uses it "
                "(docs/deployment.md), got '$(POD_NAME).$(NAMESPACE)'"
            ),
        ),
        (("-P", "http"), "--port must be a number from 0 to 65535 (0 takes a free port), got 'http'"),
        (("-P", "70000"), "--port must be a number from 0 to 65535 (0 takes a free port), got '70000'"),
        (
            ("-E", "nope"),
            (
                f"--engine 'nope' is not known: use one of {', '.join(builtin_engines())}, "
                "or bring rules for it with --metric-rules"
            ),
        ),
        (("-B", "e:80"), "--engine-base-url must be an http or https URL such as http://localhost:8000, got 'e:80'"),
        (
            ("-M", "two\nlines"),
            "--engine-metrics-path must be a path that begins with '/', such as /metrics, got 'two\\nlines'",
        ),
    ],
)
def test_a_wrong_flag_is_named(arguments: tuple[str, ...], error: str) -> None:
    """With what was given and what it could be."""
    assert error_of(*REQUIRED, *arguments, code=USAGE) == error


def test_a_wrong_variable_is_named() -> None:
    """As Kubernetes sets it for a Service that is called runtime."""
    error = error_of(*REQUIRED, code=USAGE, RUNTIME_PORT="tcp://10.96.0.7:80")

    assert error == "RUNTIME_PORT must be a number from 0 to 65535 (0 takes a free port), got 'tcp://10.96.0.7:80'"


def test_a_wrong_variable_of_redis_is_named() -> None:
    """Before anything is started; the secret in it is not shown."""
    error = error_of(*REQUIRED, code=USAGE, REDIS_URL="http://user:s3cret@redis")

    assert error == "REDIS_URL must be a URL such as redis://host:6379/0 or rediss://user:password@host:6379/0"


def test_ranks_that_cannot_be_counted_are_named() -> None:
    """A further rank is a port on, which an endpoint without a port does not have."""
    variables = {"REDIS_HOST": "redis", "KV_EVENTS_ENDPOINT": "ipc:///run/kv", "DATA_PARALLEL_SIZE": "2"}

    error = error_of(*REQUIRED, "-P", "0", code=USAGE, **variables)

    assert error == "KV events: 'ipc:///run/kv' has no port to count ranks from: use tcp://host:port"


def test_a_port_in_use_is_named() -> None:
    """With the way to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        error = error_of(*REQUIRED, "-H", "127.0.0.1", "-P", str(port), code=CANNOT_RUN)

    assert error == f"cannot listen on 127.0.0.1 port {port}: Address already in use; choose with --host and --port"


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("203.0.113.1", "Cannot assign requested address"),
        pytest.param("2001:db8::1", "Cannot assign requested address", marks=needs_ipv6),
        ("no-such-host.invalid", ""),
        ("a..b", ""),
        ("a" * 64, ""),
    ],
)
def test_a_host_that_is_not_this_machine_is_named(host: str, reason: str) -> None:
    """Nobody can listen on another machine's address, nor on a name that is none."""
    error = error_of(*REQUIRED, "-H", host, "-P", "0", code=CANNOT_RUN)

    assert error.startswith(f"cannot listen on {host} port 0: {reason}")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", pytest.param("[::1]", marks=needs_ipv6), "0.0.0.0"])
def test_a_base_url_that_leads_back_is_refused(host: str) -> None:
    """The runtime would scrape itself; any spelling of its own address is seen."""
    port = free_port()

    error = error_of(*REQUIRED, "-P", str(port), "-B", f"http://{host}:{port}/metrics", code=USAGE)

    assert error == (
        f"--engine-base-url http://{host}:{port} is this runtime's own address: "
        "give it the engine's, or another port with --port"
    )


def test_a_base_url_with_the_machines_own_address_is_refused() -> None:
    """The pod's address leads back as localhost does."""
    port, own = free_port(), [address for address in own_addresses() if ":" not in address]
    if not own:
        pytest.skip("this machine has no address beyond loopback")

    error = error_of(*REQUIRED, "-P", str(port), "-B", f"http://{own[0]}:{port}", code=USAGE)

    assert error.startswith(f"--engine-base-url http://{own[0]}:{port} is this runtime's own address: ")


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("missing.yaml", None, "--metric-rules cannot read metric rules FILE: No such file or directory"),
        ("", None, "--metric-rules cannot read metric rules FILE: Is a directory"),
        ("rules.yaml", RULE + "  x", "--metric-rules FILE line 7: not valid YAML: while scanning a simple key: could not find expected ':'; check indent and quotes there"),
        ("rules.yaml", RULE.replace("help", "hepl"), "--metric-rules FILE: metric 'kthena:x': Object contains unknown field `hepl`; a rule has type, help, sources; a source is a name, or has name, where, copies, scale, type; is the indent right?"),
        ("rules.yaml", "engine: sglang\n" + RULE, "--metric-rules FILE is for engine 'sglang', not for 'vllm': change --engine, or 'engine' in the file"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_used_are_named(tmp_path: Path, name: str, text: str | None, error: str) -> None:
    """The runtime does not start with less than it was told to."""
    path = tmp_path / name if name else tmp_path
    if text:
        path.write_text(text)

    assert error_of(*REQUIRED, "--metric-rules", str(path), code=USAGE) == error.replace("FILE", str(path))


def test_an_error_of_many_lines_is_one(tmp_path: Path) -> None:
    """A reader's message with line breaks in it still ends in a single line."""
    path = tmp_path / "rules.yaml"
    path.write_bytes(b"metrics: \xff\n")

    error = error_of(*REQUIRED, "--metric-rules", str(path), code=USAGE)

    assert error.startswith(f"--metric-rules {path}: not valid YAML: unacceptable character #x00ff")
