"""The S3 server and the bad proxy before it do what other tests rely on; boto3 is the client."""

from __future__ import annotations

import socket
from contextlib import closing
from threading import Event
from typing import TYPE_CHECKING, Any, Final

import boto3
import pytest
from botocore.exceptions import ClientError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError

from simulators.files import CERTIFICATE
from simulators.misbehaving.proxy import BadProxy
from simulators.misbehaving.proxy_faults import (
    EXPIRED,
    answers,
    changes_headers,
    corrupts,
    cut,
    drip,
    first,
    holds,
    ignores_range,
    resets,
    rewrites,
    stalls,
)
from simulators.s3 import OWNER, PART, PUBLIC, READER, STRANGER, Keys
from simulators.waiting import wait_until

if TYPE_CHECKING:
    from simulators.misbehaving.proxy_faults import Fault
    from simulators.s3 import Bucket, S3Server

BODY: Final = bytes(range(256)) * 1024


@pytest.fixture
def bucket(s3: S3Server) -> Bucket:
    """A bucket with an object called `model/weights`."""
    bucket = s3.bucket()
    bucket.put("model/weights", BODY)
    return bucket


@pytest.fixture
def proxy(s3_proxy: BadProxy) -> BadProxy:
    """A proxy before the server."""
    return s3_proxy


def get(bucket: Bucket, url: str | None = None, keys: Keys | None = OWNER, **options: Any) -> dict[str, Any]:
    """Get `model/weights`, read to its end."""
    config = {"read_timeout": 1, "response_checksum_validation": "when_required"}
    with closing(bucket.server.client(keys, url=url, **config)) as client:
        answer: dict[str, Any] = client.get_object(Bucket=bucket.name, Key="model/weights", **options)
        with closing(answer["Body"]) as stream:
            return answer | {"Body": stream.read()}


def status_of(error: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    """Return the HTTP status and S3's code."""
    return error.value.response["ResponseMetadata"]["HTTPStatusCode"], error.value.response["Error"]["Code"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (Keys(OWNER.access, "wrong"), (403, "SignatureDoesNotMatch")),
        (STRANGER, (403, "InvalidAccessKeyId")),
        (READER, (403, "AccessDenied")),
        (None, (403, "AccessDenied")),
    ],
)
def test_signatures_and_permissions_are_checked(bucket: Bucket, keys: Keys | None, expected: tuple[int, str]) -> None:
    """Each wrong key gets S3's own answer."""
    with pytest.raises(ClientError) as error:
        get(bucket, keys=keys)

    assert status_of(error) == expected


def test_anonymous_reads_the_public_bucket(s3: S3Server) -> None:
    """Without a signature."""
    public = s3.bucket(PUBLIC)
    public.put("model/weights", BODY)

    assert get(public, keys=None)["Body"] == BODY


def test_ranges_and_conditions(bucket: Bucket) -> None:
    """A range of an object that is the same still, and 412 when it is another."""
    etag = bucket.put("model/weights", BODY[::-1])

    assert get(bucket, Range="bytes=5-9", IfMatch=etag)["Body"] == BODY[::-1][5:10]
    with pytest.raises(ClientError) as error:
        get(bucket, Range="bytes=5-9", IfMatch='"other"')
    assert status_of(error)[0] == 412


def test_a_multipart_upload_has_its_own_etag(bucket: Bucket) -> None:
    """It ends in the number of parts."""
    etag = bucket.put_in_parts("model/weights", [b"x" * PART, b"tail"])

    assert etag.endswith('-2"')
    assert get(bucket)["Body"] == b"x" * PART + b"tail"


def test_listings_come_in_pages(bucket: Bucket) -> None:
    """A thousand keys at most, with names of every kind."""
    names = {f"{number}/ü +&%": b"" for number in range(1100)}
    bucket.put_many(names, prefix="many/")

    with closing(bucket.server.client()) as client:
        pages = list(client.get_paginator("list_objects_v2").paginate(Bucket=bucket.name, Prefix="many/"))

    assert [len(page["Contents"]) for page in pages] == [1000, 100]
    assert {item["Key"].removeprefix("many/") for page in pages for item in page["Contents"]} == set(names)


