"""Credentials and endpoints: frozen, hidden in `repr`, with the rule for which credentials go where.

The pod's own credentials go only to the pod's own endpoints. A caller that names
another endpoint supplies its own credentials, or has none there (`Config.for_caller`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from storage.errors import ConfigError
from storage.request.limits import MOST_VALUE_BYTES, excess

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Config", "Secret", "boolean", "endpoint_url"]

_DEFAULT_HUB: Final = "https://huggingface.co"
_STYLES: Final = ("auto", "virtual", "path")


class Secret:
    """A string that `repr` and `str` hide, so that it cannot get into a log by accident."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class Config:
    """Credentials and endpoints of the sources.

    Attributes:
        hf_token: Token for the Hub.
        hf_endpoint: URL of the Hub or of a mirror; `None` for huggingface.co.
        hf_revision: Revision of a source that names none.
        access_key: Access key for S3 and OBS.
        secret_key: Secret of the access key.
        session_token: Session token of a temporary access key.
        endpoint: URL of the object store; `None` for AWS.
        region: Region of the object store.
        addressing_style: `auto`, `virtual` or `path`.
        anonymous: Requests to the object store are not signed.
        ambient: Whether the AWS default chain (IRSA, profile, instance role) may be used without an access key.
    """

    hf_token: Secret | None = None
    hf_endpoint: str | None = None
    hf_revision: str | None = None
    access_key: Secret | None = None
    secret_key: Secret | None = None
    session_token: Secret | None = None
    endpoint: str | None = None
    region: str | None = None
    addressing_style: str | None = None
    anonymous: bool = False
    ambient: bool = True

    def __post_init__(self) -> None:
        if (self.access_key is None) != (self.secret_key is None):
            raise ConfigError("access_key and secret_key (ACCESS_KEY and SECRET_KEY) come together or not at all")
        if self.addressing_style is not None and self.addressing_style not in _STYLES:
            raise ConfigError(f"addressing_style is one of {', '.join(_STYLES)}, not {self.addressing_style!r}")

    @property
    def hub_url(self) -> str:
        """The Hub's URL without a trailing slash."""
        return self.hf_endpoint or _DEFAULT_HUB

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Config:
        """Read the pod's configuration from its environment. Empty variables count as unset.

        Raises:
            ConfigError: A variable is invalid; the message names it.
        """
        values: dict[str, Any] = {}
        for key, names in _VARIABLES.items():
            name = next((name for name in names if environ.get(name, "").strip()), None)
            if name:
                values[key] = _parse(key, environ[name], name)
        return cls(**values)

    @classmethod
    def from_mapping(cls, data: object, *, origin: str = "config") -> Config:
        """Read a configuration from decoded JSON: an object, or a string that holds one as JSON.

        Raises:
            ConfigError: A key is unknown, or its value is invalid.
        """
        if isinstance(data, str):
            data = _decode(data, origin)
        if not isinstance(data, dict):
            raise ConfigError(f"{origin} must be a JSON object")
        unknown = sorted(set(data) - set(_KEYS))
        if unknown:
            raise ConfigError(f"{origin}.{unknown[0]} is not known; keys are {', '.join(_KEYS)}")
        values: dict[str, Any] = {
            key: _parse(key, value, f"{origin}.{key}") for key, value in data.items() if value not in (None, "")
        }
        return cls(**values)

    def merged(self, caller: Config) -> Config:
        """Return this configuration, overridden by what `caller` sets; see `for_caller` for untrusted callers."""
        changes = {one.name: getattr(caller, one.name) for one in fields(self) if one.name != "ambient"}
        return replace(self, **_with_pairs({key: value for key, value in changes.items() if value}))

    def for_caller(self, caller: Config) -> Config:
        """Return the configuration for a caller's request: its own values, and the pod's where they are allowed.

        At an endpoint that is not the pod's, neither the pod's credentials nor those of the AWS default chain are used.
        Otherwise a caller could have them sent to its own server.
        """
        result = self.merged(caller)
        # `merged` has filled gaps with the pod's values, so the caller's own are put back, even if they are missing.
        if caller.endpoint and caller.endpoint != self.endpoint:
            result = replace(
                result, access_key=caller.access_key, secret_key=caller.secret_key,
                session_token=caller.session_token, ambient=False,
            )  # fmt: skip
        if caller.hf_endpoint and caller.hub_url != self.hub_url:
            result = replace(result, hf_token=caller.hf_token)
        return result

    def bytes_beyond(self, other: Config) -> int:
        """Return the number of characters in values that differ from `other`: its cost in memory."""
        values, known = self.to_wire(), other.to_wire()
        return sum(len(str(value)) for key, value in values.items() if value != known[key])

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form for the worker's standard input. Secrets are in clear text: never log it."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {key: value.reveal() if isinstance(value, Secret) else value for key, value in values.items()}

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Config:
        """Decode the JSON form of `to_wire`."""
        values: dict[str, Any] = {
            key: Secret(value) if key in _SECRETS and value else value for key, value in data.items()
        }
        return cls(**values)


