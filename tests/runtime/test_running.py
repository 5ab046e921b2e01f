"""The console script at work: what its flags make it do, what it logs, and how a signal ends it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from simulators.addresses import has_ipv6
from simulators.ports import free_port
from simulators.waiting import wait_until
from tests.harness.runtime import SCRIPT, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.harness.runtime import Runtime

REQUIRED = ("-E", "vllm", "-I", "pod-0.default", "-N", "test-model")
NO_ENGINE = "http://127.0.0.1:1"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
# Comes first when others than this machine can reach the port.
OPEN = TIME + r" WARNING exporter\.service: .* --api-token-file\n"


def is_open(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def run_until_signal(
    *arguments: str,
    port: int,
    host: str = "127.0.0.1",
    variables: Mapping[str, str] | None = None,
    number: int = signal.SIGTERM,
) -> tuple[int, str]:
    """Run the script, send the signal as soon as its port is open, and return the exit code and the log."""
    command: list[str | Path] = [SCRIPT, *arguments]
    with subprocess.Popen(command, env=environment(variables), stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: is_open(host, port) or process.poll() is not None, "the port is open")
            process.send_signal(number)
            _, log = process.communicate(timeout=30)
        finally:
            process.kill()
    return process.returncode, log


def start_line(host: str, port: int, engine: str, url: str) -> str:
    return rf"{TIME} INFO    exporter\.service: kthena-runtime \S+ serves http://{host}:{port} for {engine} at {url}\n"


@pytest.mark.parametrize(
    "names",
    [
        ("-E", "-H", "-P", "-B", "-M", "-I", "-N"),
        ("--engine", "--host", "--port", "--engine-base-url", "--engine-metrics-path", "--pod", "--model"),
    ],
    ids=["short", "long"],
)
def test_the_ordered_flags_are_followed(names: tuple[str, ...]) -> None:
    """Engine, address, port and the engine's page are those that were asked for."""
    port = free_port()
    values = ("SGLang", "127.0.0.1", str(port), NO_ENGINE, "/m", "pod-0.default", "test-model")
    arguments = [word for pair in zip(names, values, strict=True) for word in pair]

    code, log = run_until_signal(*arguments, port=port)

    assert code == 0
    assert re.match(start_line("127.0.0.1", port, "sglang", f"{NO_ENGINE}/m"), log)


def test_the_defaults_are_those_of_the_order() -> None:
    """It listens on all addresses, for an engine at localhost:8000."""
    port = free_port()

    code, log = run_until_signal(*REQUIRED, port=port, variables={"RUNTIME_PORT": str(port)})

    assert code == 0
    assert re.match(OPEN + start_line("0.0.0.0", port, "vllm", "http://localhost:8000/metrics"), log)


def test_the_variables_stand_in_for_flags() -> None:
    """Of the port both are given: the flag wins."""
    port = free_port()
    variables = {"RUNTIME_PORT": "1", "RUNTIME_URL": f"{NO_ENGINE}/m/", "RUNTIME_METRICS_PATH": "/m"}

    code, log = run_until_signal(*REQUIRED, "-P", str(port), port=port, variables=variables)

    assert code == 0
    assert re.match(OPEN + start_line("0.0.0.0", port, "vllm", f"{NO_ENGINE}/m"), log)


def test_the_sidecar_in_use_today_starts() -> None:
    """Its args and env are taken as they stand, but for the port; variables of others are left alone."""
    port = free_port()
    arguments = (
        f"--port {port} --engine vllm --engine-base-url http://localhost:8000 --engine-metrics-path /metrics "
        "--pod test-model-0.models --model test-model"
    )
    variables = {
        "ENDPOINT": "https://obs.test.com",
        "RUNTIME_PORT": str(port),
        "POD_NAME": "test-model-0",
        "NAMESPACE": "models",
        "VLLM_USE_V1": "1",
        "ACCESS_KEY": "access",
        "SECRET_KEY": "secret",
    }

    code, log = run_until_signal(*arguments.split(), port=port, variables=variables)

    assert code == 0
    assert re.match(OPEN + start_line("0.0.0.0", port, "vllm", "http://localhost:8000/metrics"), log)
    assert "secret" not in log


