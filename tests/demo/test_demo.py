"""`make demo`: shows moving numbers, and ends without a trace however it is ended."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Final

import pytest
import requests

from demo.programs import HOST, RUNTIME_PORT
from exporter.telemetry.names import STANDARD
from simulators.ports import free_port
from simulators.waiting import PATIENCE, wait_until
from tests.demo.process import DemoProcess
from tests.harness.documents import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

FIGURES: Final = r"tokens/s [1-9][\d,]*  waiting \d+  running \d+  KV cache \d+%  TTFT [\d./]+ m?s"
EACH_FIGURE: Final = (r"tokens/s ([\d,]+)", r"TTFT ([\d./]+) ", r"TPOT ([\d./]+) ", r"e2e ([\d./]+) ")
LANDING: Final = r"Landing page +(http://127\.0\.0\.1:(\d+))/"
PROMETHEUS: Final = r"Prometheus +(http://127\.0\.0\.1:\d+)/\S*"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def assert_nothing_left(demo: DemoProcess) -> None:
    assert not demo.left()
    assert not list(demo.folder.iterdir())
    assert "Traceback" not in str(demo)


def has_moved(demo: DemoProcess) -> bool:
    """Whether each figure has had two values by now."""
    return all(len(set(re.findall(figure, str(demo)))) > 1 for figure in EACH_FIGURE)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_it_shows_moving_numbers(engine: str, tmp_path: Path) -> None:
    """In a log there are the links, the five standard metrics, and lines whose figures change."""
    with DemoProcess("--engine", engine, "--load", "16", folder=tmp_path) as demo:
        wait_until(lambda: has_moved(demo) or demo.process.poll() is not None, "all figures have moved")

        demo.process.send_signal(signal.SIGINT)

        assert demo.wait() == 0, str(demo)
        url = demo.wait_for(LANDING)[1]
        for part in (f"{url}/metrics\n", f"{url}/ready\n", *STANDARD, "have ended"):
            assert part in str(demo)
        assert "\x1b" not in demo.raw
        assert_nothing_left(demo)


def test_a_duration_ends_it(tmp_path: Path) -> None:
    """It ends by itself with code 0, and sums up what it saw in that time."""
    with DemoProcess("--duration", "2", folder=tmp_path) as demo:
        assert demo.wait() == 0, str(demo)
        assert re.search(r"finished requests in [12] scrapes\. All programs have ended\.", str(demo))
        assert_nothing_left(demo)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it(number: signal.Signals, tmp_path: Path) -> None:
    """It ends with code 0, and with it all of its programs and files."""
    with DemoProcess(folder=tmp_path) as demo:
        demo.wait_for(FIGURES)

        demo.process.send_signal(number)

        assert demo.wait() == 0, str(demo)
        assert_nothing_left(demo)


def test_a_signal_ends_it_while_it_starts(tmp_path: Path) -> None:
    """Whoever changes their mind need not wait."""
    with DemoProcess(folder=tmp_path) as demo:
        demo.wait_for("Kthena Runtime")

        demo.process.send_signal(signal.SIGINT)

        assert demo.wait() == 0, str(demo)
        assert_nothing_left(demo)


def test_a_demo_that_is_killed_takes_its_children_along(tmp_path: Path) -> None:
    """Nothing keeps running that nobody would end."""
    with DemoProcess(folder=tmp_path) as demo:
        demo.wait_for(FIGURES)

        demo.process.kill()

        demo.process.wait(timeout=PATIENCE)
        wait_until(lambda: not demo.left(), "its children have ended")


@pytest.mark.parametrize("engine", ["foo", ""])
def test_make_refuses_an_unknown_engine(engine: str) -> None:
    """In one line that says which there are."""
    # Without what a make above this one tells those below.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "demo", f"ENGINE={engine}"],
        cwd=ROOT, env=variables, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"Makefile:\d+: \*\*\* ENGINE must be vllm or sglang, not '{engine}'\.  Stop\.\n", done.stderr)


@pytest.mark.parametrize(
    ("child", "name"),
    [("simulators.engine", "engine"), ("kthena-runtime", "runtime"), ("/prometheus ", "prometheus")],
)
def test_a_child_that_dies_ends_it(child: str, name: str, tmp_path: Path) -> None:
    """It says which one, how, and what that one said last; the others end with it."""
    with DemoProcess(folder=tmp_path) as demo:
        demo.wait_for(FIGURES)

        os.kill(demo.child(child), signal.SIGKILL)

        assert demo.wait() == 1, str(demo)
        assert re.search(rf"demo: error: the {name} was ended by SIGKILL; its last words:\r?\n  \S", str(demo))
        assert_nothing_left(demo)


def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    """A port that was asked for is used or refused, in the runtime's own words."""
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with DemoProcess(folder=tmp_path, ports=("--port", str(port))) as demo:
            assert demo.wait() == 1, str(demo)
            assert "the runtime ended by itself with exit code 1; its last words:\n  " in str(demo)
            assert f"cannot listen on {HOST} port {port}" in str(demo)
            assert_nothing_left(demo)


