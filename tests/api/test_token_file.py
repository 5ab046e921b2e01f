"""Secret files that hang or disappear: the runtime starts or says why not, answers, and lets no caller in."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Final

import pytest

from simulators.misbehaving.clients import request, seconds_of_health, status_of
from simulators.misbehaving.hung_volume import hung_volume
from simulators.waiting import wait_until
from tests.harness.runtime import Runtime, run_to_end

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from simulators.misbehaving.hung_volume import HungVolume

pytestmark = [pytest.mark.faults, pytest.mark.slow]

FLAGS: Final = ("--api-token-file", "--engine-api-key-file")
IDENTITY: Final = ("-E", "vllm", "-I", "pod-0.default", "-N", "test-model", "--port", "0")
NOWHERE: Final = "http://127.0.0.1:9"
CALLERS: Final = 30
# What a busy machine may take for what is due in a second.
PATIENCE: Final = 20.0
LIST: Final = "/v1/downloads"
TOKEN: Final = "Authorization: Bearer first\r\n"


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """A token file as Kubernetes mounts it: a symbolic link, replaced as a whole."""
    place(tmp_path / "token", tmp_path / "content")
    (tmp_path / "content").write_text("first\n")
    return tmp_path / "token"


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[HungVolume]:
    """A volume that hangs."""
    with hung_volume(tmp_path / "volume") as volume:
        yield volume


def place(link: Path, target: Path) -> None:
    new = link.with_suffix(".new")
    new.symlink_to(target)
    new.replace(link)


def status(runtime: Runtime, headers: str = TOKEN) -> int:
    return status_of(runtime.url, request("GET", LIST, headers=headers))


@pytest.mark.parametrize("flag", FLAGS)
def test_a_pipe_is_refused_at_the_start(tmp_path: Path, flag: str) -> None:
    """The runtime ends, and does not wait for a program that writes into it."""
    os.mkfifo(tmp_path / "pipe")

    ended = run_to_end(*IDENTITY, flag, str(tmp_path / "pipe"))

    assert ended.returncode == 2
    assert f"{flag} {tmp_path}/pipe: it is not a regular file" in ended.stderr


@pytest.mark.parametrize("flag", FLAGS)
def test_a_file_that_hangs_is_refused_at_the_start(volume: HungVolume, flag: str) -> None:
    """The runtime waits some seconds, and ends."""
    ended = run_to_end(*IDENTITY, flag, str(volume.folder / "token"), group=volume)

    assert ended.returncode == 2
    assert f"{flag} {volume.folder}/token: it was not read within 5 s" in ended.stderr


def test_a_token_that_cannot_be_read_lets_no_one_in(token: Path, tmp_path: Path) -> None:
    """Not the last token, not an empty one, and not a caller without one; one line of log says why."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    with Runtime(NOWHERE, "--api-token-file", str(token)) as runtime:
        assert status(runtime) == 200
        for target in (tmp_path / "pipe", tmp_path / "empty", tmp_path / "nothing"):
            place(token, target)
            with ThreadPoolExecutor(CALLERS) as callers:
                answers = [callers.submit(status, runtime) for _ in range(CALLERS)]
                assert [answer.result() for answer in answers] == [503] * CALLERS
            assert status(runtime, "") == status(runtime, "Authorization: Bearer \r\n") == 503
        answer = runtime.get(LIST, headers={"Authorization": "Bearer first"})
        assert (answer.json()["code"], answer.headers["Retry-After"]) == ("token_unavailable", "5")
        place(token, tmp_path / "content")

        assert status(runtime) == 200
    assert runtime.log.count("a secret file cannot be read") == 1


def test_a_token_on_a_volume_that_hangs(token: Path, volume: HungVolume) -> None:
    """The last token counts for some seconds, then none does; no request waits for the volume for long."""
    with Runtime(NOWHERE, "--api-token-file", str(token), group=volume) as runtime:
        assert status(runtime) == 200
        place(token, volume.folder / "token")
        started = monotonic()
        with ThreadPoolExecutor(CALLERS) as callers:
            answers = [callers.submit(status, runtime) for _ in range(CALLERS)]
            assert {answer.result() for answer in answers} <= {200, 503}
        assert status(runtime, "") in (401, 503)
        assert monotonic() - started < PATIENCE
        wait_until(lambda: status(runtime) == 503, "the token counts no longer")

        assert seconds_of_health(runtime.url) < 5
        assert runtime.get("/ready").status_code == 503
    assert runtime.log.count("a secret file hangs") == 1
