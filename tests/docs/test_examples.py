"""The examples of the documents, run as they stand there: commands, queries, logs, configuration."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from contextlib import ExitStack, contextmanager
from itertools import count
from threading import Event, Thread
from time import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from exporter import __version__
from simulators.adapters import make_adapter
from simulators.engine.__main__ import Engine
from simulators.kv.frames import Store
from simulators.kv.publisher import KvPublisher
from simulators.misbehaving.engine import BadEngine
from simulators.ports import free_port
from simulators.prometheus import Prometheus, binary
from simulators.redis import RedisServer
from simulators.waiting import PATIENCE, wait_until
from tests.harness.documents import DOCUMENTS, ROOT, blocks, commands, read, section
from tests.harness.downloader import COMMAND as DOWNLOADER
from tests.harness.runtime import SCRIPT, Runtime, environment
from tests.kv.running import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.harness.documents import Block

pytestmark = pytest.mark.slow

ADDRESS: Final = "http://localhost:9000"
REDIS: Final = "-h redis"
ANYTHING: Final = "…"
AWAY: Final = "engine-away"
KV: Final = "kv-events"
KV_SILENT: Final = "kv-silent"
KV_AWAY: Final = "kv-away"
LORA: Final = "lora"
LORA_LOADED: Final = "lora-loaded"
DOWNLOADS: Final = "downloads"
DOWNLOADED: Final = "downloaded"
TOKEN: Final = "token"
# What stands in the examples: a volume, a directory for models, and a download.
VOLUME: Final = "pvc://adapters"
MODELS: Final = "/models/"
DOWNLOAD: Final = "7c7a9c82af36"
BLOCK: Final = Store([1], range(1, 17))
BLOCK_KEY: Final = b"matrix:kv:block:test-model@6615856733697512468"
BUSY_PORT: Final = "8100"
END_OF_OUTPUT: Final = "\x1e"
# Time enough for six runtimes to read their engines, on a machine that is busy with other things.
INTERVAL: Final = "3s"

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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with adapters, a directory for models, and the downloader as a command."""
    folder = tmp_path_factory.mktemp("examples")
    for name, rank in (("sql", 8), ("big", 64)):
        make_adapter(folder / "adapters" / name, rank=rank, base_model_name_or_path="test-model")
    (folder / "token").write_text("TOKEN\n")
    program = folder / "bin" / "kthena-downloader"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {shlex.join(DOWNLOADER)} "$@"\n')
    program.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def addresses(folder: Path) -> Iterator[dict[str, str]]:
    """Return what stands for what in the examples: runtimes' addresses by the block's note, and the rest."""
    with ExitStack() as running:
        engine, other, loaded = (running.enter_context(Engine(model="test-model")) for _ in range(3))
        engine.run_requests(20)
        nobody = running.enter_context(BadEngine("refused"))
        server = running.enter_context(RedisServer())
        publisher, silent = (running.enter_context(KvPublisher()) for _ in range(2))
        directories = ("--lora-dir", f"{folder}/models/lora-adapters", "--write-root", f"{folder}/models")
        runtimes = {
            "": Runtime(engine.url),
            AWAY: Runtime(nobody.url),
            KV: Runtime(engine.url, variables=kv_variables(server.url, publisher.endpoint)),
            KV_SILENT: Runtime(
                engine.url, "--pod", "pod-1.default", variables=kv_variables(server.url, silent.endpoint)
            ),
            KV_AWAY: Runtime(engine.url, variables=kv_variables(*gone())),
            LORA: Runtime(other.url, *directories),
            LORA_LOADED: Runtime(loaded.url, *directories),
            DOWNLOADS: Runtime(engine.url),
            DOWNLOADED: Runtime(engine.url, *directories),
            TOKEN: Runtime(engine.url, "--api-token-file", f"{folder}/token"),
        }
        urls = {note: running.enter_context(runtime).url for note, runtime in runtimes.items()}
        for each in (publisher, silent):
            each.wait_for_subscriber()
        publisher.publish(BLOCK)
        wait_until(lambda: server.keys_of("pod-0.default"), "the block is in Redis")
        wait_until(lambda: runtimes[KV_SILENT].get("/ready").ok, "Redis takes the index of the silent one")
        told = {"source": f"pvc:/{folder}/adapters/sql", "output_dir": f"{folder}/models/sql"}
        done = post(runtimes[DOWNLOADED], "/v1/download_model", told)
        post(runtimes[LORA_LOADED], "/v1/load_lora_adapter", told | {"lora_name": "org/sql"})
        yield urls | {REDIS: f"-p {server.port}", DOWNLOAD: done["download"]["id"]}


