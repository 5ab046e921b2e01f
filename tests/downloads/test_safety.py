"""Nothing is written outside of the target, and no secret goes where it does not belong."""

from __future__ import annotations

import base64
import random
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import pytest

from simulators.misbehaving.proxy import BadProxy
from simulators.misbehaving.proxy_faults import answers, holds, rewrites
from simulators.s3 import OWNER
from simulators.waiting import PATIENCE
from storage.request.config import Config
from storage.request.download import DownloadRequest
from storage.supervisor.limits import Limits
from storage.supervisor.status import State
from storage.supervisor.supervisor import Supervisor
from tests.harness.downloader import contents, pod

if TYPE_CHECKING:
    from simulators.hub.server import Hub
    from simulators.s3 import Bucket, S3Server
    from tests.harness.downloader import Downloader

pytestmark = pytest.mark.slow

MB: Final = 1_000_000
WEIGHTS: Final = random.Random(1).randbytes(12 * MB)
MODEL: Final = {"config.json": b"{}", "model.safetensors": WEIGHTS, "tokenizer.json": b"[]" * 1000}
BIG: Final = "/*/model/model.safetensors"
GETS: Final = "/*/model/*"
TOKEN: Final = "token-that-nobody-may-see"


@pytest.fixture
def bucket(s3: S3Server) -> Bucket:
    """A bucket with a model below `model/`."""
    bucket = s3.bucket()
    bucket.put_many(MODEL, prefix="model/")
    return bucket


NAMES: Final = (
    "../x", "../../../../../../etc/x", "/etc/x", "a/../../x", "a//b", "./x", "a/.", "..", "a\\..\\x", "a\x00b",
    ".kthena/manifest.json", "a/.kthena/manifest.json", ".a.kthena/lock-1", "a\nb", "x" * 300,
)  # fmt: skip


def everything(folder: Path) -> set[Path]:
    """Return all there is in a folder."""
    return set(folder.rglob("*"))


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_that_lead_out_at_the_hub(downloader: Downloader, hub: Hub, tmp_path: Path, name: str) -> None:
    """Are refused before anything of the model is written."""
    hub.create("org/model").commit({"config.json": b"{}", name: b"evil"})
    target = tmp_path / "a" / "b" / "model"
    target.parent.mkdir(parents=True)
    before = everything(tmp_path)

    run = downloader.run("org/model", target, variables={"HF_ENDPOINT": hub.url})

    assert run.code == 7, run.stderr
    assert everything(tmp_path) - before <= everything(target.with_name(".model.kthena")) | {
        target.with_name(".model.kthena")
    }
    assert b"evil" not in contents(target.parent).values()
    assert not Path("/etc/x").exists()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"a/.", ".."}], ids=ascii)
def test_names_that_lead_out_in_a_bucket(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, tmp_path: Path, name: str
) -> None:
    """The same from S3, whose server says anything."""
    encoded = "".join(char if char.isalnum() or char in "/." else f"%{ord(char):02X}" for char in name).encode()
    s3_proxy.misbehave(rewrites(b"<Key>model/config.json<", b"<Key>model/" + encoded + b"<"), "/bucket-*[0-9]")
    target = tmp_path / "a" / "b" / "model"
    target.parent.mkdir(parents=True)
    before = everything(tmp_path)

    run = downloader.run(bucket.uri("model"), target, variables=pod(s3_proxy.url, OWNER))

    assert run.code == 7, run.stderr
    assert everything(tmp_path) - before <= everything(target.with_name(".model.kthena")) | {
        target.with_name(".model.kthena")
    }
    assert s3_proxy.sent(BIG) == 0


def test_a_file_that_is_a_folder_too(downloader: Downloader, bucket: Bucket, target: Path) -> None:
    """S3 has `a` and `a/b`; no file system has."""
    for key in ("model/a", "model/a/b"):  # side by side one may get lost: the store keeps them in folders itself
        bucket.put(key, b"1")

    run = downloader.run(bucket.uri("model"), target, variables=pod(bucket.server.url, OWNER))

    assert run.code == 7, run.stderr
    assert not target.exists()


