"""Models from S3 and OBS, from a real server: every byte, once, and by whoever may."""

from __future__ import annotations

import json
import random
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import pytest

from simulators.files import CERTIFICATE
from simulators.misbehaving.proxy import BadProxy
from simulators.misbehaving.proxy_faults import answers, corrupts
from simulators.s3 import OWNER, PART, PUBLIC, READER, STRANGER, Keys
from tests.harness.downloader import contents, pod

if TYPE_CHECKING:
    from pathlib import Path

    from simulators.misbehaving.proxy_exchange import Exchange
    from simulators.s3 import Bucket, S3Server
    from tests.harness.downloader import Downloader

pytestmark = pytest.mark.slow

WEIGHTS: Final = bytes(range(256)) * 8192
MODEL: Final = {
    "config.json": b'{"model_type": "test"}',
    "weights/model 1+2.safetensors": WEIGHTS,
    "weights/größe 模型.bin": b"unicode",
    "a&b=c%20d#e.txt": b"reserved",
    "deep/er/and/deeper/x.json": b"{}",
    "empty.txt": b"",
}
GETS: Final = "/*/model/*"
TOKEN: Final = "session-token-that-nobody-may-see"


@pytest.fixture
def bucket(s3: S3Server) -> Bucket:
    """A bucket with a model below `model/`, and neighbours that look like it."""
    bucket = s3.bucket()
    bucket.put_many(MODEL, prefix="model/")
    bucket.put_many({"model-old/config.json": b"old", "models/x": b"x", "model.txt": b"x"})
    return bucket


def test_a_prefix_is_a_model(downloader: Downloader, bucket: Bucket, target: Path) -> None:
    """Names of every kind, and an empty file; `model-old`, `models` and `model.txt` are others."""
    run = downloader.run(bucket.uri("model"), target, variables=pod(bucket.server.url, OWNER))

    assert run.code == 0, run.stderr
    assert contents(target) == MODEL


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("model/", MODEL),
        ("model/weights", {name.partition("/")[2]: data for name, data in MODEL.items() if name.startswith("weights")}),
        ("model/config.json", {"config.json": MODEL["config.json"]}),
        ("model-old", {"config.json": b"old"}),
    ],
)
def test_what_a_prefix_means(
    downloader: Downloader, bucket: Bucket, target: Path, prefix: str, expected: dict[str, bytes]
) -> None:
    """A folder with or without its slash, a folder in it, or a single object."""
    run = downloader.run(bucket.uri(prefix), target, variables=pod(bucket.server.url, OWNER))

    assert run.code == 0, run.stderr
    assert contents(target) == expected


def test_a_whole_bucket(downloader: Downloader, s3: S3Server, target: Path) -> None:
    """Without a prefix; markers of folders are no files."""
    bucket = s3.bucket()
    bucket.put_many({"a": b"1", "b/c": b"2", "b/": b"", "empty-folder/": b""})

    run = downloader.run(f"s3://{bucket.name}", target, variables=pod(s3.url, OWNER))

    assert run.code == 0, run.stderr
    assert contents(target) == {"a": b"1", "b/c": b"2"}


def test_two_thousand_files(downloader: Downloader, s3: S3Server, s3_proxy: BadProxy, target: Path) -> None:
    """In two pages and one; each is asked for once."""
    bucket = s3.bucket()
    files = {f"{number % 7}/{number}.json": b"%d" % number for number in range(2001)}
    bucket.put_many(files, prefix="model/")

    run = downloader.run(bucket.uri("model"), target, "-w", "16", variables=pod(s3_proxy.url, OWNER))

    assert run.code == 0, run.stderr
    assert contents(target) == files
    assert len(s3_proxy.exchanges(GETS, method="GET")) == 2001


@pytest.mark.parametrize("parts", [[b"x" * PART, b"y" * PART, b"z"], [b"only"], [bytes(PART), b"\n"]])
def test_objects_of_many_parts_are_verified(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path, parts: list[bytes]
) -> None:
    """Their ETag is no digest of the whole, and one wrong bit is found all the same."""
    bucket.put_in_parts("big/model.safetensors", parts)
    variables = pod(s3_proxy.url, OWNER)
    s3_proxy.misbehave(corrupts(at=0), "/*/big/*")

    corrupt = downloader.run(bucket.uri("big"), target, variables=variables)
    found = contents(target) if target.exists() else {}
    s3_proxy.behave()
    good = downloader.run(bucket.uri("big"), target, variables=variables)

    assert (corrupt.code, found) == (7, {}), corrupt.stderr
    assert "model.safetensors" in corrupt.stderr
    assert good.code == 0, good.stderr
    assert contents(target) == {"model.safetensors": b"".join(parts)}


