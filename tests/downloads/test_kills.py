"""Downloads that are killed, that end when asked, and that meet another of their kind."""

from __future__ import annotations

import json
import os
import random
import signal
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Final

import pytest

from simulators.misbehaving.proxy import BadProxy
from simulators.misbehaving.proxy_faults import holds, stalls, throttles
from simulators.s3 import OWNER
from simulators.waiting import wait_until
from storage.request.config import Config
from storage.request.download import DownloadRequest
from storage.supervisor.spawn import start
from tests.harness.downloader import Running, contents, pod

if TYPE_CHECKING:
    from simulators.misbehaving.proxy import BadProxy
    from simulators.misbehaving.proxy_exchange import Exchange
    from simulators.s3 import Bucket, S3Server
    from tests.harness.downloader import Downloader

pytestmark = pytest.mark.slow

MB: Final = 1_000_000
WEIGHTS: Final = random.Random(1).randbytes(12 * MB)
MODEL: Final = {"config.json": b"{}", "model.safetensors": WEIGHTS, "tokenizer.json": b"[]" * 1000}
BIG: Final = "/*/model/model.safetensors"
GETS: Final = "/*/model/*"
# A third of the stall timeout, and at most this, is what a read waits for a byte.
READ_SECONDS: Final = 30.0
PATIENT: Final = ("--stall-timeout", "600")


@pytest.fixture
def bucket(s3: S3Server) -> Bucket:
    """A bucket with a model below `model/`."""
    bucket = s3.bucket()
    bucket.put_many(MODEL, prefix="model/")
    return bucket


def spans(target: Path) -> dict[str, list[tuple[int, int]]]:
    """Return which bytes of which file the journal says are there; the last line may be torn."""
    path = target.with_name(f".{target.name}.kthena") / "parts"
    found: dict[str, list[tuple[int, int]]] = {}
    for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else []:
        name, size, _, *rest = json.loads(line)
        found.setdefault(name, []).append((0, size) if rest == ["verified"] else tuple(rest))
    return found


def asked_twice(exchanges: list[Exchange], had: dict[str, list[tuple[int, int]]]) -> list[str]:
    """Return the requests for bytes that were there before."""
    wrong = []
    for exchange in exchanges:
        begin, last = exchange.request.range or (0, None)
        end = last + 1 if last is not None else 1 << 62
        name = exchange.request.path.partition("/model/")[2]
        wrong += [f"{name} {begin}-{end}: had {a}-{b}" for a, b in had.get(name, []) if begin < b and a < end]
    return wrong


