"""The table of codes for download errors, one row each. Codes are stable, because clients branch on them."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["CODES", "Code", "table"]


@dataclass(frozen=True, slots=True)
class Code:
    """What programs and users learn from an error in addition to its message.

    Attributes:
        name: The stable code in API answers and events.
        status: The HTTP status of the API's answer.
        retry_helps: Whether the same request may succeed later, without a change by the caller. docs/errors.md says it;
            an API answer with 429 or 503 then has Retry-After.
        advice: What to do, word for word as in docs/errors.md. Refusals of the engine quote it in their message.
        exit_code: The exit code of `kthena-downloader`; `None` for errors that it never has.
    """

    name: str
    status: HTTPStatus
    retry_helps: bool
    advice: str
    exit_code: int | None = None


def table(rows: Iterable[Code]) -> Mapping[str, Code]:
    """Return rows by name; a name that stands twice is a mistake of the table."""
    found: dict[str, Code] = {}
    for row in rows:
        if found.setdefault(row.name, row) is not row:
            raise ValueError(f"two rows are named {row.name}")
    return found


_BAD_REQUEST, _FORBIDDEN, _CONFLICT = HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT
# The runtime is a gateway to the store: trouble of the store or on the way to it is 502.
_GATEWAY, _FULL = HTTPStatus.BAD_GATEWAY, HTTPStatus.INSUFFICIENT_STORAGE

FAILED: Final = Code("failed", _GATEWAY, retry_helps=True, advice="read the message", exit_code=1)
USAGE: Final = Code(
    "usage", _BAD_REQUEST, retry_helps=False, advice="correct the flag or field that the message names", exit_code=2
)
INVALID_SOURCE: Final = Code(
    "invalid_source",
    _BAD_REQUEST,
    retry_helps=False,
    advice="correct the source: the message names the rule that it breaks",
    exit_code=2,
)
INVALID_CONFIG: Final = Code(
    "invalid_config",
    _BAD_REQUEST,
    retry_helps=False,
    advice="correct the variable or key that the message names",
    exit_code=2,
)
FORBIDDEN_TARGET: Final = Code(
    "forbidden_target",
    _BAD_REQUEST,
    retry_helps=False,
    advice="choose a directory below a write root that is no directory of the system",
    exit_code=2,
)
NOT_FOUND: Final = Code(
    "not_found",
    HTTPStatus.NOT_FOUND,
    retry_helps=False,
    advice="check the source's name, the revision and the mount, or the path: `/` lists all routes; with `--verify`, download first",
    exit_code=3,
)
DENIED: Final = Code(
    "denied", _FORBIDDEN, retry_helps=False, advice="check the credentials and their rights", exit_code=4
)
NO_CREDENTIALS: Final = Code(
    "no_credentials", _FORBIDDEN, retry_helps=False, advice="give credentials for the source", exit_code=4
)
GATED: Final = Code(
    "gated",
    _FORBIDDEN,
    retry_helps=False,
    advice="accept the repository's terms on the Hub, with the account of the token",
    exit_code=4,
)
NO_SPACE: Final = Code(
    "no_space", _FULL, retry_helps=False, advice="free space on the volume; what has arrived stays", exit_code=5
)
NETWORK: Final = Code("network", _GATEWAY, retry_helps=True, advice="start again: the download resumes", exit_code=6)
STALLED: Final = Code(
    "stalled", HTTPStatus.GATEWAY_TIMEOUT, retry_helps=True, advice="start again: the download resumes", exit_code=6
)
CORRUPT: Final = Code(
    "corrupt",
    _GATEWAY,
    retry_helps=True,
    advice="if it happens again, the source or a proxy in between damages bytes",
    exit_code=7,
)
SOURCE_CHANGED: Final = Code(
    "source_changed", _CONFLICT, retry_helps=True, advice="start again once nothing writes to the source", exit_code=7
)
UNSAFE_NAME: Final = Code(
    "unsafe_name", _GATEWAY, retry_helps=False, advice="rename the file at the source, or exclude it", exit_code=7
)
TOO_LARGE: Final = Code(
    "too_large",
    _GATEWAY,
    retry_helps=False,
    advice="name a part of the source, or check the endpoint: it reaches a limit",
    exit_code=7,
)
LOCKED: Final = Code(
    "locked",
    _CONFLICT,
    retry_helps=True,
    advice="wait until the other download of this directory ends, or raise `--lock-timeout`",
    exit_code=8,
)
HOLDS_OTHER: Final = Code(
    "target_holds_other",
    _CONFLICT,
    retry_helps=False,
    advice="choose another directory, or allow it with `--replace`",
    exit_code=9,
)
OUT_OF_MEMORY: Final = Code(
    "out_of_memory",
    _FULL,
    retry_helps=False,
    advice="raise `--worker-memory` and the container's limit, or lower `--max-workers`",
    exit_code=10,
)
BUSY: Final = Code(
    "busy",
    HTTPStatus.SERVICE_UNAVAILABLE,
    retry_helps=True,
    advice="try again later: as many downloads wait as may wait",
    exit_code=1,
)
CANCELLED: Final = Code(
    "cancelled",
    _CONFLICT,
    retry_helps=True,
    advice="start again if it should continue; what has arrived stays",
    exit_code=130,
)
WORKER_DIED: Final = Code(
    "worker_died",
    _GATEWAY,
    retry_helps=True,
    advice="read the message; the process was killed, usually because the container reached its memory limit",
    exit_code=1,
)

CODES: Final = table(row for row in tuple(globals().values()) if isinstance(row, Code))