@pytest.mark.parametrize(
    ("checksum", "kind", "digest"),
    [
        ("CRC64NVME", "FULL_OBJECT", "crc64nvme"),
        ("CRC32C", "FULL_OBJECT", "crc32c"),
        ("CRC32C", "COMPOSITE", "crc32c-parts"),
        ("CRC32", "FULL_OBJECT", "crc32"),
        ("CRC32", "COMPOSITE", "crc32-parts"),
        ("SHA256", "COMPOSITE", "sha256-parts"),
    ],
)
def test_checksums_of_the_store(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path, checksum: str, kind: str, digest: str
) -> None:
    """What the store keeps of an object is what its bytes must add up to, and what the manifest has of it."""
    parts = [random.Random(number).randbytes(size) for number, size in enumerate((PART, PART, 4711))]
    bucket.put_in_parts("big/model.safetensors", parts, checksum=checksum, kind=kind)
    variables = pod(s3_proxy.url, OWNER)
    s3_proxy.misbehave(corrupts(at=PART), "/*/big/*")

    corrupt = downloader.run(bucket.uri("big"), target, variables=variables)
    s3_proxy.behave()
    good = downloader.run(bucket.uri("big"), target, variables=variables)
    checked = downloader.run(bucket.uri("big"), target, "--verify", variables=variables)

    assert corrupt.code == 7, corrupt.stderr
    assert digest in corrupt.stderr
    assert (good.code, checked.code) == (0, 0), good.stderr + checked.stderr
    assert contents(target) == {"model.safetensors": b"".join(parts)}
    (entry,) = json.loads((target / ".kthena" / "manifest.json").read_text())["files"]
    assert entry["digest"]["algorithm"] == digest


def test_a_second_run_fetches_nothing(downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path) -> None:
    """The listing says that nothing has changed."""
    variables = pod(s3_proxy.url, OWNER)
    assert downloader.run(bucket.uri("model"), target, variables=variables).code == 0
    s3_proxy.behave()

    run = downloader.run(bucket.uri("model"), target, variables=variables)

    assert run.code == 0, run.stderr
    assert s3_proxy.exchanges(GETS, method="GET") == []
    assert contents(target) == MODEL


def test_only_what_changed_is_fetched_again(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path
) -> None:
    """A new file, one with other bytes of the same length, and one that is gone."""
    variables = pod(s3_proxy.url, OWNER)
    assert downloader.run(bucket.uri("model"), target, variables=variables).code == 0
    s3_proxy.behave()
    changes = {"config.json": b'{"model_type": "TEST"}', "new.json": b"new"}
    bucket.put_many(changes, prefix="model/")
    bucket.delete("model/empty.txt")

    run = downloader.run(bucket.uri("model"), target, variables=variables)

    assert run.code == 0, run.stderr
    fetched = {exchange.request.path.partition("/model/")[2] for exchange in s3_proxy.exchanges(GETS, method="GET")}
    assert fetched == set(changes)
    assert contents(target) == {name: data for name, data in (MODEL | changes).items() if name != "empty.txt"}


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://{bucket}/mode", "mode"),
        ("s3://{bucket}/nothing/here", "nothing/here"),
        ("s3://no-such-bucket/model", "no-such-bucket"),
    ],
)
def test_nothing_is_an_error(downloader: Downloader, bucket: Bucket, target: Path, uri: str, words: str) -> None:
    """A prefix that matches nothing is never an empty success."""
    run = downloader.run(uri.format(bucket=bucket.name), target, variables=pod(bucket.server.url, OWNER))

    assert run.code == 3, run.stderr
    assert words in run.stderr
    assert not target.exists() or contents(target) == {}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (Keys(OWNER.access, "wrong-secret"), "SignatureDoesNotMatch"),
        (STRANGER, "InvalidAccessKeyId"),
        (READER, "AccessDenied"),
        (None, "credentials"),
    ],
    ids=["wrong secret", "unknown key", "not allowed", "none"],
)
def test_refusals_are_told(downloader: Downloader, bucket: Bucket, target: Path, keys: Keys | None, words: str) -> None:
    """With S3's own code for them; no credentials are no success."""
    run = downloader.run(bucket.uri("model"), target, variables=pod(bucket.server.url, keys))

    assert run.code == 4, run.stderr
    assert words in run.stderr
    assert not target.exists() or contents(target) == {}


