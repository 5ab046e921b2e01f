"""kthena-downloader: its flags, its exit codes, what it prints, and what it says of copies that are there."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import pytest

from simulators.s3 import OWNER
from simulators.waiting import wait_until
from tests.harness.downloader import COMMAND, contents, pod
from tests.harness.runtime import environment

if TYPE_CHECKING:
    from simulators.misbehaving.proxy import BadProxy
    from simulators.s3 import Bucket, S3Server
    from tests.harness.downloader import Downloader

MODEL: Final = {"config.json": b"{}", "weights/model.safetensors": bytes(range(256)) * 4096, "empty.txt": b""}
SIZE: Final = sum(map(len, MODEL.values()))
GETS: Final = "/*/model/*"


@pytest.fixture
def bucket(s3: S3Server) -> Bucket:
    """A bucket with a model below `model/`."""
    bucket = s3.bucket()
    bucket.put_many(MODEL, prefix="model/")
    return bucket


@pytest.fixture
def published(downloader: Downloader, bucket: Bucket, target: Path) -> Path:
    """A copy of that model."""
    assert downloader.run(bucket.uri("model"), target, variables=pod(bucket.server.url, OWNER)).code == 0
    return target


def call(
    *arguments: str, variables: dict[str, str] | None = None, stdout: IO[str] | int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run the program with exactly these arguments."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(variables),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("name", "code"), [("model", 0), ("nothing", 3)])
def test_streams_that_are_closed(bucket: Bucket, target: Path, closed: str, name: str, code: int) -> None:
    """They take no code with them, and no download."""
    line = f"exec {COMMAND[0]} -s {bucket.uri(name)} -o {target} --progress json {closed}"

    ended = subprocess.run(
        ["sh", "-c", line], env=environment(pod(bucket.server.url, OWNER)), capture_output=True, timeout=60, check=False
    )

    assert ended.returncode == code, ended.stderr
    assert b"Traceback" not in ended.stderr
    assert target.exists() is (code == 0)


def test_a_pipe_that_nobody_reads(s3: S3Server, target: Path) -> None:
    """It holds everything up, but not the end that was asked for."""
    bucket = s3.bucket()
    bucket.put_many({f"model/{number}.json": b"{}" for number in range(100)})
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    command = [*COMMAND, "-s", bucket.uri("model"), "-o", str(target), "--progress", "json"]
    process = subprocess.Popen(command, env=environment(pod(s3.url, OWNER)), stdout=writer, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: not select.select([], [writer], [], 0)[1], "the pipe is full")
        process.terminate()

        assert process.wait(30) == 143
    finally:
        process.kill()
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize(
    "flags",
    [
        ("-s", "--source"), ("-o", "--output-dir"), ("-w", "--max-workers"), ("-c", "--config"), ("--progress",),
        ("--include",), ("--exclude",), ("--verify",), ("--offline",), ("--dry-run",), ("--stall-timeout",),
        ("--retries",), ("--lock-timeout",), ("--write-root",), ("--replace",), ("--worker-memory",), ("-h", "--help"),
    ],
)  # fmt: skip
def test_help_has_the_flags(flags: tuple[str, ...]) -> None:
    """Short and long names together."""
    ended = call("--help", variables={"COLUMNS": "500"})

    assert (ended.returncode, ended.stderr) == (0, "")
    assert [
        line for line in ended.stdout.splitlines() if all(f" {flag}" in f" {line.replace(',', ' ')}" for flag in flags)
    ]


@pytest.mark.parametrize("code", [0, 2, 3, 4, 5, 6, 7, 8, 9, 10])
def test_help_has_the_exit_codes(code: int) -> None:
    """Each with its cause."""
    assert f" {code} " in f" {' '.join(call('--help').stdout.split())} "


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--source"),
        (("-s", "org/model"), "--output-dir"),
        (("-o", "/models/x"), "--source"),
        (("-s", "ftp://host/x", "-o", "/models/x"), "ftp://host/x"),
        (("-s", "s3://", "-o", "/models/x"), "s3://"),
        (("-s", "s3://bucket/../x", "-o", "/models/x"), ".."),
        (("-s", "model", "-o", "/models/x"), "namespace/repo"),
        (("-s", "/models/y", "-o", "/models/x"), "pvc://"),
        (("-s", "pvc://", "-o", "/models/x"), "pvc://"),
        (("-s", "pvc://claim/../x", "-o", "/models/x"), ".."),
        (("-s", "org/model", "-o", "/models/x", "-w", "0"), "max_workers"),
        (("-s", "org/model", "-o", "/models/x", "-w", "many"), "--max-workers"),
        (("-s", "org/model", "-o", "/models/x", "-c", "{"), "JSON"),
        (("-s", "org/model", "-o", "/models/x", "-c", "[]"), "--config"),
        (("-s", "org/model", "-o", "/models/x", "-c", '{"hf_tokn": "secret"}'), "hf_tokn"),
        (("-s", "org/model", "-o", "/models/x", "-c", '{"hf_token": 7}'), "hf_token"),
        (("-s", "org/model", "-o", "/models/x", "-c", '{"access_key": "secret"}'), "secret_key"),
        (("-s", "org/model", "-o", "/models/x", "-c", '{"endpoint": "ftp://x"}'), "endpoint"),
        (("-s", "org/model", "-o", "/models/x", "--progress", "fancy"), "--progress"),
        (("-s", "org/model", "-o", "/models/x", "--nope"), "--nope"),
        (("-s", "org/model", "-o", "/models/x", "--worker-memory", "1Mi"), "--worker-memory: must be a size of at least 64Mi"),
        (("-s", "org/model", "-o", "/models/x", "--worker-memory", "much"), "--worker-memory"),
        (("-s", "org/model", "-o", "/"), "/"),
        (("-s", "org/model", "-o", "/etc/models"), "/etc/models"),
        (("-s", "org/model", "-o", "/usr/lib/x"), "/usr/lib/x"),
        (("-s", "org/model", "-o", "/proc/self/x"), "/proc/self/x"),
        (("-s", "org/model", "-o", ""), "output"),
        (("-s", "org/model", "-o", "~nobody-of-that-name/x"), "~nobody-of-that-name/x"),
        (("-s", "org/model", "-o", "/models/x", "-c", '{"hf_token": ' + "[" * 100_000), "JSON"),
    ],
)  # fmt: skip
def test_usage_errors_are_named(arguments: tuple[str, ...], words: str) -> None:
    """With exit code 2, on one line, before anything is touched; secrets in them are not repeated."""
    ended = call(*arguments)

    assert ended.returncode == 2, ended.stderr
    assert words in ended.stderr
    assert ": secret" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_loop_of_links_is_named(tmp_path: Path) -> None:
    """As an output directory, and as a volume."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)

    as_target = call("-s", "org/model", "-o", str(loop / "x"))
    as_source = call("-s", f"pvc:/{loop}/x", "-o", str(tmp_path / "target"))

    assert (as_target.returncode, as_source.returncode) == (2, 3)
    for ended in (as_target, as_source):
        assert str(loop) in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("arguments", [("--progress", "json"), ("--dry-run",)], ids=["events", "dry run"])
