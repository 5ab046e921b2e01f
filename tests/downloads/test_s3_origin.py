"""Where buckets are, in which region, and what their checksums say."""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from storage.disk.digests import make_hasher
from storage.disk.listing import Digest, RemoteFile
from storage.errors import CredentialsError, NetworkError, StorageError
from storage.request.config import Config, Secret
from storage.request.source import S3Source, parse_source
from storage.sources.s3.api import Api
from storage.sources.s3.digests import checksum, composite, multipart
from storage.sources.s3.origin import S3Origin
from storage.sources.s3.store import Store, find_store
from storage.transfer.http_client import Transport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_httpserver import HTTPServer

PAGE = """\
<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><EncodingType>url</EncodingType>
<IsTruncated>{more}</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>
<Contents><Key>{key}</Key><Size>3</Size><ETag>&quot;abc&quot;</ETag></Contents></ListBucketResult>"""


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No AWS settings of this machine."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def transport() -> Iterator[Transport]:
    transport = Transport(connections=1, read_timeout=5)
    yield transport
    transport.close()


def bucket(uri: str) -> S3Source:
    source = parse_source(uri)
    assert isinstance(source, S3Source)
    return source


def with_keys(config: Config) -> Config:
    return replace(config, access_key=Secret("key"), secret_key=Secret("secret"))


def address(uri: str, config: Config) -> str:
    return find_store(bucket(uri), with_keys(config)).url("key")


@pytest.mark.parametrize(
    ("uri", "config", "expected"),
    [
        ("s3://models/x", Config(endpoint="https://s.io"), "https://s.io/models/key"),
        ("s3://models/x", Config(endpoint="https://s.io/deep"), "https://s.io/deep/models/key"),
        ("s3://models/x", Config(endpoint="https://s.io", addressing_style="virtual"), "https://models.s.io/key"),
        ("s3://models/x", Config(endpoint="https://s.io", addressing_style="auto"), "https://s.io/models/key"),
        ("obs://models/x", Config(endpoint="https://obs.io"), "https://models.obs.io/key"),
        ("obs://models/x", Config(endpoint="https://obs.io", addressing_style="path"), "https://obs.io/models/key"),
        ("obs://a_b_c/x", Config(endpoint="https://obs.io"), "https://obs.io/a_b_c/key"),
        ("obs://dotted.name/x", Config(endpoint="https://obs.io"), "https://obs.io/dotted.name/key"),
        ("obs://dotted.name/x", Config(endpoint="http://obs.io"), "http://dotted.name.obs.io/key"),
        ("obs://models/x", Config(endpoint="http://10.0.0.1:9000"), "http://10.0.0.1:9000/models/key"),
        ("s3://models/x", Config(region="us-east-1"), "https://models.s3.amazonaws.com/key"),
        ("s3://models/x", Config(region="eu-west-1"), "https://models.s3.eu-west-1.amazonaws.com/key"),
        (
            "s3://models/x",
            Config(region="eu-west-1", addressing_style="path"),
            "https://s3.eu-west-1.amazonaws.com/models/key",
        ),
        ("s3://dotted.name/x", Config(region="eu-west-1"), "https://s3.eu-west-1.amazonaws.com/dotted.name/key"),
        ("s3://models/x", Config(region="cn-north-1"), "https://models.s3.cn-north-1.amazonaws.com.cn/key"),
    ],
)
def test_addresses(uri: str, config: Config, expected: str) -> None:
    """A bucket is a folder of a named endpoint or a host in it; AWS has its own addresses."""
    assert address(uri, config) == expected


def test_a_profile_is_asked_for_what_is_not_said(tmp_path: Path) -> None:
    """Region, style and keys."""
    (tmp_path / "config").write_text("[default]\nregion = eu-north-7\ns3 =\n  addressing_style = virtual\n")
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = profiled\naws_secret_access_key = x\n")

    store = find_store(bucket("s3://models/x"), Config(endpoint="https://s.io"))

    assert store.url("key") == "https://models.s.io/key"
    assert store.region == "eu-north-7"
    assert "Credential=profiled/" in store.sign("GET", store.url("key"), {})["Authorization"]


def test_no_credentials_are_an_error() -> None:
    """Unless requests are not to be signed."""
    source = bucket("s3://models/x")

    with pytest.raises(CredentialsError, match="S3_ANONYMOUS"):
        find_store(source, Config(endpoint="https://s.io"))

    assert find_store(source, Config(endpoint="https://s.io", anonymous=True)).sign("GET", "https://s.io/", {}) == {}
    assert find_store(source, Config(endpoint="https://s.io", ambient=False)).sign("GET", "https://s.io/", {}) == {}


@pytest.mark.parametrize("named", [True, False])
def test_a_bucket_in_another_region(httpserver: HTTPServer, transport: Transport, *, named: bool) -> None:
    """AWS says where; an endpoint that was named is the one that is meant."""
    httpserver.expect_request("/one/bucket").respond_with_data(
        "<Error><Code>PermanentRedirect</Code></Error>", 301, {"x-amz-bucket-region": "two"}
    )
    httpserver.expect_request("/two/bucket").respond_with_data(PAGE.format(more="false", token="", key="a"))
    store = Store(lambda region: httpserver.url_for(f"/{region}/bucket/"), "one", None, named=named)
    rows = Api(store, transport).rows("", "s3://bucket")

    if named:
        with pytest.raises(Exception, match="the bucket is in two"):
            list(rows)
    else:
        assert [row.key for row in rows] == ["a"]
        assert store.region == "two"