def test_anonymous_when_asked(downloader: Downloader, s3: S3Server, s3_proxy: BadProxy, target: Path) -> None:
    """A public bucket, and no signature on any request."""
    s3.bucket(PUBLIC).put_many(MODEL, prefix="model/")

    run = downloader.run(f"s3://{PUBLIC}/model", target, variables=pod(s3_proxy.url, S3_ANONYMOUS="true"))

    assert run.code == 0, run.stderr
    assert contents(target) == MODEL
    assert not [exchange for exchange in s3_proxy.exchanges() if "authorization" in exchange.request.headers]
    assert not [exchange for exchange in s3_proxy.exchanges() if "Signature" in exchange.request.target]


@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_ACCESS_KEY_ID": OWNER.access, "AWS_SECRET_ACCESS_KEY": OWNER.secret},
        {"AWS_PROFILE": "models", "AWS_SHARED_CREDENTIALS_FILE": "{folder}/credentials"},
    ],
    ids=["variables", "profile"],
)
def test_the_default_chain(
    downloader: Downloader, bucket: Bucket, target: Path, tmp_path: Path, variables: dict[str, str]
) -> None:
    """Where the pod has AWS's own settings and not ours."""
    profile = f"[models]\naws_access_key_id = {OWNER.access}\naws_secret_access_key = {OWNER.secret}\n"
    (tmp_path / "credentials").write_text(profile)
    filled = {name: value.format(folder=tmp_path) for name, value in variables.items()}

    run = downloader.run(bucket.uri("model"), target, variables=pod(bucket.server.url) | filled)

    assert run.code == 0, run.stderr
    assert contents(target) == MODEL


def test_a_web_identity_is_exchanged(downloader: Downloader, s3_proxy: BadProxy, target: Path, tmp_path: Path) -> None:
    """IRSA: the pod's token goes to STS only, and STS's keys and session token to S3."""
    (tmp_path / "token").write_text("web-identity-token")
    with BadProxy() as sts:
        sts.misbehave(answers(200, _assumed(), {"Content-Type": "text/xml"}), method="*")
        irsa = {
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
            "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/models",
            "AWS_ENDPOINT_URL_STS": sts.url,
            "AWS_REGION": "us-east-1",
        }

        # The real server refuses a session token that it did not give itself.
        run = downloader.run("s3://models/model", target, variables=pod(s3_proxy.url) | irsa)

        assert run.code == 4, run.stderr
        assert "web-identity-token" in sts.heard()
    assert "web-identity-token" not in s3_proxy.heard()
    assert OWNER.access in s3_proxy.heard()
    assert TOKEN in s3_proxy.heard()
    assert TOKEN not in run.said


def test_a_session_token_is_sent(downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path) -> None:
    """Beside the keys that it belongs to."""
    variables = pod(s3_proxy.url, OWNER, SESSION_TOKEN=TOKEN)

    run = downloader.run(bucket.uri("model"), target, variables=variables)

    assert run.code == 4, run.stderr
    assert TOKEN in s3_proxy.heard()


@pytest.mark.parametrize(("trusted", "code"), [(True, 0), (False, 6)])
def test_a_custom_authority(downloader: Downloader, bucket: Bucket, target: Path, *, trusted: bool, code: int) -> None:
    """`AWS_CA_BUNDLE` is asked for listings and for bytes; without it nobody is trusted."""
    with BadProxy(bucket.server.netloc, tls=CERTIFICATE) as proxy:
        bundle = {"AWS_CA_BUNDLE": str(CERTIFICATE)} if trusted else {}

        run = downloader.run(bucket.uri("model"), target, variables=pod(proxy.url, OWNER) | bundle)

        assert run.code == code, run.stderr
        assert bool(proxy.exchanges(GETS)) == trusted
    assert trusted or "certificate" in run.stderr.lower()