PLANTED: Final = (
    "b/.kthena/manifest.json", ".b.kthena/.kthena/manifest.json", ".b.kthena/lock-999999999999999999",
    "b/.kthena/work/lock-1",
)  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_records_of_other_targets_are_not_brought(
    downloader: Downloader, bucket: Bucket, tmp_path: Path, name: str
) -> None:
    """A later download would trust them; the rest of the source can be had without them."""
    bucket.put_many({"b/x": b"x", name: b"{}"}, prefix="model/")
    target = tmp_path / "a" / "models"
    variables = pod(bucket.server.url, OWNER)

    refused = downloader.run(bucket.uri("model"), target, variables=variables)
    found = contents(tmp_path / "a")
    rest = downloader.run(bucket.uri("model"), target, "--exclude", "*.kthena/*", variables=variables)

    assert refused.code == 7, refused.stderr
    assert "--exclude" in refused.stderr
    assert found == {}
    assert rest.code == 0, rest.stderr
    assert contents(target) == MODEL | {"b/x": b"x"}


@pytest.mark.parametrize("kind", ["folder", "file", "work"])
def test_links_in_the_target(downloader: Downloader, bucket: Bucket, target: Path, tmp_path: Path, kind: str) -> None:
    """That lead out of it: nothing is written through them."""
    bucket.put_many({"sub/x.json": b"new"}, prefix="model/")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.json").write_text("old")
    target.mkdir(parents=True)
    (target / "mine").write_text("mine")
    if kind == "folder":
        (target / "sub").symlink_to(outside)
    elif kind == "file":
        (target / "sub").mkdir()
        (target / "sub" / "x.json").symlink_to(outside / "x.json")
    else:
        target.with_name(f".{target.name}.kthena").symlink_to(outside)

    run = downloader.run(bucket.uri("model"), target, variables=pod(bucket.server.url, OWNER))

    assert run.code == (0 if kind == "file" else 2), run.stderr
    assert {path.name: path.read_text() for path in outside.rglob("*")} == {"x.json": "old"}
    if kind == "file":
        assert (target / "sub" / "x.json").read_bytes() == b"new"