def endpoint_url(text: str) -> str:
    """Return an endpoint as a URL without a trailing slash; https if it has no scheme.

    Raises:
        ValueError: It is not an http or https URL, or holds credentials, a query or a fragment.
    """
    url = text.strip().rstrip("/")
    url = url if "://" in url else f"https://{url}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in url):
        raise ValueError("must be an http or https URL such as https://obs.example.com")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("must hold no credentials, query or fragment")
    # Raises ValueError for an invalid port.
    _ = parts.port
    return url


_SECRETS: Final = ("hf_token", "access_key", "secret_key", "session_token")
_KEYS: Final = (
    "hf_token", "hf_endpoint", "hf_revision", "access_key", "secret_key", "endpoint",
    "session_token", "region", "addressing_style", "anonymous",
)  # fmt: skip
_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "hf_token": ("HF_AUTH_TOKEN", "HF_TOKEN"),
    "hf_endpoint": ("HF_ENDPOINT",),
    "hf_revision": ("HF_REVISION",),
    "access_key": ("ACCESS_KEY",),
    "secret_key": ("SECRET_KEY",),
    "session_token": ("SESSION_TOKEN",),
    "endpoint": ("ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "addressing_style": ("S3_ADDRESSING_STYLE",),
    "anonymous": ("S3_ANONYMOUS",),
}
_TRUE: Final = ("1", "true", "yes")
_FALSE: Final = ("0", "false", "no")


def _with_pairs(changes: dict[str, Any]) -> dict[str, Any]:
    """Drop the other's session token if the key pair is replaced: a session token belongs to its key pair."""
    if "access_key" in changes or changes.get("anonymous"):
        changes.setdefault("session_token", None)
    return changes


def _decode(text: str, origin: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        # `from None`: the JSON error quotes the text, which holds secrets.
        raise ConfigError(f"{origin} is not JSON") from None


def _parse(key: str, value: object, origin: str) -> Any:
    if key == "anonymous":
        return boolean(value, origin)
    if not isinstance(value, str):
        raise ConfigError(f"{origin} must be a text")
    if problem := excess(value, MOST_VALUE_BYTES):
        raise ConfigError(f"{origin} {problem}")
    text = value.strip()
    if key in _SECRETS:
        return _secret(text, origin)
    if key in ("endpoint", "hf_endpoint"):
        try:
            return endpoint_url(text)
        except ValueError as error:
            raise ConfigError(f"{origin} {error}") from None
    return text.lower() if key == "addressing_style" else text


def _secret(text: str, origin: str) -> Secret:
    if not text.isascii() or not text.isprintable():
        raise ConfigError(f"{origin} has characters that no HTTP header takes")
    return Secret(text)


def boolean(value: object, origin: str) -> bool:
    """Parse `true` or `false`, or one of a few synonyms, case-insensitively.

    Raises:
        ConfigError: The text is neither; the message names `origin`.
    """
    text = str(value).strip().lower()
    if text not in _TRUE + _FALSE:
        raise ConfigError(f"{origin} is true or false")
    return text in _TRUE
