"""No download destroys files that it was not asked to destroy."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any, Final

import pytest

from simulators.misbehaving.proxy_faults import answers
from simulators.s3 import OWNER, PART
from tests.harness.downloader import Downloader, contents, pod

if TYPE_CHECKING:
    from pathlib import Path

    from simulators.hub.server import Hub
    from simulators.misbehaving.proxy import BadProxy
    from simulators.s3 import Bucket, S3Server
    from tests.harness.downloader import Ended

pytestmark = pytest.mark.slow

LLAMA: Final = {"config.json": b'{"llama": 1}', "model-1.safetensors": b"1" * 1000, "model-2.safetensors": b"2" * 1000}
SQL: Final = {"config.json": b'{"sql": 1}', "adapter.safetensors": b"sql" * 100}
SOURCES: Final = {"llama": LLAMA, "sql": SQL, "copy-of-llama": LLAMA, "more-than-llama": LLAMA | {"new.json": b"{}"}}
MANIFEST: Final = ".kthena/manifest.json"


@pytest.fixture
def bucket(s3: S3Server) -> Bucket:
    """A bucket with a model for each name of `SOURCES`."""
    bucket = s3.bucket()
    for name, files in SOURCES.items():
        bucket.put_many(files, prefix=f"{name}/")
    return bucket


class Target:
    """A target with a copy of `llama`, and runs of other sources into it."""

    def __init__(self, downloader: Downloader, bucket: Bucket, path: Path) -> None:
        self.downloader = downloader
        self.bucket = bucket
        self.path = path

    def bring(self, prefix: str, *arguments: str, scheme: str = "s3", **variables: str) -> Ended:
        environment = pod(self.bucket.server.url, OWNER, S3_ADDRESSING_STYLE="path", **variables)
        return self.downloader.run(self.bucket.uri(prefix, scheme), self.path, *arguments, variables=environment)

    def is_llama(self) -> bool:
        is_whole = self.downloader.run(self.bucket.uri("llama"), self.path, "--verify", "--offline").code == 0
        return is_whole and contents(self.path) == LLAMA

    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / MANIFEST).read_text())
        return found


@pytest.fixture
def made(downloader: Downloader, bucket: Bucket, target: Path) -> Target:
    """A target that is not there yet."""
    return Target(downloader, bucket, target)


@pytest.fixture(scope="module")
def downloaded(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Target:
    """A copy of `llama`, downloaded once for all tests, none of which changes it."""
    folder = tmp_path_factory.mktemp("downloaded")
    bucket = s3.bucket()
    bucket.put_many(LLAMA, prefix="llama/")
    made = Target(Downloader(folder), bucket, folder / "models" / "target")
    run = made.bring("llama")
    assert run.code == 0, run.stderr
    return made


@pytest.fixture
def llama(downloaded: Target, made: Target) -> Target:
    """A copy of `llama`, as a download from the test's own bucket would have left it."""
    shutil.copytree(downloaded.path, made.path)
    manifest = made.path / MANIFEST
    manifest.write_text(manifest.read_text().replace(downloaded.bucket.uri("llama"), made.bucket.uri("llama")))
    return made


