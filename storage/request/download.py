"""The request to a worker: one line of JSON on its standard input.

    {"source": "s3://models/llama", "output_dir": "/models/llama", "action": "download",
     "config": {"access_key": "...", ...}, "max_workers": 8, ...}

The configuration is in clear text there. It is never an argument, in an event or in a log: other processes can read
arguments (docs/adr/0009).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final

from storage.errors import UsageError
from storage.memory import DEFAULT_MEMORY
from storage.request.config import Config

__all__ = ["MAX_WORKERS", "Action", "DownloadRequest"]

MAX_WORKERS: Final = 64


class Action(StrEnum):
    """What a worker does with a source and a directory."""

    DOWNLOAD = "download"
    VERIFY = "verify"
    DRY_RUN = "dry-run"


@dataclass(frozen=True, slots=True)
class DownloadRequest:
    """A request to a worker: a download, a dry run or a verification.

    Attributes:
        source: A URI (`storage.request.source`).
        output_dir: The directory for the copy.
        config: Credentials and endpoints.
        action: What to do.
        max_workers: Concurrent requests, or concurrent copies.
        include: Patterns of names to fetch; all names if empty.
        exclude: Patterns of names to leave out.
        offline: Verify against the manifest only, without the source.
        replace: The download may remove and overwrite files of another source, and overwrite files that no download
            put there (docs/adr/0016).
        write_roots: `output_dir` must be in one of these directories; no restriction if empty.
        lock_timeout: Seconds to wait for another download into the same directory; `None` waits as long as the other
            download lives.
        read_timeout: Seconds without a byte after which a request is retried.
        tries: Consecutive failed attempts of a request before the download fails.
        follow_parent: The worker ends when its standard input ends, that is, when its parent dies.
        memory: Memory limit of the worker in bytes.
        fresh: The source must be listed after this request was made, so the request cannot join a running download.
        by_content: Publish in a subdirectory of `output_dir` that is named by its content
            (`storage.disk.generations`).
    """

    source: str
    output_dir: str
    config: Config = field(default_factory=Config)
    action: Action = Action.DOWNLOAD
    max_workers: int = 8
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    offline: bool = False
    replace: bool = False
    write_roots: tuple[str, ...] = ()
    lock_timeout: float | None = None
    read_timeout: float = 20.0
    tries: int = 8
    follow_parent: bool = False
    memory: int = DEFAULT_MEMORY
    fresh: bool = False
    by_content: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.max_workers <= MAX_WORKERS:
            raise UsageError(f"max_workers is a number from 1 to {MAX_WORKERS}, not {self.max_workers}")

    def to_json(self) -> str:
        """Return the JSON line for the worker. Secrets are in clear text: never log it."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return json.dumps(values | {"config": self.config.to_wire()})

    @classmethod
    def from_json(cls, line: str) -> DownloadRequest:
        """Decode the line of `to_json`.

        Raises:
            UsageError: The line is not a request. The message quotes nothing of it: it may hold secrets.
        """
        try:
            data: dict[str, Any] = json.loads(line)
            data["config"] = Config.from_wire(data.get("config") or {})
            data["action"] = Action(data.get("action", Action.DOWNLOAD))
            for name in ("include", "exclude", "write_roots"):
                data[name] = tuple(data.get(name, ()))
            return cls(**data)
        except (ValueError, TypeError, AttributeError):
            raise UsageError("the worker's standard input is no request") from None
