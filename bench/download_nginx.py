"""A store that takes next to nothing of the machine: nginx, which sends files as they lie in the page cache.

What clients ask of S3 to download a prefix is answered: listings of it, written beforehand, ranges, `If-Match`,
and the CRC-32 of the whole object where no range was asked for. Signatures are not looked at, nothing can be put.
What is measured before it is the client, whereas a store that reads, checks and copies takes half of two cores.
"""

from __future__ import annotations

import base64
import subprocess
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

import anycrc

from bench.peers import environment
from bench.process import HOST, Process, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.download_sets import FileSet

__all__ = ["BUCKET", "install", "serve"]

BUCKET: Final = "models"

_PLACE: Final = Path(__file__).parent.parent / ".venv" / "bench-peers" / "nginx"
_PROGRAM: Final = _PLACE / "usr" / "sbin" / "nginx"
_CONFIGURATION: Final = """\
daemon off;
master_process off;
pid {home}/nginx.pid;
error_log stderr error;
events {{ }}
http {{
  access_log off;
  sendfile on;
  keepalive_requests 100000;
  client_body_temp_path {home};
  proxy_temp_path {home};
  fastcgi_temp_path {home};
  uwsgi_temp_path {home};
  scgi_temp_path {home};
  default_type application/octet-stream;
  map_hash_bucket_size 256;
  map $args $prefix {{ {prefixes} }}
  map $args $kind {{ ~(^|&)delimiter=(%2F|/) folder; default all; }}
  map $uri $crc {{ {checksums} }}
  # An answer with a range has none: it would be that of the whole.
  map $http_range $checksum {{ "" $crc; }}
  server {{
    listen {host}:{port};
    root {root};
    location = /health {{ return 200; }}
    location = /{bucket} {{ default_type application/xml; try_files /lists/$prefix.$kind =404; }}
    location = /{bucket}/ {{ default_type application/xml; try_files /lists/$prefix.$kind =404; }}
    location /{bucket}/ {{
      add_header x-amz-checksum-crc32 $checksum;
      try_files $uri =404;
    }}
  }}
}}
"""
_LIST: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<Name>{bucket}</Name><Prefix>{prefix}</Prefix><KeyCount>{count}</KeyCount><MaxKeys>1000</MaxKeys>"
    "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>\n"
)
_ROW: Final = (
    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;{etag}&quot;</ETag>"
    "<Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
)
_FOLDER: Final = "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>"


def install() -> str | None:
    """Get nginx, without installing it; return why it cannot be had."""
    if which("nginx") or _PROGRAM.exists():
        return None
    if not which("apt-get") or not which("dpkg-deb"):
        return "nginx is not installed"
    _PLACE.mkdir(parents=True, exist_ok=True)
    for command in (["apt-get", "download", "-qq", "nginx"], ["sh", "-c", "dpkg-deb -x nginx_*.deb ."]):
        result = subprocess.run(command, cwd=_PLACE, capture_output=True, text=True, timeout=120, check=False)
        if result.returncode:
            return f"{' '.join(command)} failed: {(result.stderr.strip().splitlines() or ['?'])[-1]}"
    return None if _PROGRAM.exists() else "Debian's package nginx holds no program"


@contextmanager
def serve(sets: Sequence[FileSet], home: Path) -> Iterator[Process]:
    """Serve sets as prefixes of a bucket; their folders are linked to, in `home`."""
    root, port = home / "root", free_port()
    for place in (root / BUCKET, root / "lists"):
        place.mkdir(parents=True)
    prefixes, checksums = {}, {}
    for files in sets:
        (root / BUCKET / files.name).symlink_to(files.folder)
        for path in files.digests:
            checksums[f"/{BUCKET}/{files.name}/{path}"] = _crc32(files.folder / path)
        for number, folder in enumerate(_folders(files)):
            name = f"{files.name}-{number}"
            prefixes[f"{files.name}/{folder}"] = name
            for kind, listing in (("all", _listing(files, folder)), ("folder", _listing(files, folder, nested=False))):
                (root / "lists" / f"{name}.{kind}").write_text(listing)
    names = {
        "host": HOST,
        "port": port,
        "home": home,
        "root": root,
        "bucket": BUCKET,
        # Clients write a slash as it is, or encoded.
        "prefixes": " ".join(
            f"~(^|&)prefix={key.replace('/', '(%2F|/)')}(&|$) {name};" for key, name in prefixes.items()
        ),
        "checksums": " ".join(f'"{key}" "{value}";' for key, value in checksums.items()),
    }
    configuration = home / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format_map(names))
    program = which("nginx") or str(_PROGRAM)
    with Process([program, "-p", str(home), "-c", str(configuration)], port, environment()) as server:
        server.wait_for("/health")
        yield server


def _folders(files: FileSet) -> list[str]:
    """Return all prefixes of a set's names that end in a slash, and that of all of them."""
    return sorted({"", *(f"{path.rpartition('/')[0]}/" for path in files.digests if "/" in path)})


def _listing(files: FileSet, folder: str, *, nested: bool = True) -> str:
    """Return what S3 lists below a folder of a set: with all below its own folders, or with their names only."""
    paths = [path for path in files.digests if path.startswith(folder)]
    own = [path for path in paths if nested or "/" not in path.removeprefix(folder)]
    below = {folder + path.removeprefix(folder).partition("/")[0] + "/" for path in set(paths) - set(own)}
    rows = [_row(files, path) for path in own] + [_FOLDER.format(f"{files.name}/{each}") for each in sorted(below)]
    prefix = f"{files.name}/{folder}"
    return _LIST.format(bucket=BUCKET, prefix=escape(prefix), count=len(rows), rows="".join(rows))


def _row(files: FileSet, path: str) -> str:
    status = (files.folder / path).stat()
    # As nginx makes it.
    etag = f"{int(status.st_mtime):x}-{status.st_size:x}"
    return _ROW.format(key=escape(f"{files.name}/{path}"), etag=etag, size=status.st_size)


def _crc32(path: Path) -> str:
    model, value = anycrc.Model("CRC32"), 0
    with path.open("rb") as file:
        while data := file.read(1 << 24):
            value = model.calc(data, value)
    return base64.b64encode(value.to_bytes(4)).decode()