@pytest.mark.timeout(1200)
def test_kills_at_any_moment(
    downloader: Downloader, s3: S3Server, s3_proxy: BadProxy, target: Path, thorough: bool
) -> None:
    """Again and again; each next run asks only for what is missing, and in the end every byte is right."""
    rounds = 200 if thorough else 15
    dice = random.Random(2)
    bucket = s3.bucket()
    files = {f"{n}.safetensors": dice.randbytes(24 * MB) for n in range(3)} | {
        f"{n}.json": b"%d" % n for n in range(60)
    }
    bucket.put_many(files, prefix="model/")
    total = sum(map(len, files.values()))
    variables = pod(s3_proxy.url, OWNER)
    wasted = 0
    for _ in range(rounds):
        had = spans(target)
        s3_proxy.behave()
        s3_proxy.misbehave(throttles(seconds=0.002), GETS)
        with downloader.start(bucket.uri("model"), target, "-w", "4", variables=variables) as running:
            moment = dice.randrange(total // rounds * 2)

            def is_there(moment: int = moment, running: Running = running) -> bool:
                return s3_proxy.sent(GETS) >= moment or running.process.poll() is not None

            wait_until(is_there, "its moment", every=0.001)
            running.kill()
        assert asked_twice(s3_proxy.exchanges(GETS, method="GET"), had) == []
        wasted += s3_proxy.sent(GETS)
        if target.exists():
            assert contents(target) == files
    had = spans(target)
    s3_proxy.behave()

    run = downloader.run(bucket.uri("model"), target, variables=variables)

    assert run.code == 0, run.stderr
    assert contents(target) == files
    assert asked_twice(s3_proxy.exchanges(GETS, method="GET"), had) == []
    # What was under way at a kill: four connections, each with an unrecorded piece and full buffers.
    assert wasted + s3_proxy.sent(GETS) <= total + (rounds + 1) * 4 * 8 * MB


def test_a_reader_never_sees_half_a_model(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path
) -> None:
    """While a model comes nothing is at its place; a kill leaves nothing there."""
    s3_proxy.misbehave(stalls(after=1 * MB), BIG)
    with downloader.start(bucket.uri("model"), target, variables=pod(s3_proxy.url, OWNER)) as running:
        wait_until(lambda: s3_proxy.sent(BIG) == 1 * MB, "a megabyte is sent")
        running.kill()

    assert not target.exists() or list(target.iterdir()) == []


@pytest.mark.parametrize("who", ["worker", "parent"])
def test_half_of_the_program_is_killed(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path, who: str
) -> None:
    """A worker is replaced and goes on from there; without its parent it ends."""
    gate = Event()
    s3_proxy.misbehave(holds(gate), BIG, times=1)
    with downloader.start(bucket.uri("model"), target, variables=pod(s3_proxy.url, OWNER)) as running:
        s3_proxy.wait_for(1, BIG)
        parent, worker = running.family()[:2]
        os.kill(worker if who == "worker" else parent, 9)
        if who == "parent":
            wait_until(lambda: not Path(f"/proc/{worker}").exists(), "the worker ends")
            gate.set()
            return
        gate.set()
        ended = running.end()

    assert ended.code == 0, ended.stderr
    assert contents(target) == MODEL


def written(folder: Path) -> int:
    """Return the bytes of the big file that have arrived on disk, wherever it lies now."""
    found = 0
    for path in folder.rglob("model.safetensors"):
        with suppress(OSError):  # it may go while one looks
            found = max(found, path.lstat().st_blocks * 512)
    return found


@pytest.mark.parametrize("number", [2, 15], ids=["SIGINT", "SIGTERM"])
def test_it_is_asked_to_end(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path, number: int
) -> None:
    """Soon, with no process left, and the next run goes on."""
    s3_proxy.misbehave(stalls(after=5 * MB), BIG, times=1)
    variables = pod(s3_proxy.url, OWNER)
    with downloader.start(bucket.uri("model"), target, *PATIENT, variables=variables) as running:
        wait_until(lambda: written(target.parent) >= 4 * MB, "most of the five megabytes that come are on disk")
        family = running.family()
        running.interrupt(number)
        ended = running.end(seconds=READ_SECONDS)
    s3_proxy.behave()

    assert ended.code in {130, 143, -number}, ended.stderr
    assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]
    assert downloader.run(bucket.uri("model"), target, variables=variables).code == 0
    assert s3_proxy.sent(BIG) <= len(WEIGHTS) - 4 * MB


@pytest.mark.parametrize("number", [2, 15], ids=["SIGINT", "SIGTERM"])
def test_it_is_asked_to_end_at_once(downloader: Downloader, bucket: Bucket, target: Path, number: int) -> None:
    """The worker is there before the arguments are read, and goes with whoever started it, without a word."""
    with downloader.start(bucket.uri("model"), target, variables=pod(bucket.server.url, OWNER)) as running:
        wait_until(lambda: len(running.family()) > 1, "the worker is there", every=0.001)
        family = running.family()
        running.interrupt(number)
        ended = running.end()

    assert ended.code in {128 + number, -number}, ended.stderr
    wait_until(lambda: not [pid for pid in family if Path(f"/proc/{pid}").exists()], "the worker has gone")
    assert "failed" not in ended.stdout + ended.stderr