def identity(path: Path) -> tuple[int, int]:
    """Return which file it is, and when it was written."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def removals(ended: Ended, event: str) -> list[tuple[str, bool]]:
    return [(each["file"], each["overwritten"]) for each in ended.events if each["event"] == event]


def test_another_source_is_refused(llama: Target) -> None:
    """With a code of its own and what is there; the copy stays whole, and nothing is left beside it."""
    run = llama.bring("sql")

    assert run.code == 9, run.stderr
    assert "[target_holds_other]" in run.stderr
    for word in (
        str(llama.path),
        llama.bucket.uri("llama"),
        llama.bucket.uri("sql"),
        "config.json",
        "model-1.safetensors",
    ):
        assert word in run.stderr
    assert "--replace" in run.stderr
    assert llama.is_llama()
    assert [path.name for path in llama.path.parent.iterdir()] == [llama.path.name]


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_another_source_replaces_when_it_may(llama: Target, how: str) -> None:
    """Its files alone are there then; the last line counts and names what is gone."""
    (llama.path / "notes.txt").write_text("mine")

    run = llama.bring("sql", "--replace") if how == "flag" else llama.bring("sql", DOWNLOAD_REPLACE="true")

    assert run.code == 0, run.stderr
    assert contents(llama.path) == SQL | {"notes.txt": b"mine"}
    assert llama.manifest()["source"] == llama.bucket.uri("sql")
    last = run.stderr.splitlines()[-1]
    assert "removed or overwritten: 3 (" in last
    assert all(name in last for name in LLAMA)


def test_each_removal_is_an_event(llama: Target) -> None:
    """With what became of it; `done` counts and names them."""
    run = llama.bring("sql", "--replace", "--progress", "json")

    gone = [("config.json", True), ("model-1.safetensors", False), ("model-2.safetensors", False)]
    assert sorted(removals(run, "removed")) == gone
    done = run.events[-1]
    assert (done["removed_files"], sorted(done["removed"])) == (3, sorted(LLAMA))


def test_verbose_names_each_removal(llama: Target) -> None:
    """On a line of its own."""
    run = llama.bring("sql", "--replace", "--verbose")

    assert "model-1.safetensors: removed, 1000 B" in run.stderr
    assert "config.json: overwritten, 12 B" in run.stderr


@pytest.mark.parametrize("variable", ["perhaps", "1 2"])
def test_a_variable_that_is_neither_is_named(llama: Target, variable: str) -> None:
    """It is not taken for yes, nor for no."""
    run = llama.bring("sql", DOWNLOAD_REPLACE=variable)

    assert run.code == 2, run.stderr
    assert "DOWNLOAD_REPLACE" in run.stderr


@pytest.mark.parametrize("arguments", [(), ("--replace",)], ids=["refused", "allowed"])
def test_a_dry_run_lists_all_that_would_go(llama: Target, arguments: tuple[str, ...]) -> None:
    """With and without permission; nothing is changed."""
    run = llama.bring("sql", "--dry-run", *arguments)

    assert run.code == (0 if arguments else 9), run.stderr
    assert "to remove or overwrite: 3 files, 2012 bytes\n" in run.stdout
    assert "\n  overwrite config.json\n  remove model-1.safetensors\n  remove model-2.safetensors\n" in run.stdout
    assert llama.is_llama()


def test_a_dry_run_has_events(llama: Target) -> None:
    """As a download has, of what would go."""
    run = llama.bring("sql", "--dry-run", "--progress", "json")

    assert run.code == 9
    assert len(removals(run, "removal")) == 3
    assert removals(run, "removed") == []


def test_a_dry_run_of_an_update_lists_what_the_source_gave_up(llama: Target) -> None:
    """It needs no permission, and neither does the download."""
    llama.bucket.delete("llama/model-2.safetensors")

    dry = llama.bring("llama", "--dry-run")
    run = llama.bring("llama")

    assert (dry.code, run.code) == (0, 0)
    assert "to remove or overwrite: 1 files, 1000 bytes\n  remove model-2.safetensors\n" in dry.stdout
    assert "removed or overwritten: 1 (model-2.safetensors" in run.stderr
    assert set(contents(llama.path)) == {"config.json", "model-1.safetensors"}


@pytest.mark.parametrize("name", ["copy-of-llama", "more-than-llama"])
def test_a_switch_that_destroys_nothing_is_allowed(llama: Target, name: str) -> None:
    """The same files under another name, or more; the manifest has the new source."""
    before = identity(llama.path / "model-1.safetensors")

    run = llama.bring(name)

    assert run.code == 0, run.stderr
    assert contents(llama.path) == SOURCES[name]
    assert identity(llama.path / "model-1.safetensors") == before
    assert llama.manifest()["source"] == llama.bucket.uri(name)
    assert "overwritten" not in run.stderr


@pytest.mark.parametrize("way", ["endpoint", "scheme", "slash"])
def test_what_is_no_other_source(llama: Target, s3_proxy: BadProxy, way: str) -> None:
    """The same bucket and prefix at another address, by another protocol, or written otherwise."""
    llama.bucket.put("llama/config.json", b"new")
    variables = pod(s3_proxy.url if way == "endpoint" else llama.bucket.server.url, OWNER, S3_ADDRESSING_STYLE="path")
    uri = llama.bucket.uri("llama/" if way == "slash" else "llama", "obs" if way == "scheme" else "s3")

    run = llama.downloader.run(uri, llama.path, variables=variables)

    assert run.code == 0, run.stderr
    assert contents(llama.path) == LLAMA | {"config.json": b"new"}


def test_another_revision_is_no_other_source(downloader: Downloader, hub: Hub, target: Path) -> None:
    """Of one repository; another repository is."""
    repository = hub.create("org/model")
    repository.refs["v1"] = repository.commit(LLAMA)
    repository.commit(SQL)
    hub.create("org/other").commit(LLAMA)
    variables = {"HF_ENDPOINT": hub.url}
    assert downloader.run("org/model@v1", target, variables=variables).code == 0

    newer = downloader.run("org/model", target, variables=variables)
    other = downloader.run("org/other", target, variables=variables)

    assert newer.code == 0, newer.stderr
    assert "removed or overwritten: 2 (model-1.safetensors, model-2.safetensors" in newer.stderr
    assert other.code == 9, other.stderr
    assert contents(target) == SQL


def test_another_directory_of_a_volume_is_another_source(downloader: Downloader, tmp_path: Path, target: Path) -> None:
    """The same directory written otherwise is not."""
    for name, files in (("llama", LLAMA), ("sql", SQL)):
        (tmp_path / "claim" / name).mkdir(parents=True)
        for file, data in files.items():
            (tmp_path / "claim" / name / file).write_bytes(data)
    assert downloader.run(f"pvc:/{tmp_path}/claim/llama", target).code == 0

    same = downloader.run(f"pvc://{tmp_path}/claim/llama/", target)
    other = downloader.run(f"pvc:/{tmp_path}/claim/sql", target)

    assert (same.code, other.code) == (0, 9), same.stderr + other.stderr
    assert contents(target) == LLAMA


FOREIGN: Final = {"other content": b"mine", "other content of that length": b'{"LLAMA": 1}'}


@pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_others_is_not_overwritten(downloader: Downloader, bucket: Bucket, target: Path, data: bytes) -> None:
    """It may be the only copy. With permission it is overwritten, and named."""
    target.mkdir(parents=True)
    (target / "config.json").write_bytes(data)
    made = Target(downloader, bucket, target)

    refused = made.bring("llama")
    found = contents(target)
    allowed = made.bring("llama", "--replace")

    assert refused.code == 9, refused.stderr
    assert "config.json" in refused.stderr
    assert found == {"config.json": data}
    assert allowed.code == 0, allowed.stderr
    assert contents(target) == LLAMA
    assert "removed or overwritten: 1 (config.json" in allowed.stderr


def test_a_hard_link_is_a_file_of_others(llama: Target) -> None:
    """The last link to content that the source no longer has is not overwritten."""
    os.link(llama.path / "model-1.safetensors", llama.path / "backup.bin")
    llama.bucket.put_many({"llama/model-1.safetensors": b"new", "llama/backup.bin": b"theirs"})

    refused = llama.bring("llama")
    found = contents(llama.path)
    allowed = llama.bring("llama", "--replace")

    assert refused.code == 9, refused.stderr
    assert "(backup.bin)" in refused.stderr
    assert found == LLAMA | {"backup.bin": LLAMA["model-1.safetensors"]}
    assert allowed.code == 0, allowed.stderr
    assert "removed or overwritten: 1 (backup.bin" in allowed.stderr


def test_a_new_name_at_the_source_is_not_brought_over_a_file_of_others(llama: Target) -> None:
    """The copy stays as it was, and can still be verified."""
    (llama.path / "notes.txt").write_text("mine")
    llama.bucket.put_many({"llama/notes.txt": b"theirs", "llama/config.json": b"new"})

    run = llama.bring("llama")

    assert run.code == 9, run.stderr
    assert "notes.txt" in run.stderr
    assert contents(llama.path) == LLAMA | {"notes.txt": b"mine"}
    assert llama.downloader.run(llama.bucket.uri("llama"), llama.path, "--verify", "--offline").code == 0


def test_a_file_that_comes_meanwhile_is_not_overwritten(llama: Target, s3_proxy: BadProxy) -> None:
    """A download takes hours: what others put there meanwhile is theirs too. What has arrived is kept."""
    llama.bucket.put("llama/notes.txt", b"theirs")
    s3_proxy.misbehave(_writes(llama.path / "notes.txt"), "*/llama/notes.txt", times=1)
    variables = pod(s3_proxy.url, OWNER)

    run = llama.downloader.run(llama.bucket.uri("llama"), llama.path, variables=variables)
    found = contents(llama.path)
    s3_proxy.behave()
    again = llama.downloader.run(llama.bucket.uri("llama"), llama.path, "--replace", variables=variables)

    assert run.code == 9, run.stderr
    assert found == LLAMA | {"notes.txt": b"mine"}
    assert again.code == 0, again.stderr
    assert contents(llama.path) == LLAMA | {"notes.txt": b"theirs"}
    assert s3_proxy.sent("*/llama/*") == 0


def _writes(path: Path) -> Any:
    def act(exchange: Any) -> None:
        path.write_text("mine")
        exchange.reply(exchange.ask())

    return act


@pytest.mark.parametrize("tool", ["one piece", "several pieces", "volume"])
def test_files_that_another_tool_brought_are_taken_over(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path, tmp_path: Path, tool: str
) -> None:
    """When their bytes are the source's, whatever way there is to tell; not one is fetched."""
    data = b"x" * PART + b"y"
    bucket.put_in_parts("big/model.bin", [data[:PART], data[PART:]]) if tool == "several pieces" else bucket.put(
        "big/model.bin", data
    )
    (tmp_path / "claim").mkdir()
    (tmp_path / "claim" / "model.bin").write_bytes(data)
    target.mkdir(parents=True)
    (target / "model.bin").write_bytes(data)
    before = identity(target / "model.bin")
    uri = f"pvc:/{tmp_path}/claim" if tool == "volume" else bucket.uri("big")

    run = downloader.run(uri, target, variables=pod(s3_proxy.url, OWNER))

    assert run.code == 0, run.stderr
    assert identity(target / "model.bin") == before
    assert s3_proxy.exchanges("*/big/*", method="GET") == []
    assert json.loads((target / MANIFEST).read_text())["files"][0]["path"] == "model.bin"


