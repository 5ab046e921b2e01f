"""Volumes that hang, and pipes where files should be: the runtime starts or says why not, and answers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest

from simulators.misbehaving.clients import seconds_of_health
from simulators.misbehaving.hung_volume import hung_volume
from simulators.reading import samples
from simulators.waiting import wait_until
from tests.harness.runtime import Runtime, run_to_end

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from simulators.misbehaving.hung_volume import HungVolume

pytestmark = [pytest.mark.faults, pytest.mark.slow]

IDENTITY: Final = ("-E", "vllm", "-I", "pod-0.default", "-N", "test-model", "--port", "0")
NOWHERE: Final = "http://127.0.0.1:9"
FREE: Final = "kthena_runtime_storage_free_bytes"
# By flag: what stands before the reason.
FILES: Final = {
    "--metric-rules": "--metric-rules cannot read metric rules {}: ",
    "--model-config": "--model-config {}: ",
}
RULES: Final = "metrics:\n  kthena:x:\n    type: gauge\n    help: X.\n    sources: [x]\n"


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[HungVolume]:
    """A volume that hangs."""
    with hung_volume(tmp_path / "volume") as volume:
        yield volume


def refusal(*arguments: str, group: HungVolume | None = None) -> str:
    """Return why the runtime does not start."""
    ended = run_to_end(*IDENTITY, *arguments, group=group)
    assert ended.returncode == 2, ended.stderr
    return ended.stderr


def test_a_write_root_that_hangs(tmp_path: Path, volume: HungVolume) -> None:
    """Scrapes have the figures of the other write root, and one thread waits however many scrapes there are."""
    (tmp_path / "good").mkdir()
    roots = ("--write-root", str(volume.folder), "--write-root", str(tmp_path / "good"))
    with Runtime(NOWHERE, *roots, group=volume) as runtime:
        wait_until(lambda: f'{FREE}{{root="{tmp_path}/good"}}' in runtime.page(), "the good volume is measured")
        wait_until(lambda: volume.waiting, "the other one hangs")
        for _ in range(20):
            page = samples(runtime.page())
            assert f'{FREE}{{root="{volume.folder}"}}' not in page
        assert runtime.get("/ready").json()["checks"]["engine"]["status"] == "failing"
        assert seconds_of_health(runtime.url) < 5
        assert len(volume.waiting) == 1


@pytest.mark.parametrize("flag", FILES)
def test_a_file_that_hangs_is_refused_at_the_start(volume: HungVolume, flag: str) -> None:
    """The runtime waits some seconds, and ends."""
    path = volume.folder / "file"

    error = refusal(flag, str(path), group=volume)

    assert FILES[flag].format(path) + "no answer within 5 s: is it on a volume that hangs?" in error


def test_a_state_directory_that_hangs_is_refused_at_the_start(volume: HungVolume) -> None:
    """The runtime waits some seconds, and ends."""
    error = refusal("--state-dir", str(volume.folder / "state"), group=volume)

    assert f"--state-dir {volume.folder}/state: no answer within 5 s: is it on a volume that hangs?" in error


@pytest.mark.parametrize("flag", FILES)
def test_what_is_no_regular_file_is_refused_at_the_start(tmp_path: Path, flag: str) -> None:
    """Neither a pipe, which would be waited for, nor a device, which may have no end, nor a directory; links neither."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    reasons = {
        tmp_path / "pipe": "it is not a regular file",
        tmp_path / "link": "it is not a regular file",
        "/dev/zero": "it is not a regular file",
        tmp_path: "Is a directory",
    }
    for path, reason in reasons.items():
        assert FILES[flag].format(path) + reason in refusal(flag, str(path))


def test_rules_that_are_too_large_are_refused(tmp_path: Path) -> None:
    """They are not read as a whole first."""
    with (tmp_path / "rules.yaml").open("wb") as file:
        file.truncate(1 << 40)

    assert "rules.yaml: it has more than 4194304 bytes" in refusal("--metric-rules", str(tmp_path / "rules.yaml"))


def test_a_link_to_rules_is_followed(tmp_path: Path) -> None:
    """Kubernetes mounts files as links, through a directory that is one, too."""
    (tmp_path / "..1").mkdir()
    (tmp_path / "..1" / "rules.yaml").write_text(RULES)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "rules.yaml").symlink_to("..data/rules.yaml")
    with Runtime(NOWHERE, "--metric-rules", str(tmp_path / "rules.yaml")) as runtime:
        assert runtime.page()


def test_a_model_file_that_becomes_a_pipe(tmp_path: Path) -> None:
    """That is said while it lasts; a file that is missing at the start may come later."""
    model = tmp_path / "model.yaml"
    with Runtime(NOWHERE, "--model-config", str(model)) as runtime:
        for make, detail in ((None, "No such file"), (os.mkfifo, "it is not a regular file")):
            if make:
                make(model)
            wait_until(lambda: detail in runtime.get("/ready").json()["checks"]["lora"]["detail"], detail)  # noqa: B023


def test_a_state_file_that_is_a_pipe(tmp_path: Path) -> None:
    """The runtime starts, and says that it cannot read it."""
    os.mkfifo(tmp_path / "lora-adapters.json")
    with Runtime(NOWHERE, "--state-dir", str(tmp_path)) as runtime:
        said = "the adapters' state file cannot be read: it is not a regular file"
        wait_until(lambda: said in runtime.log, "it is logged")