@pytest.mark.parametrize("place", [".kthena", ".kthena/manifest.draft"])
@pytest.mark.parametrize("is_root", [False, True], ids=["beside", "write root"])
def test_links_where_the_records_go(
    downloader: Downloader, bucket: Bucket, target: Path, tmp_path: Path, place: str, *, is_root: bool
) -> None:
    """That lead out of the target: neither records nor work are written through them."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("old")
    (target / place).parent.mkdir(parents=True)
    (target / "mine").write_text("mine")
    (target / place).symlink_to(outside if place == ".kthena" else outside / "precious")
    roots = ("--write-root", str(target)) if is_root else ()

    run = downloader.run(bucket.uri("model"), target, *roots, variables=pod(bucket.server.url, OWNER))

    assert run.code == (2 if place == ".kthena" else 0), run.stderr
    assert {path.name: path.read_text() for path in outside.rglob("*")} == {"precious": "old"}


def test_a_file_behind_a_link_is_not_the_copys(
    downloader: Downloader, bucket: Bucket, target: Path, tmp_path: Path
) -> None:
    """However right its bytes are: a manifest vouches for what lies in its own directory."""
    bucket.put_many({"sub/x.json": b"right"}, prefix="model/")
    variables = pod(bucket.server.url, OWNER)
    assert downloader.run(bucket.uri("model"), target, variables=variables).code == 0
    (target / "sub").rename(tmp_path / "outside")
    (target / "sub").symlink_to(tmp_path / "outside")

    verified = downloader.run(bucket.uri("model"), target, "--verify", "--offline")
    again = downloader.run(bucket.uri("model"), target, variables=variables)

    assert verified.code == 7, verified.stderr
    assert again.code == 2, again.stderr
    assert (tmp_path / "outside" / "x.json").read_bytes() == b"right"
    assert (target / ".kthena" / "manifest.json").exists()


@pytest.mark.parametrize("name", [".kthena", ".kthena/x", ".target.kthena", ".other.kthena/tree", "x" * 248])
def test_names_that_work_needs(downloader: Downloader, bucket: Bucket, target: Path, name: str) -> None:
    """No copy goes where a download keeps its work, nor where there is no name left for it."""
    folder = target / name if name.startswith(".kthena") else target.parent / name

    run = downloader.run(bucket.uri("model"), folder, variables=pod(bucket.server.url, OWNER))

    assert run.code == 2, run.stderr
    assert not target.parent.exists()


KINDS: Final = {
    "a folder becomes a file": ({"a/b": b"1", "a/c/d": b"2"}, {"a": b"file"}),
    "a file becomes a folder": ({"a": b"file"}, {"a/b": b"1", "a/c/d": b"2"}),
}


@pytest.mark.parametrize("published", [True, False], ids=["published", "under way"])
@pytest.mark.parametrize(("before", "after"), KINDS.values(), ids=KINDS)
def test_names_that_change_their_kind(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path,
    before: dict[str, bytes], after: dict[str, bytes], *, published: bool,
) -> None:  # fmt: skip
    """Between two downloads: what we put there, or had begun to, is not in the way."""
    bucket.put_many(before, prefix="model/")
    if not published:
        s3_proxy.misbehave(answers(403), BIG)
    first = downloader.run(bucket.uri("model"), target, variables=pod(s3_proxy.url, OWNER))
    assert first.code == (0 if published else 4), first.stderr
    for name in before:
        bucket.delete(f"model/{name}")
    bucket.put_many(after, prefix="model/")

    run = downloader.run(bucket.uri("model"), target, variables=pod(bucket.server.url, OWNER))

    assert run.code == 0, run.stderr
    assert contents(target) == MODEL | after
    assert [path.name for path in target.parent.iterdir()] == ["target"]


@pytest.mark.parametrize("taken", ["a", "a/b"])
def test_a_copy_stays_whole_when_something_is_in_the_way(
    downloader: Downloader, bucket: Bucket, target: Path, taken: str
) -> None:
    """A file of others where a folder is to come, or the other way round, is told before anything is changed."""
    variables = pod(bucket.server.url, OWNER)
    assert downloader.run(bucket.uri("model"), target, variables=variables).code == 0
    (target / taken).parent.mkdir(exist_ok=True)
    (target / taken).write_text("mine")
    bucket.put_many({"a/new": b"1"} if taken == "a" else {"a": b"1"}, prefix="model/")
    bucket.put("model/config.json", b'{"new": 1}')

    run = downloader.run(bucket.uri("model"), target, variables=variables)

    assert run.code == 2, run.stderr
    assert contents(target) == MODEL | {taken: b"mine"}
    assert downloader.run(bucket.uri("model"), target, "--verify", "--offline").code == 0


def test_what_others_put_there_stays(downloader: Downloader, bucket: Bucket, target: Path) -> None:
    """Files in the target that no download brought are not the downloader's to remove."""
    target.mkdir(parents=True)
    (target / "notes.txt").write_text("mine")
    variables = pod(bucket.server.url, OWNER)

    assert downloader.run(bucket.uri("model"), target, variables=variables).code == 0
    bucket.delete("model/tokenizer.json")
    assert downloader.run(bucket.uri("model"), target, variables=variables).code == 0

    assert contents(target) == {
        "config.json": MODEL["config.json"], "model.safetensors": WEIGHTS, "notes.txt": b"mine",
    }  # fmt: skip


def test_secrets_are_nowhere_to_be_read(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path
) -> None:
    """Neither in the arguments of any of its processes, nor on disk, nor in what it says."""
    gate = Event()
    s3_proxy.misbehave(holds(gate), BIG)
    variables = pod(s3_proxy.url, OWNER, SESSION_TOKEN="") | {"HF_AUTH_TOKEN": TOKEN}
    with downloader.start(bucket.uri("model"), target, "--verbose", variables=variables) as running:
        s3_proxy.wait_for(1, BIG)
        arguments = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in running.family()]
        written = [path.read_bytes() for path in target.parent.rglob("*") if path.is_file()]
        gate.set()
        ended = running.end()

    assert ended.code == 0, ended.stderr
    assert len(arguments) >= 2
    for secret in (OWNER.secret, OWNER.access, TOKEN):
        assert not [text for text in arguments + written if secret.encode() in text]
        assert secret not in ended.said