DAMAGED: Final = {
    "torn": b'{"version": 1, "source": "s3://',
    "empty": b"",
    "foreign": b'{"version": 99, "source": "s3://other/thing", "files": []}',
    "other rows": b'{"version": 1, "source": "s3://other/thing", "revision": "", "files": [{"name": "x"}]}',
    "names that lead out": b'{"version": 1, "source": "s", "revision": "", "files": [{"path": "../x", "size": 1, '
    b'"validator": "v", "mtime_ns": 1, "digest": null}]}',
    "deep": b"[" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_manifest_that_cannot_be_read(llama: Target, text: bytes) -> None:
    """What the directory holds is unknown then: nothing is overwritten, and what is the same is taken over."""
    (llama.path / MANIFEST).write_bytes(text)

    other = llama.bring("sql")
    found = contents(llama.path)
    same = llama.bring("llama")

    assert other.code == 9, other.stderr
    assert "manifest" in other.stderr
    assert found == LLAMA
    assert same.code == 0, same.stderr
    assert llama.is_llama()
    assert kept_aside(llama.path) == [text]


def test_a_manifest_that_cannot_be_read_names_nothing_to_remove(llama: Target) -> None:
    """With permission, files are overwritten; those that are not in the way stay."""
    (llama.path / MANIFEST).write_bytes(b"{")

    run = llama.bring("sql", "--replace")

    assert run.code == 0, run.stderr
    assert contents(llama.path) == LLAMA | SQL
    assert kept_aside(llama.path) == [b"{"]


def kept_aside(target: Path) -> list[bytes]:
    """Return the manifests that could not be read."""
    return [path.read_bytes() for path in sorted((target / ".kthena").glob("manifest.unreadable-*.json"))]


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_nothing_is_added_to_what_is_unknown(llama: Target, text: bytes) -> None:
    """Two models in one directory are none, whatever their names. With permission the manifest is kept."""
    llama.bucket.put_many({"weights/z": b"z", "weights/y": b"y"})
    (llama.path / MANIFEST).write_bytes(text)

    dry = llama.bring("weights", "--dry-run")
    refused = llama.bring("weights")
    found = contents(llama.path), (llama.path / MANIFEST).read_bytes()
    allowed = llama.bring("weights", "--replace")

    assert (dry.code, refused.code) == (9, 9), refused.stderr
    assert "would add 2 files" in refused.stderr
    assert found == (LLAMA, text)
    assert allowed.code == 0, allowed.stderr
    assert contents(llama.path) == LLAMA | {"z": b"z", "y": b"y"}
    assert kept_aside(llama.path) == [text]


@pytest.mark.parametrize("place", ["", "tree/"], ids=["former", "coming"])
def test_a_manifest_of_a_replacement_that_cannot_be_read(llama: Target, place: str) -> None:
    """What has arrived of the new copy is unknown then, and so is all."""
    work = llama.path.with_name(".target.kthena")
    (work / "tree" / ".kthena").mkdir(parents=True)
    (work / ".kthena").mkdir()
    (llama.path / MANIFEST).rename(work / MANIFEST)
    (work / place / MANIFEST).write_bytes(b"{")
    llama.bucket.put("llama/config.json", b"new")

    refused = llama.bring("llama")
    allowed = llama.bring("llama", "--replace")

    assert refused.code == 9, refused.stderr
    assert "manifest" in refused.stderr
    assert allowed.code == 0, allowed.stderr
    assert b"{" in kept_aside(llama.path)
    assert contents(llama.path) == LLAMA | {"config.json": b"new"}


def test_an_unreadable_record_of_an_empty_target_is_in_no_way(made: Target) -> None:
    """There is nothing to lose."""
    work = made.path.with_name(".target.kthena")
    (work / ".kthena").mkdir(parents=True)
    (work / MANIFEST).write_bytes(b"{")

    run = made.bring("llama")

    assert run.code == 0, run.stderr
    assert contents(made.path) == LLAMA


def test_a_manifest_of_the_first_version(llama: Target) -> None:
    """As 0.1 wrote it, in one indented tree: what it names is known."""
    text = json.dumps(llama.manifest(), indent=1)
    (llama.path / MANIFEST).write_text(text)
    llama.bucket.delete("llama/model-2.safetensors")

    other = llama.bring("sql")
    update = llama.bring("llama")

    assert other.code == 9, other.stderr
    assert update.code == 0, update.stderr
    assert set(contents(llama.path)) == {"config.json", "model-1.safetensors"}


def test_patterns_of_a_later_run_remove_nothing(llama: Target) -> None:
    """What they pass over stays, also when the source has changed or removed it."""
    llama.bucket.put_many({"llama/config.json": b"new", "llama/model-1.safetensors": b"new"})
    llama.bucket.delete("llama/model-2.safetensors")

    run = llama.bring("llama", "--include", "config.json")

    assert run.code == 0, run.stderr
    assert contents(llama.path) == LLAMA | {"config.json": b"new"}
    assert {each["path"] for each in llama.manifest()["files"]} == set(LLAMA)
    assert llama.bring("llama").code == 0
    assert contents(llama.path) == {"config.json": b"new", "model-1.safetensors": b"new"}


@pytest.mark.parametrize("how", ["empty", "marker", "nothing matches", "gone volume"])
def test_a_source_that_has_become_empty_removes_nothing(
    downloader: Downloader, llama: Target, tmp_path: Path, target: Path, how: str
) -> None:
    """It is an error."""
    if how == "gone volume":
        (tmp_path / "claim").mkdir()
        (tmp_path / "claim" / "x").write_bytes(b"x")
        assert downloader.run(f"pvc:/{tmp_path}/claim", target.parent / "second").code == 0
        (tmp_path / "claim" / "x").unlink()
        run = downloader.run(f"pvc:/{tmp_path}/claim", target.parent / "second")
        assert contents(target.parent / "second") == {"x": b"x"}
    elif how == "nothing matches":
        run = llama.bring("llama", "--include", "*.gguf")
    else:
        for name in LLAMA:
            llama.bucket.delete(f"llama/{name}")
        if how == "marker":
            llama.bucket.put("llama", b"")
        run = llama.bring("llama")

    assert run.code == 3, run.stderr
    assert llama.is_llama()


@pytest.mark.parametrize("allowed", [False, True], ids=["refused", "allowed"])
@pytest.mark.parametrize("kind", ["file for a directory", "directory for a file"])
def test_what_stands_in_the_way(
    downloader: Downloader, bucket: Bucket, target: Path, kind: str, *, allowed: bool
) -> None:
    """A file of others where a directory is to come, or the other way round, stays with permission too."""
    bucket.put_many({"model/a/b": b"1"} if kind == "file for a directory" else {"model/a": b"1"})
    mine = target / ("a" if kind == "file for a directory" else "a/mine")
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    arguments = ("--replace",) if allowed else ()

    dry = downloader.run(bucket.uri("model"), target, "--dry-run", *arguments, variables=pod(bucket.server.url, OWNER))
    run = downloader.run(bucket.uri("model"), target, *arguments, variables=pod(bucket.server.url, OWNER))

    assert (dry.code, run.code) == (2, 2), run.stderr
    assert mine.read_text() == "mine"


def test_a_local_change_is_overwritten_by_the_same_source_and_named(llama: Target) -> None:
    """As by any copy; the dry run says so."""
    (llama.path / "config.json").write_bytes(b"edited")

    dry = llama.bring("llama", "--dry-run")
    run = llama.bring("llama")

    assert "\n  overwrite config.json\n" in dry.stdout
    assert run.code == 0, run.stderr
    assert "removed or overwritten: 1 (config.json" in run.stderr
    assert llama.is_llama()


def test_a_refused_download_leaves_an_unfinished_one_alone(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, llama: Target
) -> None:
    """What an update had brought when it broke off is there for the next one."""
    llama.bucket.put_many({"llama/new-1.bin": b"1" * 100_000, "llama/new-2.bin": b"2"})
    s3_proxy.misbehave(answers(404), "*/new-2.bin")
    variables = pod(s3_proxy.url, OWNER)
    assert downloader.run(bucket.uri("llama"), llama.path, "-w", "1", variables=variables).code == 3
    s3_proxy.behave()

    refused = llama.bring("sql")
    run = downloader.run(bucket.uri("llama"), llama.path, variables=variables)

    assert (refused.code, run.code) == (9, 0), refused.stderr + run.stderr
    assert s3_proxy.sent("*/llama/new-*.bin") == 1


OTHER: Final = {"config.json": b'{"other": 1}', "w.bin": b"other" * 10}


class Nested:
    """A source with a directory, and another source that was downloaded into that directory."""

    def __init__(self, made: Target, *, kind: str = "") -> None:
        self.made = made
        self.bucket = made.bucket
        for name, files in {"outer": {"x": b"x"}, "outer/llama": SUB, "inner": OTHER}.items():
            self.bucket.put_many(files, prefix=f"{name}/")
        self.bucket.put_many(SUB if kind == "adopted" else OTHER, prefix="inner/")
        self.inner = Target(made.downloader, made.bucket, made.path / "llama")
        assert made.bring("outer").code == 0
        run = self.inner.bring("inner", "--replace")
        assert run.code == 0, run.stderr


SUB: Final = {"config.json": b'{"outer": 1}', "w.bin": b"outer" * 10, "more.bin": b"more"}


@pytest.mark.parametrize("kind", ["fetched", "adopted"])
@pytest.mark.parametrize("change", ["removed", "changed"])
def test_an_update_spares_a_copy_below(made: Target, change: str, kind: str) -> None:
    """Its files were put there, or taken over, for another source. What is named by no other manifest is updated."""
    nested = Nested(made, kind=kind)
    before = contents(made.path)
    if change == "removed":
        nested.bucket.delete("outer/llama/w.bin")
    else:
        nested.bucket.put("outer/llama/w.bin", b"new" * 10)

    dry = made.bring("outer", "--dry-run")
    refused = made.bring("outer")
    found = contents(made.path)
    allowed = made.bring("outer", "--replace")

    assert refused.code == 9, refused.stderr
    for word in (nested.bucket.uri("inner"), str(nested.inner.path), "llama/w.bin"):
        assert word in refused.stderr
    assert f" {'remove' if change == 'removed' else 'overwrite'} llama/w.bin\n" in dry.stdout
    assert found == before
    assert allowed.code == 0, allowed.stderr
    assert contents(made.path).get("llama/w.bin") == (None if change == "removed" else b"new" * 10)


def test_an_update_changes_its_own_files_beside_a_copy_below(made: Target) -> None:
    """Files that the copy below does not name need no permission, in its directory too."""
    nested = Nested(made)
    nested.bucket.put_many({"outer/x": b"new", "outer/llama/more.bin": b"new"})

    run = made.bring("outer", "--exclude", "llama/config.json", "--exclude", "llama/w.bin")

    assert run.code == 0, run.stderr
    outer = {"x": b"new", "llama/more.bin": b"new"}
    assert contents(made.path) == {f"llama/{name}": data for name, data in OTHER.items()} | outer | {
        "llama/.kthena/manifest.json": (nested.inner.path / MANIFEST).read_bytes()
    }


def test_an_update_spares_a_copy_above(made: Target) -> None:
    """Whose download has taken the files back, with permission."""
    nested = Nested(made)
    assert made.bring("outer", "--replace").code == 0
    nested.bucket.delete("inner/w.bin")

    refused = nested.inner.bring("inner")

    assert refused.code == 9, refused.stderr
    for word in (nested.bucket.uri("outer"), str(made.path), "w.bin"):
        assert word in refused.stderr
    assert contents(made.path)["llama/w.bin"] == SUB["w.bin"]
    nested.bucket.put("outer/llama/w.bin", b"new")
    assert made.bring("outer").code == 0
    assert contents(made.path)["llama/w.bin"] == b"new"


def test_an_update_spares_a_copy_below_that_nothing_is_known_of(made: Target) -> None:
    """Its manifest cannot be read: what is not as the update's own manifest has it may belong to that copy."""
    nested = Nested(made)
    (nested.inner.path / MANIFEST).write_bytes(b"{")
    nested.bucket.put("outer/llama/more.bin", b"new")

    refused = made.bring("outer")
    update = made.bring("outer", "--include", "llama/more.bin")

    assert refused.code == 9, refused.stderr
    assert "llama/w.bin" in refused.stderr
    assert update.code == 0, update.stderr
    assert contents(made.path)["llama/w.bin"] == OTHER["w.bin"]