def test_pod_and_model_are_shown(start_runtime: Callable[..., Runtime]) -> None:
    """The page for people says whose runtime this is, with names made harmless."""
    page = start_runtime(NO_ENGINE, "-I", "pod-1.models", "-N", "<qwen>").page("/")

    assert "pod-1.models" in page
    assert "&lt;qwen&gt;" in page
    assert "<qwen>" not in page


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
def test_it_listens_on_ipv6_too() -> None:
    """Its address is then written in brackets."""
    port = free_port()

    code, log = run_until_signal(*REQUIRED, "-H", "::1", "-P", str(port), "-B", NO_ENGINE, port=port, host="::1")

    assert code == 0
    assert re.match(start_line(r"\[::1\]", port, "vllm", f"{NO_ENGINE}/metrics"), log)


def test_rules_of_the_users_own_are_followed(start_runtime: Callable[..., Runtime], tmp_path: Path) -> None:
    """A new engine's standard metrics are looked for, and no others."""
    path = tmp_path / "rules.yaml"
    path.write_text(
        "engine: mine\nmetrics:\n  kthena:x:\n    type: gauge\n    help: Help.\n    sources: [my_x]\n", encoding="utf-8"
    )

    page = start_runtime(NO_ENGINE, "--metric-rules", str(path), engine="Mine").page()

    assert re.findall(r"(?m)^kthena_runtime_standard_metric_present.*", page) == [
        'kthena_runtime_standard_metric_present{metric="kthena:x"} 0.0'
    ]


def test_the_log_is_text_lines(start_runtime: Callable[..., Runtime]) -> None:
    """Instant, level, logger and message: it starts, the engine is away, it ends."""
    runtime = start_runtime(NO_ENGINE)
    runtime.get()
    runtime.stop()

    start, away, end = runtime.log.splitlines(keepends=True)
    assert re.fullmatch(
        start_line("127.0.0.1", int(runtime.url.rpartition(":")[2]), "vllm", f"{NO_ENGINE}/metrics"), start
    )
    assert re.fullmatch(TIME + r" WARNING exporter\.engine\.news: engine metrics unavailable: refused: .+\n", away)
    assert re.fullmatch(TIME + r" INFO    exporter\.service: ended\n", end)


def test_what_is_most_likely_not_meant_is_logged_first(start_runtime: Callable[..., Runtime]) -> None:
    """A pod without its namespace is taken, with a warning."""
    log = start_runtime(NO_ENGINE, "--pod", "pod-0").log

    assert re.match(TIME + r" WARNING exporter\.service: --pod 'pod-0' has no namespace: .+\n", log)


def test_secrets_of_the_engines_url_are_not_shown(start_runtime: Callable[..., Runtime]) -> None:
    """A token in the query is neither in the log nor on the landing page, which show all else of the URL."""
    runtime = start_runtime(NO_ENGINE, "--engine-metrics-path", "/m?token=s3cret")

    page = runtime.page("/")

    assert f"{NO_ENGINE}/m?***\n" in runtime.log
    assert f"<code>{NO_ENGINE}/m?***</code>" in page
    assert "s3cret" not in runtime.log + page


def test_the_log_can_be_json_lines(start_runtime: Callable[..., Runtime]) -> None:
    """Each line is one object with the same four fields."""
    runtime = start_runtime(NO_ENGINE, "--log-format", "json")
    runtime.get()
    runtime.stop()

    entries = [json.loads(line) for line in runtime.log.splitlines()]

    assert [(entry["level"], entry["logger"]) for entry in entries] == [
        ("info", "exporter.service"),
        ("warning", "exporter.engine.news"),
        ("info", "exporter.service"),
    ]
    assert all(set(entry) == {"time", "level", "logger", "message"} for entry in entries)
    assert all(re.fullmatch(TIME, entry["time"]) for entry in entries)
    assert entries[-1]["message"] == "ended"


def test_the_log_can_be_quiet() -> None:
    """From level error up there is nothing to say of a run without errors."""
    port = free_port()

    ended = run_until_signal(*REQUIRED, "-P", str(port), "-B", NO_ENGINE, "--log-level", "error", port=port)

    assert ended == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(start_runtime: Callable[..., Runtime], number: int) -> None:
    """Exit code 0, soon, with an idle connection still open."""
    runtime = start_runtime(NO_ENGINE)
    runtime.get("/health")

    code, seconds = runtime.stop(number)

    assert code == 0
    assert seconds < 10
    assert "cut off" not in runtime.log
    assert runtime.log.endswith("ended\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_right_after_the_port_opens_ends_it_cleanly(number: int) -> None:
    """No moment between binding and serving is left in which a signal would kill."""
    for _ in range(3):
        port = free_port()

        code, log = run_until_signal(*REQUIRED, "-P", str(port), "-B", NO_ENGINE, port=port, number=number)

        assert (code, "Traceback" in log) == (0, False), log