def test_a_worker_is_asked_to_end_again_and_again(bucket: Bucket, s3_proxy: BadProxy, target: Path) -> None:
    """It ends in order: with the code of the first signal, one event that says so, no lock, and no traceback."""
    s3_proxy.misbehave(stalls(after=0), BIG)
    config = Config.from_environ(pod(s3_proxy.url, OWNER))
    request = DownloadRequest(bucket.uri("model"), str(target), config=config)
    with start() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request.to_json().encode() + b"\n")
        process.stdin.flush()
        s3_proxy.wait_for(1, BIG)
        while process.poll() is None:
            process.send_signal(random.choice((signal.SIGTERM, signal.SIGINT)))
        events = [json.loads(line) for line in process.stdout]

    assert process.returncode == 130
    assert [event["code"] for event in events if event["event"] == "failed"] == ["cancelled"]
    assert not list(target.parent.rglob("lock-*"))


def test_two_at_once_download_once(downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path) -> None:
    """The second waits, says for whom, and finds everything done."""
    gate = Event()
    s3_proxy.misbehave(holds(gate), GETS)
    variables = pod(s3_proxy.url, OWNER)
    with downloader.start(bucket.uri("model"), target, variables=variables) as one:
        s3_proxy.wait_for(1, GETS)
        with downloader.start(bucket.uri("model"), target, variables=variables) as two:
            two.wait_to_say(r"(?i)(wait|lock).*\d+")
            gate.set()
            ended = [one.end(), two.end()]

    assert [run.code for run in ended] == [0, 0], ended
    assert contents(target) == MODEL
    assert s3_proxy.sent(GETS) == sum(map(len, MODEL.values()))


def test_a_dead_holder_is_known_at_once(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path
) -> None:
    """On the same machine nobody waits for a lease."""
    lock = target.with_name(f".{target.name}.kthena") / "lock-1"
    s3_proxy.misbehave(stalls(after=5 * MB), BIG, times=1)
    variables = pod(s3_proxy.url, OWNER)
    with downloader.start(bucket.uri("model"), target, variables=variables) as one:
        wait_until(lambda: s3_proxy.sent(BIG) == 5 * MB, "five megabytes are sent")
        with downloader.start(bucket.uri("model"), target, variables=variables) as two:
            two.wait_to_say(r"(?i)(wait|lock).*\d+")
            one.kill()
            # A lease that is renewed never ends: that the holder is dead is all there is to see.
            wait_until(lambda: renewed(lock) and two.process.poll() is not None, "the second is done")
            ended = two.end()

    assert ended.code == 0, ended.stderr
    assert contents(target) == MODEL


def renewed(lock: Path) -> bool:
    """Touch a lock file, as its holder does."""
    with suppress(FileNotFoundError):
        os.utime(lock)
    return True


def test_a_dead_holder_elsewhere_is_taken_over(downloader: Downloader, bucket: Bucket, target: Path) -> None:
    """A lock of another machine that nobody renews: after its lease."""
    lock = target.with_name(f".{target.name}.kthena") / "lock-1"
    lock.parent.mkdir(parents=True)
    holder = {"token": "t", "host": "node-7", "pid": 4711, "boot": "other", "pids": "other", "born": "1"}
    lock.write_text(json.dumps(holder))

    with downloader.start(bucket.uri("model"), target, variables=pod(bucket.server.url, OWNER)) as running:
        running.wait_to_say("4711 on node-7")
        ended = running.end()

    assert ended.code == 0, ended.stderr
    assert contents(target) == MODEL


def test_a_live_holder_elsewhere_is_not(downloader: Downloader, bucket: Bucket, target: Path) -> None:
    """As long as its lock is renewed; who cannot wait ends with the code for it."""
    lock = target.with_name(f".{target.name}.kthena") / "lock-1"
    lock.parent.mkdir(parents=True)
    lock.write_text(json.dumps({"token": "t", "host": "node-7", "pid": 4711, "boot": "o", "pids": "o", "born": "1"}))

    run = downloader.run(bucket.uri("model"), target, "--lock-timeout", "1", variables=pod(bucket.server.url, OWNER))

    assert run.code == 8, run.stderr
    assert "4711 on node-7" in run.stderr
    assert not target.exists()


ELSEWHERE: Final = {"token": "t", "host": "node-7", "pid": 4711, "boot": "other", "pids": "other", "born": "1"}
PLACES: Final = {"inside": ".kthena/work", "beside": "../.target.kthena"}


