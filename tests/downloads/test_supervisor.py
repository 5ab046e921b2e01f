"""The supervisor, with workers that are small programs: what it makes of what they say and do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from threading import Event
from time import sleep
from typing import TypedDict, Unpack

import pytest

from simulators.waiting import PATIENCE
from storage.errors import BusyError, NotFoundError, SourceError, StorageError, TargetError
from storage.request.config import Config, Secret
from storage.request.download import DownloadRequest
from storage.supervisor.limits import Limits
from storage.supervisor.observer import Silent
from storage.supervisor.status import JobStatus, State
from storage.supervisor.supervisor import Supervisor

PLANNED = {
    "event": "planned", "action": "download", "source": "hf://org/model", "revision": "abc", "files": 2, "bytes": 100, "kept_files": 0,
    "kept_bytes": 10, "fetch_files": 2, "fetch_bytes": 90, "resumed_bytes": 20, "free_bytes": 10**9,
}  # fmt: skip
DONE = {"event": "done", "files": 2, "bytes": 100, "fetched_bytes": 70, "revision": "abc", "seconds": 1.0}


def progress(done: int) -> dict[str, object]:
    return {"event": "progress", "bytes": done, "total": 100, "hashed": 0, "file": "a.bin", "files_done": 0}


def says(*events: object, then: str = "") -> list[str]:
    """Return a worker that reads its request, says this, and does that."""
    lines = "\n".join(json.dumps(event) if isinstance(event, dict) else str(event) for event in events)
    return [sys.executable, "-c", f"import os, sys, time; sys.stdin.readline(); print({lines!r}, flush=True); {then}"]


class More(TypedDict, total=False):
    """What some requests have besides a source and a directory."""

    config: Config
    fresh: bool


class Recorder(Silent):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.fetched = 0

    def download_started(self, job: JobStatus) -> None:
        self.told.append(f"started {job.scheme}")

    def download_progress(self, _job: JobStatus, fetched: int) -> None:
        self.fetched += fetched

    def download_retry(self, _job: JobStatus, reason: str) -> None:
        self.told.append(f"retry {reason}")

    def download_finished(self, job: JobStatus) -> None:
        self.told.append(f"finished {job.state}")


# Limits of workers that do not step back: the machine is busy with other tests.
limits = partial(Limits, worker_nice=0)


def request(tmp_path: Path, source: str = "org/model", **more: Unpack[More]) -> DownloadRequest:
    return DownloadRequest(source, str(tmp_path / "m"), **more)


def finish(supervisor: Supervisor, tmp_path: Path, **more: Unpack[More]) -> JobStatus:
    try:
        return supervisor.wait(supervisor.submit(request(tmp_path, **more)).id, PATIENCE)
    finally:
        supervisor.stop()


def error_of(job: JobStatus) -> StorageError:
    assert job.error is not None
    return job.error


def test_a_download_that_goes_well(tmp_path: Path) -> None:
    """Its numbers come from the worker; observers hear of bytes that came now, not of those that were there."""
    recorder = Recorder()
    worker = says(PLANNED, "no event at all", progress(50), progress(100), DONE)

    job = finish(Supervisor(limits(), observer=recorder, command=worker), tmp_path)

    assert (job.state, job.error, job.source) == (State.DONE, None, "hf://org/model")
    assert (job.bytes_done, job.bytes_planned, job.bytes_fetched, job.files) == (100, 100, 70, 2)
    assert job.started is not None
    assert job.finished is not None
    assert job.started <= job.finished
    assert (recorder.told, recorder.fetched) == (["started hf", "finished done"], 70)
    assert job.to_json()["state"] == "done"


def test_an_error_keeps_its_code(tmp_path: Path) -> None:
    """Denied is not tried again."""
    failed = {"event": "failed", "code": "gated", "message": "accept the terms", "exit_code": 4}

    job = finish(Supervisor(limits(), command=says(failed)), tmp_path)

    assert (job.state, job.retries) == (State.FAILED, 0)
    assert job.to_json()["error"] == {"code": "gated", "message": "accept the terms"}
    assert error_of(job).exit_code == 4


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    """As long as there is hope; then its death is the error."""
    recorder = Recorder()

    job = finish(
        Supervisor(limits(restarts=1), observer=recorder, command=says(PLANNED, then="os.kill(os.getpid(), 9)")),
        tmp_path,
    )

    assert (job.state, error_of(job).code) == (State.FAILED, "worker_died")
    assert recorder.told == ["started hf", "retry died", "finished failed"]


def test_a_worker_that_stalls_is_killed_and_goes_on(tmp_path: Path) -> None:
    """The next one finds what the first has left."""
    flag = tmp_path / "flag"
    # The second says all in one go: however busy the machine is, it does not stall.
    begun, whole = (
        "\n".join(map(json.dumps, said)) for said in ((PLANNED, progress(50)), (PLANNED, progress(50), DONE))
    )
    code = (
        "import os, sys, time; sys.stdin.readline()\n"
        f"if os.path.exists({str(flag)!r}): print({whole!r}, flush=True)\n"
        f"else: open({str(flag)!r}, 'w').close(); print({begun!r}, flush=True); time.sleep(600)"
    )
    recorder = Recorder()
    worker = [sys.executable, "-c", code]

    job = finish(Supervisor(limits(stall_timeout=1.0), observer=recorder, command=worker), tmp_path)

    assert (job.state, job.retries) == (State.DONE, 1)
    assert recorder.told == ["started hf", "retry stalled", "finished done"]


def test_a_worker_that_only_repeats_itself_stalls(tmp_path: Path) -> None:
    """The same number of bytes, and tries again, are no progress."""
    again = {"event": "retry", "file": "a", "reason": "timeout", "detail": "slow"}
    then = f"[(print({json.dumps(progress(50))!r}), print({json.dumps(again)!r}, flush=True), time.sleep(0.1)) for _ in range(6000)]"

    job = finish(
        Supervisor(limits(stall_timeout=1.0, restarts=0), command=says(PLANNED, progress(50), then=then)), tmp_path
    )

    assert (job.state, error_of(job).code, error_of(job).exit_code) == (State.FAILED, "stalled", 6)


def test_who_is_slow_to_take_what_it_says_is_no_stall(tmp_path: Path) -> None:
    """As with progress in a pipe that is read now and then."""

    class Slow(Recorder):
        def download_progress(self, _job: JobStatus, fetched: int) -> None:
            super().download_progress(_job, fetched)
            sleep(0.7)

    recorder = Slow()
    worker = says(PLANNED, progress(50), progress(60), progress(100), DONE)

    job = finish(Supervisor(limits(stall_timeout=1.0), observer=recorder, command=worker), tmp_path)

    assert (job.state, job.retries) == (State.DONE, 0)


def test_the_same_asked_twice_is_one_job(tmp_path: Path) -> None:
    """However it is written; another directory is another job."""
    supervisor = Supervisor(limits(jobs=4), command=says(PLANNED, then="time.sleep(600)"))
    try:
        first = supervisor.submit(request(tmp_path))
        same = supervisor.submit(request(tmp_path, "hf://org/model"))
        other = supervisor.submit(DownloadRequest("org/model", str(tmp_path / "n")))

        assert first.id == same.id != other.id
        assert [job.id for job in supervisor.list()] == [first.id, other.id]
    finally:
        supervisor.stop()


def test_one_that_must_be_fresh_joins_none_that_runs(tmp_path: Path) -> None:
    """That one may have listed the source already; one that waits for its turn has not."""
    supervisor = Supervisor(limits(jobs=1), command=says(then="time.sleep(60)"))
    try:
        running = supervisor.submit(request(tmp_path, fresh=True))
        waiting = supervisor.submit(request(tmp_path, fresh=True))

        assert waiting.id != running.id
        assert supervisor.submit(request(tmp_path, fresh=True)).id == waiting.id
    finally:
        supervisor.stop()


def test_cancel_ends_the_worker(tmp_path: Path) -> None:
    """Also one that does not listen; and a queued job never starts."""
    pid = tmp_path / "pid"
    then = (
        f"import signal, pathlib; signal.signal(15, signal.SIG_IGN); "
        f"pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); print({json.dumps(progress(50))!r}, flush=True); time.sleep(600)"
    )
    running = Event()

    class Waits(Silent):
        def download_progress(self, _job: JobStatus, _fetched: int) -> None:
            running.set()

    supervisor = Supervisor(limits(jobs=1), observer=Waits(), command=says(PLANNED, then=then))
    try:
        first = supervisor.submit(request(tmp_path))
        second = supervisor.submit(DownloadRequest("org/other", str(tmp_path / "n")))
        assert running.wait(PATIENCE)

        assert supervisor.cancel(second.id).state is State.CANCELLED
        supervisor.cancel(first.id)

        job = supervisor.wait(first.id, PATIENCE)
        assert (job.state, error_of(job).code) == (State.CANCELLED, "cancelled")
        assert not Path(f"/proc/{pid.read_text()}").exists()
    finally:
        supervisor.stop()


def test_what_never_started_is_forgotten_too(tmp_path: Path) -> None:
    """Also while the places are taken for long: the list has an end."""
    supervisor = Supervisor(limits(jobs=1, remembered=3), command=says(PLANNED, then="time.sleep(600)"))
    running = supervisor.submit(request(tmp_path))

    cancelled = [supervisor.cancel(supervisor.submit(request(tmp_path, f"org/m{n}")).id).id for n in range(9)]

    assert [job.id for job in supervisor.list()] == [running.id, *cancelled[-3:]]
    supervisor.stop()


def test_a_failure_of_the_supervision_is_no_success(tmp_path: Path) -> None:
    """A worker that says what makes no sense has not brought a model."""
    job = finish(Supervisor(limits(), command=says(PLANNED | {"bytes": "many"}, DONE)), tmp_path)

    assert (job.state, error_of(job).code) == (State.FAILED, "worker_died")


def test_stop_leaves_no_worker(tmp_path: Path) -> None:
    """Nor a queued job, and nothing is taken on afterwards."""
    supervisor = Supervisor(limits(jobs=1), command=says(PLANNED, then="time.sleep(600)"))
    jobs = [supervisor.submit(DownloadRequest("org/model", str(tmp_path / name))) for name in "ab"]

    supervisor.stop()

    assert [supervisor.get(job.id).state for job in jobs] == [State.CANCELLED] * 2
    listed = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "sys.stdin.readline"], capture_output=True, check=False
    )
    assert listed.stdout == b""
    with pytest.raises(BusyError):
        supervisor.submit(request(tmp_path))


def test_what_makes_no_sense_is_refused_at_once(tmp_path: Path) -> None:
    """Before there is a job."""
    supervisor = Supervisor(limits(write_roots=(str(tmp_path),)))

    with pytest.raises(SourceError):
        supervisor.submit(request(tmp_path, "nonsense"))
    with pytest.raises(TargetError):
        supervisor.submit(DownloadRequest("org/model", "/srv/m"))
    with pytest.raises(NotFoundError):
        supervisor.get("none")
    assert supervisor.list() == []


def test_too_many_are_refused(tmp_path: Path) -> None:
    """The queue is bounded."""
    supervisor = Supervisor(limits(jobs=1, queued=1), command=says(then="time.sleep(600)"))
    try:
        for name in "ab":
            supervisor.submit(DownloadRequest("org/model", str(tmp_path / name)))
        with pytest.raises(BusyError):
            supervisor.submit(DownloadRequest("org/model", str(tmp_path / "c")))
    finally:
        supervisor.stop()


def test_secrets_travel_on_standard_input(tmp_path: Path) -> None:
    """And the worker gets them there; its arguments are those of everybody."""
    out = tmp_path / "request"
    worker = [
        sys.executable, "-c",
        f"import sys, pathlib; pathlib.Path({str(out)!r}).write_text(sys.stdin.readline()); print({json.dumps(DONE)!r})",
    ]  # fmt: skip

    job = finish(Supervisor(limits(), command=worker), tmp_path, config=Config(hf_token=Secret("hf_secret")))

    assert DownloadRequest.from_json(out.read_text()).config.hf_token == Secret("hf_secret")
    assert "hf_secret" not in repr(job)


def test_the_supervisor_knows_no_download_library() -> None:
    """They would stay in the sidecar's memory for ever."""
    script = (
        "import sys, storage.supervisor.supervisor, storage.request.source, storage.errors, storage.disk.layout;"
        "print({name.partition('.')[0] for name in sys.modules} & {'boto3', 'botocore', 'huggingface_hub', 'urllib3', 'tqdm'})"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"
