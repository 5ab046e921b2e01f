"""A real S3 server: SeaweedFS, which checks signatures, ranges and conditions as S3 does.

::

    with S3Server(folder) as server:
        bucket = server.bucket()
        bucket.put("model/config.json", b"{}")
        bucket.client().get_object(Bucket=bucket.name, Key="model/config.json")

Who may do what stands in `IDENTITIES`: `OWNER` everything, `READER` reads `models`, and nobody in particular
reads buckets whose names are in `PUBLIC`.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anycrc
import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from simulators.ports import free_ports
from simulators.waiting import wait_until
from tests.harness.runtime import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

__all__ = ["OWNER", "PUBLIC", "READER", "STRANGER", "Bucket", "Keys", "S3Server"]

PART: Final = 5 * 1024 * 1024  # the least that S3 takes for a part that is not the last


@dataclass(frozen=True, slots=True)
class Keys:
    """An access key and its secret."""

    access: str
    secret: str


OWNER: Final = Keys("OWNERACCESSKEY", "owner-secret-that-nobody-may-see")
READER: Final = Keys("READERACCESSKEY", "reader-secret-that-nobody-may-see")
STRANGER: Final = Keys("STRANGERACCESSKEY", "stranger-secret-that-nobody-may-see")
PUBLIC: Final = "public-models"
DOMAIN: Final = "s3.localhost"


_CHECKSUMS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "CRC32": lambda data: anycrc.Model("CRC32").calc(data).to_bytes(4),
    "CRC32C": lambda data: anycrc.Model("CRC32C").calc(data).to_bytes(4),
    "CRC64NVME": lambda data: anycrc.Model("CRC64-NVME").calc(data).to_bytes(8),
    "SHA256": lambda data: hashlib.sha256(data).digest(),
}


def _checksum(name: str, data: bytes) -> dict[str, str]:
    """Return the argument that gives a checksum with its data."""
    return {f"Checksum{name}": base64.b64encode(_CHECKSUMS[name](data)).decode()} if name else {}


def _identity(name: str, keys: Keys | None, *actions: str) -> dict[str, Any]:
    credentials = [{"accessKey": keys.access, "secretKey": keys.secret}] if keys else []
    return {"name": name, "credentials": credentials, "actions": list(actions)}


IDENTITIES: Final = {
    "identities": [
        _identity("owner", OWNER, "Admin", "Read", "List", "Tagging", "Write"),
        _identity("reader", READER, "Read:models", "List:models"),
        _identity("anonymous", None, f"Read:{PUBLIC}", f"List:{PUBLIC}"),
    ]
}
_SERVICES: Final = ("master", "volume", "filer", "s3", "admin")


def _socket_files(pid: int) -> list[Path]:
    """Return the files of the Unix sockets that a process has."""
    links = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
    rows = [row.split() for row in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return [Path(row[7]) for row in rows if len(row) > 7 and f"socket:[{row[6]}]" in links]


class S3Server:
    """SeaweedFS in `folder`, while its ``with`` block runs.

    Attributes:
        url: The endpoint, with an address of numbers: for path-style requests.
        netloc: Host and port of the endpoint.
        domain: Host and port under which each bucket is a host: ``<bucket>.<domain>``.
    """

    def __init__(self, folder: Path, *, frugal: bool = True) -> None:
        """Prepare.

        Args:
            folder: Where its data lies.
            frugal: Whether its heap has a limit; one that is too tight doubles the CPU of uploads.
        """
        self._folder = folder
        self._variables = {"GOMEMLIMIT": "600MiB", "GOGC": "200"} if frugal else {}
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        names = [f"{service}.port{kind}" for service in _SERVICES for kind in ("", ".grpc")]
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.netloc = f"127.0.0.1:{self._ports['s3.port']}"
        self.domain = f"{DOMAIN}:{self._ports['s3.port']}"
        self.url = f"http://{self.netloc}"
        self._log = (self._folder / "weed.log").open("wb")
        self._process = subprocess.Popen(
            self._command(),
            env=environment(self._variables),
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C is for those who use it first
        )
        self._owner = self.client()
        try:
            wait_until(self._is_ready, "SeaweedFS takes an object")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it: what it holds goes with the test, and so do the sockets that it has in /tmp."""
        sockets = _socket_files(self._process.pid)
        self._process.kill()
        self._process.wait()
        self._owner.close()
        self._log.close()
        for path in sockets:
            path.unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        """The process of the server."""
        return self._process.pid

    def client(self, keys: Keys | None = OWNER, *, url: str | None = None, **config: Any) -> Any:
        """Return a boto3 client that signs with `keys`, or not at all."""
        signing = {} if keys else {"signature_version": UNSIGNED}
        return boto3.client(
            "s3",
            endpoint_url=url or self.url,
            region_name="us-east-1",
            aws_access_key_id=keys and keys.access,
            aws_secret_access_key=keys and keys.secret,
            config=Config(retries={"total_max_attempts": 1}, proxies={}, **signing, **config),
        )

    def bucket(self, name: str | None = None) -> Bucket:
        """Return a bucket: one that nobody else has, or this one, which tests share."""
        shared = name is not None and self._has_bucket(name)
        name = name or f"bucket-{next(self._numbers)}"
        if not shared:
            self._owner.create_bucket(Bucket=name)
        return Bucket(self, name, self._owner)

    def _command(self) -> list[str]:
        config = self._folder / "s3.json"
        config.write_text(json.dumps(IDENTITIES))
        data = self._folder / "data"
        data.mkdir()
        return [
            str(Path(sys.executable).with_name("weed")),
            "-logtostderr=true",
            "mini",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-admin.ui=false",
            "-webdav=false",
            "-volume.max=4096",  # each bucket takes several, and the disk's free space would bound them
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={config}",
            f"-s3.domainName={DOMAIN}",
            *(f"-{name}={port}" for name, port in self._ports.items()),
        ]

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, (self._folder / "weed.log").read_text()
        # Refused at first, then 500 until there is a volume.
        with suppress(BotoCoreError, ClientError):
            if not self._has_bucket("ready"):
                self._owner.create_bucket(Bucket="ready")
            self._owner.put_object(Bucket="ready", Key="ready", Body=b"ready")
            return True
        return False

    def _has_bucket(self, name: str) -> bool:
        return name in (bucket["Name"] for bucket in self._owner.list_buckets()["Buckets"])


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket of a server, and its owner's hand in it."""

    server: S3Server
    name: str
    _owner: Any

    def uri(self, prefix: str = "", scheme: str = "s3") -> str:
        """Return what a user writes for `prefix` in this bucket."""
        return f"{scheme}://{self.name}/{prefix}"

    def put(self, key: str, body: bytes) -> str:
        """Put an object; return its ETag."""
        etag: str = self._owner.put_object(Bucket=self.name, Key=key, Body=body)["ETag"]
        return etag

    def put_many(self, objects: Mapping[str, bytes], *, prefix: str = "") -> None:
        """Put objects side by side."""
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda item: self.put(prefix + item[0], item[1]), objects.items()))

    def put_in_parts(self, key: str, parts: Sequence[bytes], *, checksum: str = "", kind: str = "COMPOSITE") -> str:
        """Put an object as a multipart upload; return its ETag, which is no digest of its bytes.

        Args:
            key: Its name.
            parts: Its bytes; each part but the last has `PART` of them at least.
            checksum: Which one the store keeps, as the API names it: `CRC64NVME`; boto3's own choice by default.
            kind: Whether that is over the parts' checksums, or `FULL_OBJECT`. The store checks it.
        """
        target = {"Bucket": self.name, "Key": key}
        kept = {"ChecksumAlgorithm": checksum, "ChecksumType": kind} if checksum else {}
        upload = target | {"UploadId": self._owner.create_multipart_upload(**target, **kept)["UploadId"]}
        done = []
        for number, part in enumerate(parts, 1):
            own = _checksum(checksum, part)
            etag = self._owner.upload_part(**upload, PartNumber=number, Body=part, **own)["ETag"]
            done.append({"PartNumber": number, "ETag": etag, **own})
        whole = _checksum(checksum, b"".join(parts)) | {"ChecksumType": kind} if kind == "FULL_OBJECT" else {}
        completed = self._owner.complete_multipart_upload(**upload, MultipartUpload={"Parts": done}, **whole)
        found: str = completed["ETag"]
        return found

    def delete(self, key: str) -> None:
        """Delete an object."""
        self._owner.delete_object(Bucket=self.name, Key=key)