def test_a_store_that_sends_from_one_region_to_another(httpserver: HTTPServer, transport: Transport) -> None:
    """The second region that it names is not asked: a store could go on like that without end."""
    for here, there in (("one", "two"), ("two", "one")):
        httpserver.expect_request(f"/{here}/bucket").respond_with_data("<Error/>", 301, {"x-amz-bucket-region": there})
    store = Store(lambda region: httpserver.url_for(f"/{region}/bucket/"), "one", None, named=False)

    with pytest.raises(StorageError, match="s3://bucket"):
        list(Api(store, transport).rows("", "s3://bucket"))

    assert [request.path for request, _ in httpserver.log] == ["/one/bucket", "/two/bucket"]


def test_pages_and_encoded_names(httpserver: HTTPServer, transport: Transport) -> None:
    """Names are encoded in a listing, a space as `+`; a page says where the next begins."""
    httpserver.expect_ordered_request(
        "/b", query_string={"list-type": "2", "encoding-type": "url", "prefix": "p/"}
    ).respond_with_data(PAGE.format(more="true", token="t+/=", key="p/a+b%2Bc%0A"))
    httpserver.expect_ordered_request(
        "/b", query_string={"list-type": "2", "encoding-type": "url", "prefix": "p/", "continuation-token": "t+/="}
    ).respond_with_data(PAGE.format(more="false", token="", key="p/%E6%A8%A1"))
    store = Store(lambda _region: httpserver.url_for("/b/"), "one", None, named=True)

    rows = list(Api(store, transport).rows("p/", "s3://b/p"))

    assert [(row.key, row.size, row.etag) for row in rows] == [("p/a b+c\n", 3, "abc"), ("p/模", 3, "abc")]


@pytest.mark.parametrize(
    "body", ["", "<html><body>Welcome</body></html>", "<ListBucketResult><Contents/></ListBucketResult>"]
)
def test_an_answer_that_is_no_listing(httpserver: HTTPServer, transport: Transport, body: str) -> None:
    """A captive portal, say: an error, and not an empty bucket."""
    httpserver.expect_request("/b").respond_with_data(body)
    store = Store(lambda _region: httpserver.url_for("/b/"), "one", None, named=True)

    with pytest.raises(NetworkError, match="listing"):
        list(Api(store, transport).rows("", "s3://b"))


@pytest.mark.parametrize("data", [b"abcdefg", b"abcdef"])
def test_a_checksum_of_parts(data: bytes) -> None:
    """As S3 makes it: the digest over the parts' digests."""
    parts = [data[at : at + 3] for at in range(0, len(data), 3)]
    crc = zlib.crc32(b"".join(zlib.crc32(part).to_bytes(4) for part in parts)).to_bytes(4)
    sha = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()

    for header, value in (("x-amz-checksum-crc32", crc), ("x-amz-checksum-sha256", sha)):
        said = composite({header: f"{base64.b64encode(value).decode()}-{len(parts)}"})
        assert said is not None
        algorithm, found, count = said
        hasher = make_hasher(Digest(algorithm, found, 3), len(data))
        hasher.update(memoryview(data))

        assert hasher.hexdigest() == found
        assert count == len(parts)


def test_checksums_that_are_none() -> None:
    """Of the whole, of an unknown kind, or damaged."""
    assert composite({"x-amz-checksum-crc32": "AAAAAA=="}) is None
    assert composite({"x-amz-checksum-xxhash3": "AAAAAAAAAAA=-2"}) is None
    assert composite({"x-amz-checksum-sha1": "?-2"}) is None
    assert composite({"x-amz-checksum-crc32": "AAAAAA==-0"}) is None
    assert composite({"x-amz-checksum-crc32": "AAAA-2"}) is None
    assert composite({"x-amz-checksum-crc32": "AAAAAA==-10001"}) is None  # S3 has no more parts than 10,000
    assert multipart("0" * 32 + "-0") is None
    assert multipart("0" * 32 + "-10001") is None
    assert multipart("0" * 32 + "-" + "9" * 5000) is None


@pytest.mark.parametrize("text", ["AAAA", "?", "AAAAAA==-2", ""])
def test_a_checksum_that_cannot_be_one_is_passed_over(text: str) -> None:
    """The next one counts."""
    crc = base64.b64encode(bytes(8)).decode()

    assert checksum({"x-amz-checksum-sha256": text}) is None
    assert checksum({"x-amz-checksum-sha256": text, "x-amz-checksum-crc64nvme": crc}) == Digest("crc64nvme", "0" * 16)


def test_an_empty_object_has_nothing_to_check(transport: Transport) -> None:
    """Of an encrypted one the ETag looks like an MD5, and is none."""
    origin = S3Origin(bucket("s3://models/m"), with_keys(Config(endpoint="http://127.0.0.1:9")), transport)
    etag = "8ce4" * 8

    found = origin.digest(
        RemoteFile("x", 0, etag, "m/x", Digest("md5", etag)), {"x-amz-server-side-encryption": "aws:kms"}
    )

    assert found is None


def test_a_checksum_of_the_whole_is_asked_for_when_a_part_came(httpserver: HTTPServer, transport: Transport) -> None:
    """The answer to a range has none."""
    crc = base64.b64encode(zlib.crc32(b"abc").to_bytes(4)).decode()
    httpserver.expect_request("/models/m/x", method="HEAD").respond_with_data("", headers={"x-amz-checksum-crc32": crc})
    httpserver.expect_request("/models", method="GET").respond_with_data(PAGE.format(more="false", token="", key="m/x"))
    origin = S3Origin(
        bucket("s3://models/m"), with_keys(Config(endpoint=httpserver.url_for("").rstrip("/"))), transport
    )
    (file,) = origin.listing().files

    digest = origin.digest(file, {"Content-Range": "bytes 0-1/3", "x-amz-checksum-crc32": "AAAAAA=="})

    assert digest == Digest("crc32", zlib.crc32(b"abc").to_bytes(4).hex())
