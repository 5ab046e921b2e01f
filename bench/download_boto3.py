"""The obvious: list a prefix with boto3 and call `download_file` for each object, one after the other.

python -m bench.download_boto3 ENDPOINT BUCKET PREFIX DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

import boto3

__all__ = ["main"]


def main(endpoint: str, bucket: str, prefix: str, directory: str) -> None:
    """Download a prefix."""
    client = boto3.client("s3", endpoint_url=endpoint)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
        for row in page["Contents"]:
            path = Path(directory, row["Key"].removeprefix(f"{prefix}/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, row["Key"], str(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
