"""What a worker is asked to do: one line of JSON on its standard input.

    {"source": "s3://models/llama", "output_dir": "/models/llama", "action": "download",
     "config": {"access_key": "...", ...}, "max_workers": 8, ...}

The configuration is in clear there. It is never an argument, never in an event, never in a log.
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
    """What to do with a source and a directory."""

    DOWNLOAD = "download"
    VERIFY = "verify"
    DRY_RUN = "dry-run"


@dataclass(frozen=True, slots=True)
class DownloadRequest:
    """A download, or a look at one.

    Attributes:
        source: A URI, as `storage.request.source` reads it.
        output_dir: The directory for the copy.
        config: Credentials and endpoints to use.
        action: What to do.
        max_workers: Requests, or copies, at once.
        include: Patterns of names to fetch; all when there are none.
        exclude: Patterns of names to leave out.
        offline: Verify against the manifest only.
        replace: Files of another source, and files that no download put there, may be removed and overwritten.
        write_roots: Directories that `output_dir` must lie in; anywhere when there are none.
        lock_timeout: Seconds to wait for another who downloads into the same
            directory; as long as that one lives when `None`.
        read_timeout: Seconds without a byte after which a request is made again.
        tries: How often a request is made in vain before it is given up.
        follow_parent: The worker ends when its standard input does.
        memory: Bytes of memory that the worker may take.
        fresh: The source is to be listed after this request was made: a download that runs already does not do.
        by_content: Publish in a directory of `output_dir` that is named by its content (`storage.disk.generations`).
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
        """Return the line for the worker, secrets in clear."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return json.dumps(values | {"config": self.config.to_wire()})

    @classmethod
    def from_json(cls, line: str) -> DownloadRequest:
        """Undo `to_json`.

        Raises:
            UsageError: The line is no request; the message holds nothing of it.
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
