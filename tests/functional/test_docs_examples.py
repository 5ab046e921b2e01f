"""The examples of the documents, run as they stand there: commands, queries, logs, configuration."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from exporter import __version__
from tests.documents import DOCUMENTS, blocks, commands, read, section
from tests.peers.bad_engine import BadEngine
from tests.peers.engine import Engine
from tests.peers.ports import free_port
from tests.peers.prometheus import Prometheus, binary
from tests.peers.runtime import SCRIPT, Runtime, environment
from tests.peers.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.documents import Block

ADDRESS: Final = "http://localhost:9000"
ANYTHING: Final = "…"
AWAY: Final = "engine-away"
BUSY_PORT: Final = "8100"
END_OF_OUTPUT: Final = "\x1e"

CONSOLES: Final = [
    pytest.param(block, id=f"{name} {number}")
    for name in DOCUMENTS
    for number, block in enumerate(blocks(read(name), "console"), start=1)
]
QUERIES: Final = sorted(
    {
        re.sub(r"(?m)^#.*\n?", "", query).strip()
        for name in ("docs/metrics.md", "docs/operations.md")
        for block in blocks(read(name), "promql")
        for query in block.text.split("\n\n")
    }
)


@pytest.fixture(scope="module")
def addresses() -> Iterator[dict[str, str]]:
    """Return the runtimes' addresses by what the block says: one before an engine that is there, one before none."""
    with ExitStack() as running:
        engine = running.enter_context(Engine(model="test-model"))
        engine.run_requests(20)
        nobody = running.enter_context(BadEngine("refused"))
        runtimes = {"": engine.url, AWAY: nobody.url}
        yield {note: running.enter_context(Runtime(url)).url for note, url in runtimes.items()}


def run(lines: list[str]) -> list[list[str]]:
    """Run commands in one shell, and return what each printed."""
    after = f"status=$?; printf '%s' '{END_OF_OUTPUT}'; (exit $status)"
    script = "\n".join(part for line in lines for part in (line, after))
    variables = environment()
    variables["PATH"] = f"{SCRIPT.parent}:{variables['PATH']}"
    done = subprocess.run(
        ["bash", "-c", f"exec 2>&1\n{script}"],
        env=variables,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    outputs = done.stdout.split(END_OF_OUTPUT)
    assert len(outputs) == len(lines) + 1, done.stdout
    return [output.splitlines() for output in outputs[:-1]]


def steady(line: str) -> str:
    """Return a line without what differs from one run and one machine to another."""
    line = re.sub(r'("samples": )\d+', r"\g<1>N", line)
    return re.sub(r'("(?:version|python)": )"[\d.]+"', r'\1"V"', line).strip()


def first_that_is_missing(shown: list[str], printed: list[str]) -> str | None:
    """Return the first shown line that the output lacks, the lines being in the order of the output."""
    rest = iter(map(steady, printed))
    return next((line for line in map(steady, shown) if line and line != ANYTHING and line not in rest), None)


@pytest.mark.parametrize("block", CONSOLES)
def test_a_command_prints_what_is_shown(block: Block, addresses: dict[str, str]) -> None:
    """The status is the one shown, and every line shown comes, in that order."""
    port = str(free_port())
    text = block.text.replace(BUSY_PORT, port).replace(ADDRESS, addresses[block.note])
    examples = commands(type(block)(block.language, block.note, text))

    printed = run([command for command, _ in examples])

    for (command, shown), lines in zip(examples, printed, strict=True):
        assert first_that_is_missing(shown, lines) is None, "\n".join([command, *lines])
        if shown[0].startswith("HTTP/"):
            assert lines[0].strip() == shown[0]
        elif not command.startswith("curl"):
            assert lines == shown


def test_every_curl_of_the_http_api_shows_its_status() -> None:
    """No example of a route is there without what it answers."""
    examples = [example for block in blocks(read("docs/http-api.md"), "console") for example in commands(block)]

    assert [command for command, shown in examples if not re.match(r"HTTP/1\.1 \d{3} \w", shown[0])] == []
    assert "curl" not in "".join(block.text for block in blocks(read("docs/http-api.md"), "sh"))


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrape a busy engine, one that is away, and one that is taken for another."""
    with ExitStack() as running:
        engine = running.enter_context(Engine(load=50.0)).url
        nobody = running.enter_context(BadEngine("refused")).url
        runtimes = [Runtime(engine), Runtime(nobody), Runtime(engine, engine="sglang")]
        urls = [running.enter_context(runtime).url for runtime in runtimes]
        yield running.enter_context(Prometheus(tmp_path_factory.mktemp("prometheus"), {"kthena-runtime": urls}))


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_has_an_answer(query: str, prometheus: Prometheus) -> None:
    """Prometheus takes it, and finds what it asks for: numbers, not NaN."""
    wait_until(lambda: any(result["value"][1] != "NaN" for result in prometheus.query(query)), f"{query} has an answer")


def numberless(line: str) -> str:
    """Return a log line without its moment, its addresses and the version."""
    line = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "MOMENT", line)
    return re.sub(r"http://[\w.]+:\d+", "ADDRESS", line).replace(__version__, "VERSION")


@pytest.mark.parametrize(("form", "language"), [("text", "text"), ("json", "json")])
def test_the_log_looks_as_shown(form: str, language: str, start_runtime: Callable[..., Runtime]) -> None:
    """A start, an engine that is away and an end are logged as the example has them."""
    (example,) = blocks(section(read("docs/configuration.md"), "Logs"), language)
    with BadEngine("refused") as engine:
        runtime = start_runtime(engine.url, "--log-format", form)
        runtime.page()
        runtime.stop()

    assert [numberless(line) for line in runtime.log.splitlines()] == [
        numberless(line) for line in example.text.splitlines()
    ]
    assert form == "text" or all(json.loads(line) for line in example.text.splitlines())


def test_prometheus_takes_the_scrape_job(tmp_path: Path) -> None:
    """The job of the README is a configuration that Prometheus's own checker accepts."""
    file = tmp_path / "prometheus.yml"
    (job,) = (block.text for block in blocks(read("README.md"), "yaml") if "scrape_configs" in block.text)
    file.write_text(job)

    checked = subprocess.run([binary("promtool"), "check", "config", file], capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout + checked.stderr