def test_buckets_are_hosts(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """With virtual-hosted addressing, and with a resolver that knows such names."""
    resolve = socket.getaddrinfo
    asked = []

    def to_loopback(host: str, *args: Any, **options: Any) -> Any:
        asked.append(host)
        return resolve("127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", to_loopback)
    url = f"http://{bucket.server.domain}"
    with closing(bucket.server.client(url=url, s3={"addressing_style": "virtual"})) as client:
        answer = client.head_object(Bucket=bucket.name, Key="model/weights")

    assert answer["ContentLength"] == len(BODY)
    assert asked == [f"{bucket.name}.s3.localhost"]


def test_the_proxy_passes_and_counts(bucket: Bucket, proxy: BadProxy) -> None:
    """A signed request arrives as it was sent, and its range, headers and bytes are written down."""
    assert get(bucket, proxy.url, Range="bytes=0-99")["Body"] == BODY[:100]

    # The client may have all before the proxy has noted that it sent it.
    wait_until(lambda: any(exchange.whole for exchange in proxy.exchanges()), "the proxy is done with it")
    (exchange,) = proxy.exchanges(f"/{bucket.name}/model/*", method="GET")
    assert (exchange.status, exchange.sent, exchange.whole, exchange.request.range) == (206, 100, True, (0, 99))
    assert exchange.request.headers["authorization"].startswith("AWS4-HMAC-SHA256 ")
    assert OWNER.access in proxy.heard()
    assert OWNER.secret not in proxy.heard()
    assert proxy.sent() == 100


@pytest.mark.parametrize(
    ("fault", "error", "sent"),
    [
        (cut(after=1000), (IncompleteReadError, ResponseStreamingError), 1000),
        (resets(after=1000), ResponseStreamingError, 1000),
        (stalls(after=1000), ReadTimeoutError, 1000),
        (answers(503, b"", {"Retry-After": "1"}), ClientError, 0),
        (answers(403, EXPIRED), ClientError, len(EXPIRED)),
    ],
    ids=["cut", "reset", "stall", "503", "expired"],
)
def test_a_fault_happens_once(
    bucket: Bucket, proxy: BadProxy, fault: Fault, error: type[Exception] | tuple[type[Exception], ...], sent: int
) -> None:
    """And then the proxy is honest again."""
    proxy.misbehave(fault, "*/weights", times=1)

    with pytest.raises(error):
        get(bucket, proxy.url)

    assert proxy.sent() == sent
    assert get(bucket, proxy.url)["Body"] == BODY


def test_a_fault_skips_what_it_is_told_to(bucket: Bucket, proxy: BadProxy) -> None:
    """The third request suffers, and the fourth does not."""
    proxy.misbehave(answers(503), skip=2, times=1)
    statuses = []
    for _ in range(4):
        try:
            statuses.append(get(bucket, proxy.url)["ResponseMetadata"]["HTTPStatusCode"])
        except ClientError as error:
            statuses.append(error.response["ResponseMetadata"]["HTTPStatusCode"])

    assert statuses == [200, 200, 503, 200]


def test_a_body_is_corrupted_in_one_place(bucket: Bucket, proxy: BadProxy) -> None:
    """One bit, and the length stays."""
    proxy.misbehave(corrupts(at=100_000))

    body = get(bucket, proxy.url)["Body"]

    assert [index for index, byte in enumerate(body) if byte != BODY[index]] == [100_000]
    assert len(body) == len(BODY)


def test_a_range_is_ignored(bucket: Bucket, proxy: BadProxy) -> None:
    """200 and everything."""
    proxy.misbehave(ignores_range(BODY))

    answer = get(bucket, proxy.url, Range="bytes=0-9")

    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Body"]) == (200, BODY)


def test_a_drip_goes_on(bucket: Bucket, proxy: BadProxy) -> None:
    """Slowly enough that nobody waits for its end, and faster than a read times out."""
    proxy.misbehave(drip(after=10))

    with closing(bucket.server.client(url=proxy.url, read_timeout=1)) as client:
        stream = client.get_object(Bucket=bucket.name, Key="model/weights")["Body"]
        with stream:
            assert stream.read(12) == BODY[:12]
    assert proxy.sent() < 1000


def test_an_object_changes_before_a_request(bucket: Bucket, proxy: BadProxy) -> None:
    """Between a client's two parts, say."""
    etag = get(bucket, proxy.url)["ETag"]
    proxy.misbehave(first(lambda: bucket.put("model/weights", b"new")))

    with pytest.raises(ClientError) as error:
        get(bucket, proxy.url, IfMatch=etag)

    assert status_of(error)[0] == 412


def test_listings_and_headers_can_lie(bucket: Bucket, proxy: BadProxy) -> None:
    """About names that the server itself would refuse, and about an ETag."""
    proxy.misbehave(rewrites(b"<Key>model/weights<", b"<Key>model/../../etc/x<"), f"/{bucket.name}")
    proxy.misbehave(changes_headers(etag='"other"'), "*/weights")

    with closing(bucket.server.client(url=proxy.url)) as client:
        listing = client.list_objects_v2(Bucket=bucket.name)

    assert [item["Key"] for item in listing["Contents"]] == ["model/../../etc/x"]
    assert get(bucket, proxy.url)["ETag"] == '"other"'


def test_a_request_is_held(bucket: Bucket, proxy: BadProxy) -> None:
    """Until the gate is opened."""
    gate = Event()
    proxy.misbehave(holds(gate), times=1)

    with pytest.raises(ReadTimeoutError):
        get(bucket, proxy.url)
    gate.set()

    assert get(bucket, proxy.url)["Body"] == BODY


def test_a_proxy_may_speak_tls(bucket: Bucket) -> None:
    """With a certificate that only those trust who were told to."""
    with BadProxy(bucket.server.netloc, tls=CERTIFICATE) as proxy:
        trusting = boto3.client(
            "s3",
            endpoint_url=proxy.url,
            region_name="us-east-1",
            aws_access_key_id=OWNER.access,
            aws_secret_access_key=OWNER.secret,
            verify=str(CERTIFICATE),
        )
        with closing(trusting) as client:
            assert client.head_object(Bucket=bucket.name, Key="model/weights")["ContentLength"] == len(BODY)


def _address(netloc: str) -> tuple[str, int]:
    host, _, port = netloc.partition(":")
    return host, int(port)


def test_a_listener_hears_everything() -> None:
    """And answers 404."""
    with BadProxy() as listener, socket.create_connection(_address(listener.netloc)) as client:
        client.sendall(b"GET /x?secret=1 HTTP/1.1\r\nHost: a\r\nX-Secret: 2\r\n\r\n")
        status = client.recv(100).split()[1]

        assert (status, [exchange.request.query for exchange in listener.exchanges()]) == (b"404", [{"secret": "1"}])
        assert "'x-secret': '2'" in listener.heard()