def test_a_redirect_takes_no_token_along(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path
) -> None:
    """A store that sends its client elsewhere does not get to send the session token, too."""
    with BadProxy() as elsewhere:
        s3_proxy.misbehave(answers(307, b"", {"Location": f"{elsewhere.url}/x"}), method="*")

        run = downloader.run(bucket.uri("model"), target, variables=pod(s3_proxy.url, OWNER, SESSION_TOKEN=TOKEN))

        assert run.code != 0, run.stderr
        assert TOKEN not in elsewhere.heard()


CALLERS: Final = {
    "hub": ("org/model", {"hf_endpoint": "{url}"}),
    "hub and revision": ("org/model", {"hf_endpoint": "{url}/", "hf_revision": "main"}),
    "store": ("s3://models/model", {"endpoint": "{url}"}),
    "store by path": ("s3://models/model", {"endpoint": "{url}", "addressing_style": "path"}),
    "store and region": ("obs://models/model", {"endpoint": "{url}", "region": "r", "addressing_style": "path"}),
    "store and keys": ("s3://models/model", {"endpoint": "{url}", "access_key": "theirs", "secret_key": "theirs"}),
}


@pytest.mark.parametrize(("source", "caller"), CALLERS.values(), ids=CALLERS)
def test_a_callers_endpoint_hears_no_secret(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, caller: dict[str, str]
) -> None:
    """Whoever names an endpoint gets none of the pod's credentials there, wherever the pod has them."""
    home = _home_with_secrets(tmp_path)
    known = {"AWS_ACCESS_KEY_ID": OWNER.access, "AWS_SECRET_ACCESS_KEY": OWNER.secret, "AWS_SESSION_TOKEN": TOKEN}
    for name, value in (known | {"HF_TOKEN": TOKEN, "HF_AUTH_TOKEN": TOKEN, "HOME": str(home)}).items():
        monkeypatch.setenv(name, value)
    variables = {"ACCESS_KEY": OWNER.access, "SECRET_KEY": OWNER.secret, "SESSION_TOKEN": TOKEN, "HF_AUTH_TOKEN": TOKEN}
    supervisor = Supervisor(Limits(restarts=0, worker_nice=0))
    with BadProxy() as attacker:
        named = Config.from_mapping({name: value.format(url=attacker.url) for name, value in caller.items()})
        config = Config.from_environ(variables).for_caller(named)

        job = supervisor.submit(DownloadRequest(source, str(target), config=config, tries=1))
        ended = supervisor.wait(job.id, PATIENCE)
        supervisor.stop()

        assert ended.state is State.FAILED
        assert attacker.exchanges()
        basic = base64.b64encode(f"pod:{TOKEN}".encode()).decode()
        assert [secret for secret in (OWNER.access, OWNER.secret, TOKEN, basic) if secret in attacker.heard()] == []


def _home_with_secrets(folder: Path) -> Path:
    """Return a home with a secret in every place where libraries look for one by themselves."""
    files = {
        ".netrc": f"machine 127.0.0.1 login pod password {TOKEN}\n",
        ".aws/credentials": f"[default]\naws_access_key_id={OWNER.access}\naws_secret_access_key={OWNER.secret}\n",
        ".cache/huggingface/token": TOKEN,
    }
    for name, text in files.items():
        path = folder / "home-with-secrets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)
    return folder / "home-with-secrets"


def test_a_proxys_password_is_for_the_proxy(downloader: Downloader, target: Path) -> None:
    """It goes to the proxy that it was given for, and is never told."""
    with BadProxy() as proxy:
        variables = pod("http://store.example", OWNER) | {
            "HTTP_PROXY": f"http://user:{quote(TOKEN)}%40@{proxy.netloc}", "NO_PROXY": "", "no_proxy": "",
        }  # fmt: skip

        run = downloader.run("s3://models/model", target, variables=variables)

        assert run.code == 3, run.stderr
        basic = base64.b64encode(f"user:{TOKEN}@".encode()).decode()
        assert f"Basic {basic}" in proxy.heard()
        assert TOKEN not in run.said


def test_a_password_in_a_source_is_not_repeated(downloader: Downloader, target: Path) -> None:
    """It belongs elsewhere, and error texts end up in logs."""
    run = downloader.run(f"s3://user:{TOKEN}@bucket/model", target)

    assert run.code == 2, run.stderr
    assert TOKEN not in run.said