@pytest.mark.parametrize(
    ("scheme", "style", "virtual"),
    [("s3", "virtual", True), ("obs", None, True), ("obs", "path", False), ("s3", "path", False)],
)
def test_addressing(
    downloader: Downloader,
    bucket: Bucket,
    target: Path,
    tmp_path: Path,
    *,
    scheme: str,
    style: str | None,
    virtual: bool,
) -> None:
    """OBS has each bucket as a host; `S3_ADDRESSING_STYLE` overrides."""
    styled = {"S3_ADDRESSING_STYLE": style} if style else {}
    with BadProxy(bucket.server.netloc, domain="s3.localhost") as proxy:
        variables = pod(proxy.url, OWNER) | styled | _resolving(tmp_path)

        run = downloader.run(bucket.uri("model", scheme), target, variables=variables)

        assert run.code == 0, run.stderr
        assert contents(target) == MODEL
        hosts = {exchange.request.headers["host"].partition(":")[0] for exchange in proxy.exchanges()}
        assert hosts == {f"{bucket.name}.s3.localhost" if virtual else "s3.localhost"}


def test_the_region_is_signed(downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path) -> None:
    """On every request."""
    run = downloader.run(bucket.uri("model"), target, variables=pod(s3_proxy.url, OWNER, AWS_REGION="eu-north-7"))

    assert run.code == 0, run.stderr
    scopes = [re.search(r"/\d{8}/([^/]+)/s3/aws4_request", _signature(exchange)) for exchange in s3_proxy.exchanges()]
    assert {scope and scope[1] for scope in scopes} == {"eu-north-7"}


def test_every_header_of_amazon_is_signed(
    downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path
) -> None:
    """AWS refuses requests with an `x-amz-` header that is not; other servers do not look."""
    bucket.put_in_parts("model/parts.bin", [b"x" * PART, b"y"])

    run = downloader.run(bucket.uri("model"), target, variables=pod(s3_proxy.url, OWNER))

    assert run.code == 0, run.stderr
    for exchange in s3_proxy.exchanges():
        found = re.search(r"SignedHeaders=([^,&]+)", _signature(exchange))
        assert found is not None
        signed = set(found[1].split(";"))
        assert {name for name in exchange.request.headers if name.startswith("x-amz-")} <= signed


def test_another_region_is_told(downloader: Downloader, bucket: Bucket, s3_proxy: BadProxy, target: Path) -> None:
    """As S3 says it, with the region that it should be."""
    body = b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>expecting 'eu-west-1'</Message><Region>eu-west-1</Region></Error>"
    s3_proxy.misbehave(answers(400, body, {"x-amz-bucket-region": "eu-west-1"}), method="*")

    run = downloader.run(bucket.uri("model"), target, variables=pod(s3_proxy.url, OWNER, AWS_REGION="us-east-1"))

    assert run.code == 4, run.stderr
    assert "eu-west-1" in run.stderr


def _signature(exchange: Exchange) -> str:
    return exchange.request.headers.get("authorization", "") or unquote(exchange.request.target)


def _assumed() -> bytes:
    """Return what STS answers to AssumeRoleWithWebIdentity."""
    return f"""\
<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>
<Credentials><AccessKeyId>{OWNER.access}</AccessKeyId><SecretAccessKey>{OWNER.secret}</SecretAccessKey>
<SessionToken>{TOKEN}</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>
<AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/models/x</Arn><AssumedRoleId>X:x</AssumedRoleId></AssumedRoleUser>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>""".encode()


def _resolving(folder: Path) -> dict[str, str]:
    """Return variables under which Python resolves `*.localhost`, as no resolver of a bare container does."""
    (folder / "resolver").mkdir()
    (folder / "resolver" / "sitecustomize.py").write_text(
        "import socket\n"
        "resolve = socket.getaddrinfo\n"
        "def to_loopback(host, *args, **options):\n"
        "    name = host.decode() if isinstance(host, bytes) else host\n"
        "    return resolve('127.0.0.1' if str(name).endswith('.localhost') else host, *args, **options)\n"
        "socket.getaddrinfo = to_loopback\n"
    )
    return {"PYTHONPATH": str(folder / "resolver"), "PYTHONDONTWRITEBYTECODE": "1"}