@pytest.fixture(params=["plain", "write root"])
def asker(request: pytest.FixtureRequest, target: Path) -> tuple[str, ...]:
    """The arguments of a process that keeps its work beside the target, or in it."""
    return ("--write-root", str(target)) if request.param == "write root" else ()


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_holder_is_seen_from_everywhere(
    downloader: Downloader, bucket: Bucket, target: Path, asker: tuple[str, ...], place: str
) -> None:
    """Wherever it keeps its work: processes with other mounts and write roots share one target."""
    variables = pod(bucket.server.url, OWNER)
    assert downloader.run(bucket.uri("model"), target, variables=variables).code == 0
    bucket.put("model/config.json", b"new")
    (target / place).mkdir(parents=True)
    (target / place / "lock-1").write_text(json.dumps(ELSEWHERE))

    run = downloader.run(bucket.uri("model"), target, "--lock-timeout", "1", *asker, variables=variables)

    assert run.code == 8, run.stderr
    assert "4711 on node-7" in run.stderr
    assert contents(target) == MODEL


@pytest.mark.parametrize("published", [False, True], ids=["new", "there"])
def test_two_that_work_in_different_places_download_once(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path, asker: tuple[str, ...], *, published: bool
) -> None:
    """The second waits for the first, whichever place it has."""
    variables = pod(s3_proxy.url, OWNER)
    if published:
        assert downloader.run(bucket.uri("model"), target, variables=pod(bucket.server.url, OWNER)).code == 0
        bucket.put("model/config.json", b"new")
    other = () if asker else ("--write-root", str(target))
    gate = Event()
    s3_proxy.misbehave(holds(gate), GETS)
    with downloader.start(bucket.uri("model"), target, *asker, variables=variables) as one:
        s3_proxy.wait_for(1, GETS)
        with downloader.start(bucket.uri("model"), target, *other, variables=variables) as two:
            two.wait_to_say(r"(?i)(wait|lock).*\d+")
            gate.set()
            ended = [one.end(), two.end()]

    assert [run.code for run in ended] == [0, 0], ended
    assert contents(target) == MODEL | ({"config.json": b"new"} if published else {})
    assert s3_proxy.sent(GETS) == (3 if published else sum(map(len, MODEL.values())))
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert [path.name for path in (target / ".kthena").iterdir()] == ["manifest.json"]


def test_an_empty_place_that_another_begins_to_fill(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path
) -> None:
    """While a download was under way: its holder is waited for before the first file appears."""

    def act(exchange: Exchange) -> None:
        work = target / ".kthena" / "work"
        work.mkdir(parents=True)
        (work / "lock-1").write_text(json.dumps(ELSEWHERE))
        exchange.reply(exchange.ask())

    s3_proxy.misbehave(act, BIG, times=1)
    variables = pod(s3_proxy.url, OWNER)

    run = downloader.run(bucket.uri("model"), target, "-w", "1", "--lock-timeout", "1", variables=variables)

    assert run.code == 8, run.stderr
    assert "4711 on node-7" in run.stderr
    assert contents(target) == {}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_replacement_that_was_cut_short_is_known_from_everywhere(
    downloader: Downloader, bucket: Bucket, target: Path, asker: tuple[str, ...], place: str
) -> None:
    """Its former manifest lies in the target, or beside it, as version 0.1 left it: no old file remains."""
    variables = pod(bucket.server.url, OWNER)
    assert downloader.run(bucket.uri("model"), target, variables=variables).code == 0
    (target / place / ".kthena").mkdir(parents=True)
    (target / ".kthena" / "manifest.json").rename(target / place / ".kthena" / "manifest.json")
    bucket.delete("model/tokenizer.json")
    bucket.put("model/new.json", b"new")

    run = downloader.run(bucket.uri("model"), target, *asker, variables=variables)

    assert run.code == 0, run.stderr
    assert contents(target) == {"config.json": b"{}", "model.safetensors": WEIGHTS, "new.json": b"new"}
    assert [path.name for path in (target / ".kthena").iterdir()] == ["manifest.json"]
    assert downloader.run(bucket.uri("model"), target, "--verify", "--offline").code == 0
