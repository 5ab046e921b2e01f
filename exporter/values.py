"""Parsers for the values of flags and environment variables.

Each takes a text and returns the value. For an invalid text it raises ValueError
with the end of a sentence: "must be a number from 1 to 8". The caller puts the name
of the flag in front of it. The message never contains the value, which may be a secret.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "boolean",
    "count",
    "directory",
    "endpoint",
    "expanded",
    "http_url",
    "number",
    "one_of",
    "path",
    "port",
    "redis_host",
    "redis_port",
    "redis_url",
    "seconds",
    "shown",
    "size",
    "switch",
    "text",
]

_MAX_PORT: Final = 65535
# A host name, an IPv4 or an IPv6 address. Hosts that HTTP clients refuse are refused here, at the start.
_HOST: Final = re.compile(r"[\w.-]+|[\da-f.]*:[\da-f:.]*(%[\w.-]+)?", re.ASCII)
# Everything in front of the last @, except the scheme, may be credentials. A query may contain a token.
_LOGIN: Final = re.compile(r"\A(\s*[a-z][a-z\d+.-]*://)?.*@", re.IGNORECASE | re.DOTALL)
_QUERY: Final = re.compile(r"\?.+", re.DOTALL)


def shown(value: str) -> str:
    """Return a value without credentials, for errors and logs: http://***@host/path?***."""
    return _QUERY.sub("?***", _LOGIN.sub(r"\1***@", value))


def text(value: str) -> str:
    """Return a text without surrounding blanks; it must not be empty."""
    if not value.strip():
        message = "must not be empty"
        raise ValueError(message)
    return value.strip()


def expanded(value: str) -> str:
    """Return a text without `$(VARIABLE)` references: Kubernetes leaves those in place that it cannot resolve."""
    if "$(" in value:
        message = (
            "has a variable that Kubernetes did not expand: define it in the container's env, "
            "above what uses it (docs/deployment.md)"
        )
        raise ValueError(message)
    return text(value)


def port(value: str) -> int:
    """Return a TCP port; 0 takes a free one."""
    if not re.fullmatch(r"\s*[0-9]{1,5}\s*", value) or int(value) > _MAX_PORT:
        message = f"must be a number from 0 to {_MAX_PORT} (0 takes a free port)"
        raise ValueError(message)
    return int(value)


def seconds(value: str) -> float:
    """Return a positive number of seconds, up to an hour."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        message = "must be a number of seconds above 0 and up to 3600"
        raise ValueError(message)
    return seconds


_SIZES: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def size(value: str) -> int:
    """Return a number of bytes above 0; accepts the suffixes k, Ki, M, Mi, G and Gi."""
    match = re.fullmatch(r"(\d+)\s*([kmg]i?)?b?", value.strip().lower())
    size = int(match[1]) * _SIZES[match[2] or ""] if match else 0
    if not size:
        message = "must be a size in bytes above 0, such as 67108864 or 64Mi"
        raise ValueError(message)
    return size


def http_url(value: str) -> str:
    """Return an http or https URL without a trailing slash."""
    form = "must be an http or https URL such as http://localhost:8000"
    parts = _split_url(value.strip(), form)
    if parts.scheme not in ("http", "https") or not _is_host(parts.hostname or "") or len(value.split()) != 1:
        raise ValueError(form)
    if parts.username is not None:
        message = "must not hold credentials"
        raise ValueError(message)
    if "?" in value or "#" in value:
        message = "must not have a query or a fragment"
        raise ValueError(message)
    return value.strip().rstrip("/")


def _split_url(value: str, form: str) -> SplitResult:
    """Split a URL; the error is `form`, because the standard library's error may contain a part of the value."""
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError(form) from None
    return parts


def _is_host(name: str) -> bool:
    return bool(_HOST.fullmatch(name)) and _is_resolvable(name)


def _is_resolvable(name: str) -> bool:
    """Tell whether a name can be looked up at all: no part of it is empty or longer than 63 characters."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def path(value: str) -> str:
    """Return a URL path that begins with a slash and has no blanks or fragment; it may have a query."""
    if not re.fullmatch(r"/[^\s#]*", value.strip()):
        message = "must be a path that begins with '/', such as /metrics"
        raise ValueError(message)
    return value.strip()


def directory(value: str) -> str:
    """Return an absolute directory path."""
    if not value.startswith("/") or "\x00" in value:
        message = "must be an absolute directory such as /models"
        raise ValueError(message)
    return value


def one_of(*choices: str) -> Callable[[str], str]:
    """Return a case-insensitive parser for one of `choices`, which must be lower case."""

    def parse(value: str) -> str:
        if value.strip().lower() not in choices:
            message = f"must be one of {', '.join(choices)}"
            raise ValueError(message)
        return value.strip().lower()

    return parse


def redis_port(value: str) -> int:
    """Return a port from 1 to 65535, or the port of `tcp://host:port`."""
    # Kubernetes sets REDIS_PORT=tcp://10.0.0.1:6379 in every pod of a namespace with a Service called "redis".
    text = value.rpartition(":")[2] if value.startswith("tcp://") else value.strip()
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= _MAX_PORT:
        message = f"must be a port from 1 to {_MAX_PORT}"
        raise ValueError(message)
    return int(text)


def redis_host(value: str) -> str:
    """Return a host name or address, without scheme and port."""
    if not _is_host(value):
        message = "must be a host name or an address; REDIS_URL is for URLs"
        raise ValueError(message)
    return value


def redis_url(value: str) -> str:
    """Return a `redis://`, `rediss://` or `unix://` URL, unchanged; redis-py parses the rest."""
    form = "must be a URL such as redis://host:6379/0 or rediss://user:password@host:6379/0"
    parts = _split_url(value, form)
    if (
        "://" not in value
        or parts.scheme not in ("redis", "rediss", "unix")
        or not _is_resolvable(parts.hostname or "")
    ):
        raise ValueError(form)
    return value


def endpoint(value: str) -> str:
    """Return a ZeroMQ endpoint to connect to.

    The wildcard hosts of an engine's own `bind` address are replaced by localhost: the engine is in the same pod.
    """
    found = re.fullmatch(r"(ipc|inproc)://\S+|tcp://(?P<host>[^\s/]+):(?P<port>[0-9]{1,5})", value)
    if not found or not 0 < int(found["port"] or 1) <= _MAX_PORT:
        message = "must be a ZeroMQ endpoint such as tcp://localhost:5557"
        raise ValueError(message)
    return f"tcp://localhost:{found['port']}" if found["host"] in ("*", "0.0.0.0", "[::]") else value


def count(most: int, *, least: int = 1) -> Callable[[str], int]:
    """Return a parser for a number from `least` to `most`."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value.strip()) or not least <= int(value) <= most:
            message = f"must be a number from {least} to {most}"
            raise ValueError(message)
        return int(value)

    return parse


def number(value: str) -> int:
    """Return an integer from 0 to 999999."""
    if not re.fullmatch(r"[0-9]{1,6}", value.strip()):
        message = "must be a number from 0 on"
        raise ValueError(message)
    return int(value)


def boolean(value: str) -> bool:
    """Return a boolean: true, yes or 1, and false, no or 0, case-insensitive."""
    yes = ("true", "yes", "1")
    return one_of(*yes, "false", "no", "0")(value) in yes


def switch(value: str) -> bool:
    """Return whether a flag without a value was given; the command line then passes `true`."""
    return value == "true"