def test_it_steps_aside_from_the_usual_port(tmp_path: Path) -> None:
    """Where the runtime's usual port is taken, it takes another."""
    try:
        taken = socket.create_server((HOST, RUNTIME_PORT))
    except OSError:
        taken = socket.socket()
    with taken, DemoProcess(folder=tmp_path, ports=("--prometheus-port", "0")) as demo:
        assert demo.wait_for(LANDING)[2] != str(RUNTIME_PORT)


def test_a_prometheus_scrapes_the_runtime(tmp_path: Path) -> None:
    """The metric of the query beside the link is there to be looked at."""
    with DemoProcess(folder=tmp_path) as demo:
        url = demo.wait_for(PROMETHEUS)[1]
        query = {"query": "kthena:num_requests_running"}

        found = wait_until(
            lambda: requests.get(f"{url}/api/v1/query", params=query, timeout=PATIENCE).json()["data"]["result"],
            "Prometheus has scraped",
        )

        assert found[0]["metric"]["job"] == "kthena-runtime"


def test_it_does_without_prometheus(tmp_path: Path) -> None:
    """Where there is none, a line says how to get it."""
    with DemoProcess(folder=tmp_path, variables={"PATH": "/nowhere"}) as demo:
        demo.wait_for(r"Prometheus +not on the PATH: `apt-get install prometheus`")
        demo.wait_for(FIGURES)


def test_settings_of_this_machine_do_not_reach_it(tmp_path: Path) -> None:
    """Variables of a runtime and a proxy that stand around change nothing."""
    variables = {"RUNTIME_METRICS_PATH": "/no", "REQUEST_TIMEOUT": "no", "http_proxy": f"http://{HOST}:{free_port()}"}
    with DemoProcess(folder=tmp_path, variables=variables) as demo:
        demo.wait_for(FIGURES)


@pytest.mark.parametrize("size", [None, (100, 30)])
def test_a_reader_that_goes_ends_it(size: tuple[int, int] | None, tmp_path: Path) -> None:
    """`make demo | head`, or a window that is closed, leaves nothing running."""
    with DemoProcess(folder=tmp_path, size=size) as demo:
        demo.wait_for("kthena:e2e_request_latency_seconds")

        demo.close()

        # A terminal's end is a signal too, which may come before the next line fails.
        assert demo.wait() in ({0, 1} if size else {1}), str(demo)
        assert_nothing_left(demo)


@pytest.mark.parametrize("key", [b"\x03", b"q"])
def test_a_terminal_is_drawn_on_and_restored(key: bytes, tmp_path: Path) -> None:
    """In place, without cursor and echo; Ctrl-C ends it, and the terminal is as before."""
    with DemoProcess(folder=tmp_path, size=(100, 30)) as demo:
        demo.wait_for(r"(?s)\x1b\[12A.*kthena:generation_tokens_total +[1-9][\d,]*/s")
        assert not demo.echoes()
        assert str(demo) != demo.raw, "there are no colours"

        demo.type(b"x")
        demo.type(key)

        assert demo.wait() == 0, str(demo)
        assert str(demo).rindex(HIDE_CURSOR) < str(demo).rindex(SHOW_CURSOR) < str(demo).rindex("have ended")
        assert_nothing_left(demo)


def test_a_terminal_may_change_its_size(tmp_path: Path) -> None:
    """The screen is drawn anew for its new width and height, links included."""
    with DemoProcess(folder=tmp_path, size=(100, 30), variables={"NO_COLOR": "1"}) as demo:
        demo.wait_for("kthena:e2e_request_latency_seconds")

        demo.resize(40, 9)

        drawn = demo.wait_for(r"(?s)\x1b\[2J.+Landing page.+ tokens/s .+\x1b\[J")[0]
        block = drawn[drawn.rindex(" Load ") :]
        assert block.count("\n") == 8
        assert str(demo) == demo.raw, "there are colours, though NO_COLOR is set"


def test_a_terminal_is_restored_when_a_child_dies(tmp_path: Path) -> None:
    """The error stands below the last numbers, on a terminal that works."""
    with DemoProcess(folder=tmp_path, size=(100, 30)) as demo:
        demo.wait_for("kthena:e2e_request_latency_seconds")

        os.kill(demo.child("simulators.engine"), signal.SIGKILL)

        assert demo.wait() == 1, str(demo)
        assert str(demo).rindex(SHOW_CURSOR) < str(demo).rindex("demo: error: the engine")
        assert_nothing_left(demo)


@pytest.mark.parametrize("arguments", [("--engine", "none"), ("--load", "-1"), ("--duration", "nan")])
def test_bad_usage_is_told_at_once(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Nothing is started."""
    with DemoProcess(*arguments, folder=tmp_path) as demo:
        assert demo.wait() == 2
        assert f"argument {arguments[0]}: invalid" in str(demo)