def test_an_output_that_takes_nothing_is_named(
    downloader: Downloader, bucket: Bucket, target: Path, arguments: tuple[str, ...]
) -> None:
    """A full disk under a log is not taken for a fault of the download."""
    variables = pod(bucket.server.url, OWNER, HOME=str(downloader.home))

    with Path("/dev/full").open("w") as full:
        ended = call("-s", bucket.uri("model"), "-o", str(target), *arguments, variables=variables, stdout=full)

    assert ended.returncode == 1
    assert "standard output" in ended.stderr
    assert "Traceback" not in ended.stderr


def on_terminal(rows: int, columns: int, *arguments: str, variables: dict[str, str]) -> str:
    """Run the program with a terminal of this size as standard error; return what that showed."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with subprocess.Popen([*COMMAND, *arguments], env=environment(variables), stdin=subprocess.DEVNULL, stderr=theirs):
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # how the other end's close reads here
            while data := os.read(ours, 4096):
                shown += data
    os.close(ours)
    return shown.decode()


def test_a_terminal_shows_a_bar(downloader: Downloader, bucket: Bucket, target: Path) -> None:
    """Below what it is of; and one of a check, which begins at nothing."""
    variables = pod(bucket.server.url, OWNER, HOME=str(downloader.home), TERM="xterm")
    arguments = ("-s", bucket.uri("model"), "-o", str(target))

    fetched = on_terminal(40, 100, *arguments, variables=variables)
    checked = on_terminal(40, 100, *arguments, "--verify", variables=variables)
    unchanged = on_terminal(40, 100, *arguments, variables=variables)

    for shown, words in ((fetched, "files to fetch"), (checked, "files to check")):
        assert shown.index(words) < shown.index("  0%|") < shown.index("100%|") < shown.index("done: ")
    assert "0 of " in unchanged
    assert "%|" not in unchanged


def test_a_terminal_without_a_size_gets_lines(downloader: Downloader, bucket: Bucket, target: Path) -> None:
    """As a pod with `tty: true` has one: a bar would not be seen in its log."""
    variables = pod(bucket.server.url, OWNER, HOME=str(downloader.home))

    shown = on_terminal(0, 0, "-s", bucket.uri("model"), "-o", str(target), variables=variables)

    assert "files to fetch" in shown
    assert "done: " in shown
    assert "%|" not in shown


def test_a_bad_variable_is_named(target: Path) -> None:
    """As a flag is."""
    ended = call("-s", "s3://models/x", "-o", str(target), variables={"ENDPOINT": "not a url"})

    assert ended.returncode == 2, ended.stderr
    assert "ENDPOINT" in ended.stderr


def test_the_config_overrides_the_environment(downloader: Downloader, bucket: Bucket, target: Path) -> None:
    """For one download: keys and endpoint."""
    config = {"endpoint": bucket.server.url, "access_key": OWNER.access, "secret_key": OWNER.secret}
    variables = {"ENDPOINT": "http://127.0.0.1:9", "ACCESS_KEY": "x", "SECRET_KEY": "wrong-secret"}

    run = downloader.run(bucket.uri("model"), target, variables=variables, config=config)

    assert run.code == 0, run.stderr
    assert contents(target) == MODEL


def test_progress_is_json_when_asked(downloader: Downloader, bucket: Bucket, target: Path) -> None:
    """One object a line on standard output, from the plan to the end."""
    run = downloader.run(bucket.uri("model"), target, "--progress", "json", variables=pod(bucket.server.url, OWNER))

    assert run.code == 0, run.stderr
    kinds = [event["event"] for event in run.events]
    assert (kinds[-1], "planned" in kinds) == ("done", True)
    planned = next(event for event in run.events if event["event"] == "planned")
    assert (planned["bytes"], planned["files"]) == (SIZE, len(MODEL))


def test_a_failure_is_json_too(downloader: Downloader, bucket: Bucket, target: Path) -> None:
    """With a code for programs."""
    run = downloader.run(bucket.uri("nope"), target, "--progress", "json", variables=pod(bucket.server.url, OWNER))

    assert run.code == 3
    assert (run.events[-1]["event"], run.events[-1]["code"]) == ("failed", "not_found")


def test_a_log_has_whole_lines(downloader: Downloader, bucket: Bucket, target: Path) -> None:
    """No bar and no escape sequences where no terminal is."""
    run = downloader.run(bucket.uri("model"), target, variables=pod(bucket.server.url, OWNER))

    assert run.code == 0
    assert "\x1b" not in run.said
    assert "\r" not in run.said
    assert [line.partition(" ")[0] for line in run.said.splitlines()] == ["kthena-downloader:"] * 2
    assert "done: 3 files" in run.said


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("--include", "*.json"), {"config.json"}),
        (("--exclude", "weights/*"), {"config.json", "empty.txt"}),
        (("--include", "weights/", "--include", "*.txt"), {"weights/model.safetensors", "empty.txt"}),
        (("--include", "*", "--exclude", "*.txt", "--exclude", "*.json"), {"weights/model.safetensors"}),
    ],
)
def test_patterns_choose(
    downloader: Downloader,
    bucket: Bucket,
    s3_proxy: BadProxy,
    target: Path,
    patterns: tuple[str, ...],
    expected: set[str],
) -> None:
    """What is fetched, too."""
    run = downloader.run(bucket.uri("model"), target, *patterns, variables=pod(s3_proxy.url, OWNER))

    assert run.code == 0, run.stderr
    assert set(contents(target)) == expected
    assert s3_proxy.sent(GETS) == sum(len(MODEL[name]) for name in expected)


def test_a_dry_run_writes_nothing(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path, tmp_path: Path
) -> None:
    """It says how many files and bytes would be fetched, and how much room there is."""
    before = set(tmp_path.rglob("*"))

    run = downloader.run(bucket.uri("model"), target, "--dry-run", variables=pod(s3_proxy.url, OWNER))

    assert run.code == 0, run.stderr
    assert set(tmp_path.rglob("*")) == before
    assert s3_proxy.sent(GETS) == 0
    assert f"to fetch: {len(MODEL)} files, {SIZE} bytes" in run.stdout
    assert re.search(rf"room in {target}: \d+ bytes", run.stdout)


def test_a_dry_run_knows_what_is_there(downloader: Downloader, bucket: Bucket, published: Path) -> None:
    """Only what changed would be fetched."""
    bucket.put("model/config.json", b"changed")

    run = downloader.run(
        bucket.uri("model"), published, "--dry-run", "--progress", "json", variables=pod(bucket.server.url, OWNER)
    )

    assert run.code == 0, run.stderr
    planned = next(event for event in run.events if event["event"] == "planned")
    assert (planned["fetch_files"], planned["fetch_bytes"]) == (1, len(b"changed"))
    assert contents(published) == MODEL


def damage(published: Path, how: str) -> None:
    """Spoil a copy in one way; size and time stay where they can."""
    path = published / "weights" / "model.safetensors"
    status = path.stat()
    if how == "one bit":
        with path.open("r+b") as file:
            file.seek(500_000)
            file.write(b"X")
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "gone":
        path.unlink()
    elif how == "link":
        path.rename(published.parent / "elsewhere")
        path.symlink_to(published.parent / "elsewhere")
        return
    if path.exists():
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("offline", [(), ("--offline",)], ids=["online", "offline"])
def test_a_good_copy_verifies(
    downloader: Downloader, bucket: Bucket, published: Path, offline: tuple[str, ...]
) -> None:
    """Against its manifest, and the source unless it is offline."""
    variables = {} if offline else pod(bucket.server.url, OWNER)

    run = downloader.run(bucket.uri("model"), published, "--verify", *offline, variables=variables)

    assert run.code == 0, run.stderr


@pytest.mark.parametrize("how", ["one bit", "cut", "gone", "link"])
@pytest.mark.parametrize("offline", [(), ("--offline",)], ids=["online", "offline"])
def test_a_spoilt_copy_does_not(
    downloader: Downloader, bucket: Bucket, published: Path, how: str, offline: tuple[str, ...]
) -> None:
    """The file is named; the next download mends it, when it can be seen without reading all."""
    damage(published, how)
    variables = pod(bucket.server.url, OWNER)

    run = downloader.run(bucket.uri("model"), published, "--verify", *offline, variables=variables)

    assert run.code == 7, run.stderr
    assert "weights/model.safetensors" in run.said


def test_verify_sees_a_newer_source(downloader: Downloader, bucket: Bucket, published: Path) -> None:
    """The copy is what it was, and no longer what the source has; offline nobody can tell."""
    bucket.put("model/config.json", b"changed")
    variables = pod(bucket.server.url, OWNER)

    online = downloader.run(bucket.uri("model"), published, "--verify", variables=variables)
    offline = downloader.run(bucket.uri("model"), published, "--verify", "--offline", variables=variables)

    assert online.code == 7, online.stderr
    assert "config.json" in online.said
    assert offline.code == 0, offline.stderr


def test_verify_heeds_patterns(downloader: Downloader, bucket: Bucket, published: Path, target: Path) -> None:
    """Files that they leave out are neither gone nor new."""
    variables = pod(bucket.server.url, OWNER)
    part = target.with_name("part")
    assert downloader.run(bucket.uri("model"), part, "--include", "*.json", variables=variables).code == 0

    of_all = downloader.run(bucket.uri("model"), published, "--verify", "--include", "*.json", variables=variables)
    of_part = downloader.run(bucket.uri("model"), part, "--verify", "--include", "*.json", variables=variables)
    of_none = downloader.run(bucket.uri("model"), part, "--verify", "--offline", "--include", "*.bin")

    assert of_all.code == 0, of_all.stderr
    assert of_part.code == 0, of_part.stderr
    assert of_none.code == 3, of_none.stderr


def test_offline_asks_nobody(downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, published: Path) -> None:
    """Not even for a listing."""
    run = downloader.run(bucket.uri("model"), published, "--verify", "--offline", variables=pod(s3_proxy.url, OWNER))

    assert run.code == 0, run.stderr
    assert s3_proxy.exchanges() == []


def test_verify_without_a_copy(downloader: Downloader, bucket: Bucket, target: Path) -> None:
    """Is not found, and writes nothing."""
    run = downloader.run(bucket.uri("model"), target, "--verify", variables=pod(bucket.server.url, OWNER))

    assert run.code == 3, run.stderr
    assert not target.exists()


def test_the_manifest_says_what_is_there(published: Path, bucket: Bucket) -> None:
    """Source, and of each file its name, size, validator and digest."""
    manifest: dict[str, Any] = json.loads((published / ".kthena" / "manifest.json").read_text())

    assert manifest["source"] == bucket.uri("model")
    assert {file["path"]: file["size"] for file in manifest["files"]} == {
        name: len(data) for name, data in MODEL.items()
    }
    assert all(file["validator"] and file["digest"]["value"] for file in manifest["files"])


def test_nothing_else_is_left(published: Path) -> None:
    """Beside the target, or in it."""
    assert [path.name for path in published.parent.iterdir()] == [published.name]
    assert {path.name for path in (published / ".kthena").iterdir()} == {"manifest.json"}


def test_the_folder_it_is_started_in_is_not_imported_from(downloader: Downloader, bucket: Bucket, target: Path) -> None:
    """A model's folder may hold modules with names of Python's own."""
    for name in ("json", "storage", "select"):
        (downloader.home / f"{name}.py").write_text("raise SystemExit('imported from the wrong place')")

    with downloader.start(bucket.uri("model"), target, variables=pod(bucket.server.url, OWNER)) as running:
        ended = running.end()

    assert ended.code == 0, ended.stderr


def test_neither_library_is_in_the_supervisor(downloader: Downloader, bucket: Bucket, target: Path) -> None:
    """boto3 and huggingface_hub live in the worker only: the parent stays small."""
    script = (
        "import sys; sys.argv = sys.argv[1:]\n"
        "from storage.cli import main as cli\n"
        "try: code = cli.main()\n"
        "except SystemExit as end: code = end.code\n"
        "assert not {'boto3', 'botocore', 'huggingface_hub'} & set(sys.modules), 'imported'\n"
        "sys.exit(code)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, "kthena-downloader", "-s", bucket.uri("model"), "-o", str(target)],
        env=environment({"HOME": str(downloader.home)} | pod(bucket.server.url, OWNER)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode in {0, None}, ended.stderr
    assert contents(target) == MODEL