def post(runtime: Runtime, path: str, body: dict[str, str]) -> Any:
    answer = runtime.session.post(runtime.url + path, json=body, timeout=PATIENCE)
    assert answer.ok, answer.text
    return answer.json()


def kv_variables(redis_url: str, endpoint: str) -> dict[str, str]:
    return {"REDIS_URL": redis_url, "KV_EVENTS_ENDPOINT": endpoint}


def gone() -> tuple[str, str]:
    """Return a Redis and an endpoint where nobody is."""
    return f"redis://127.0.0.1:{free_port()}", f"tcp://127.0.0.1:{free_port()}"


def run(lines: list[str], programs: Path) -> list[list[str]]:
    """Run commands in one shell, and return what each printed."""
    after = f"status=$?; printf '%s' '{END_OF_OUTPUT}'; (exit $status)"
    script = "\n".join(part for line in lines for part in (line, after))
    variables = environment()
    variables["PATH"] = f"{programs}:{SCRIPT.parent}:{variables['PATH']}"
    done = subprocess.run(
        ["bash", "-c", f"exec 2>&1\n{script}"],
        env=variables,
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    outputs = done.stdout.split(END_OF_OUTPUT)
    assert len(outputs) == len(lines) + 1, done.stdout
    return [output.splitlines() for output in outputs[:-1]]


def steady(line: str) -> str:
    """Return a line without what differs from one run and one machine to another."""
    line = re.sub(r'("samples": )\d+', r"\g<1>N", line)
    line = re.sub(r"/lora-adapters/[0-9a-f]{32}/", "/lora-adapters/BASE/", line)
    line = re.sub(r"tcp://[\w.]+:\d+", "ENDPOINT", line)
    line = re.sub(r"^\d{10}$", "SECONDS", line)
    line = re.sub(r'("(?:created|started|finished|loaded_since)": )\d+\.\d+', r"\g<1>SECONDS", line)
    line = re.sub(r'("id": "|Location: /v1/downloads/)[0-9a-f]{12}', r"\g<1>ID", line)
    line = re.sub(r"^(room in \S+): .*,|^(kthena-downloader: done: .* in) [\d.]+ s$", r"\g<1>\g<2>", line)
    line = re.sub(r'"bytes_fetched": \d+', '"bytes_fetched": N', line)
    return re.sub(r'("(?:version|python)": )"[\d.]+"', r'\1"V"', line).strip()


def first_that_is_missing(shown: list[str], printed: list[str]) -> str | None:
    """Return the first shown line that the output lacks, the lines being in the order of the output."""
    rest = iter(map(steady, printed))
    return next((line for line in map(steady, shown) if line and line != ANYTHING and line not in rest), None)


@pytest.mark.parametrize("block", CONSOLES)
def test_a_command_prints_what_is_shown(block: Block, addresses: dict[str, str], folder: Path) -> None:
    """The status is the one shown, and every line shown comes, in that order."""
    port = str(free_port())
    text = block.text.replace(BUSY_PORT, port).replace(ADDRESS, addresses[block.note]).replace(REDIS, addresses[REDIS])
    if block.note in (LORA, LORA_LOADED, DOWNLOADS, DOWNLOADED):
        text = text.replace(VOLUME, f"pvc:/{folder}/adapters").replace("error: /adapters", f"error: {folder}/adapters")
        text = text.replace(MODELS, f"{folder}/models/").replace(DOWNLOAD, addresses[DOWNLOAD])
    examples = commands(type(block)(block.language, block.note, text))

    printed = run([command for command, _ in examples], folder / "bin")

    for (command, shown), lines in zip(examples, printed, strict=True):
        assert first_that_is_missing(shown, lines) is None, "\n".join([command, *lines])
        if shown[0].startswith("HTTP/"):
            assert lines[0].strip() == shown[0]
        elif not command.startswith("curl"):
            assert list(map(steady, lines)) == list(map(steady, shown))


def test_every_curl_of_the_http_api_shows_its_status() -> None:
    """No example of a route is there without what it answers."""
    examples = [example for block in blocks(read("docs/http-api.md"), "console") for example in commands(block)]

    assert [command for command, shown in examples if not re.match(r"HTTP/1\.1 \d{3} \w", shown[0])] == []
    assert "curl" not in "".join(block.text for block in blocks(read("docs/http-api.md"), "sh"))


def test_the_rights_of_redis_suffice() -> None:
    """The user of kv-events.md can do all that the runtime does, and Redis notes no refusal."""
    (rule,) = (block.text for block in blocks(read("docs/kv-events.md"), "text") if block.text.startswith("ACL"))
    words = rule.replace("PASSWORD", "secret").split()
    with RedisServer() as server, KvPublisher() as publisher, Engine() as engine:
        server.client.execute_command(*words)  # type: ignore[no-untyped-call]
        url = server.url.replace("//", f"//{words[2]}:secret@").removesuffix("/0") + "/3"
        with Runtime(engine.url, variables=kv_variables(url, publisher.endpoint)) as runtime:
            publisher.wait_for_subscriber()
            publisher.publish(BLOCK)
            wait_until(lambda: keys(server, 3) == [b"kthena:kv:pod:pod-0.default", BLOCK_KEY], "it writes")
            wait_until(lambda: server.calls().get("info", 0) > 2, "it looks after Redis")
            assert runtime.get("/ready").json()["checks"]["redis"]["status"] == "ok"

        assert keys(server, 3) == []
        assert server.client.acl_log() == []


def keys(server: RedisServer, database: int) -> list[bytes]:
    """Return all keys of a database."""
    with connect(server.url.replace("/0", f"/{database}")) as client:
        return sorted(client.scan_iter("*"))


@contextmanager
def keep_publishing(publisher: KvPublisher) -> Iterator[None]:
    """Publish another block ten times a second, and leave every second message out."""
    stopping = Event()

    def publish() -> None:
        numbers = count()
        while not stopping.wait(0.1):
            for send in (False, True):
                number = next(numbers)
                block = Store([number], range(number, number + 16))
                publisher.publish_payload(publisher.form.batch(block, ts=time()), send=send)

    thread = Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrape a busy engine, one that is away, one that is taken for another, KV events and adapters, good and bad."""
    folder = tmp_path_factory.mktemp("model")
    model = {"kind": "Model", "spec": {"backends": [{"loraAdapters": [{"name": "a", "artifactURL": "pvc://gone/a"}]}]}}
    (folder / "model.yaml").write_text(json.dumps(model))
    adapters = ("--model-config", f"{folder}/model.yaml", "--lora-dir", f"{folder}/lora", "--write-root", str(folder))
    with ExitStack() as running:
        engine = running.enter_context(Engine(load=50.0)).url
        nobody = running.enter_context(BadEngine("refused")).url
        server = running.enter_context(RedisServer())
        publisher = running.enter_context(KvPublisher())
        runtimes = [
            Runtime(engine),
            Runtime(nobody),
            Runtime(engine, engine="sglang"),
            Runtime(engine, variables=kv_variables(server.url, publisher.endpoint)),
            Runtime(engine, variables=kv_variables(*gone())),
            Runtime(engine, *adapters, "--reconcile-interval", "1"),
        ]
        running.enter_context(keep_publishing(publisher))
        urls = [running.enter_context(runtime).url for runtime in runtimes]
        folder = tmp_path_factory.mktemp("prometheus")
        yield running.enter_context(Prometheus(folder, {"kthena-runtime": urls}, interval=INTERVAL))


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
