"""Credentials and endpoints: frozen, hidden in `repr`, and the rule whose go where.

The pod's own credentials go only to the pod's own endpoints: a caller who
names another endpoint brings credentials of their own, or has none there
(`Config.for_caller`).
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
    """A text that shows itself only when asked to."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
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
    """Where models come from, and who asks.

    Attributes:
        hf_token: Token for the Hub.
        hf_endpoint: The Hub, or a mirror of it.
        hf_revision: Revision when the source names none.
        access_key: Access key for S3 and OBS.
        secret_key: Its secret.
        session_token: Its session token, if it is a temporary one.
        endpoint: The object store; AWS when not set.
        region: The object store's region.
        addressing_style: `auto`, `virtual` or `path`.
        anonymous: Requests to the object store are not signed.
        ambient: Whether the AWS default chain (IRSA, profile, instance role)
            may be asked when there is no access key.
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
        """The Hub's address, without a slash at its end."""
        return self.hf_endpoint or _DEFAULT_HUB

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Config:
        """Take the pod's configuration from its environment.

        Raises:
            ConfigError: A variable cannot be used; the message names it.
        """
        values: dict[str, Any] = {}
        for key, names in _VARIABLES.items():
            name = next((name for name in names if environ.get(name, "").strip()), None)
            if name:
                values[key] = _parse(key, environ[name], name)
        return cls(**values)

    @classmethod
    def from_mapping(cls, data: object, *, origin: str = "config") -> Config:
        """Take a configuration from decoded JSON: an object, or a text that holds one.

        Raises:
            ConfigError: A key is unknown or its value cannot be used.
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
        """Return this configuration with what `caller` sets on top: both are the same person."""
        changes = {one.name: getattr(caller, one.name) for one in fields(self) if one.name != "ambient"}
        return replace(self, **_with_pairs({key: value for key, value in changes.items() if value}))

    def for_caller(self, caller: Config) -> Config:
        """Return what a stranger's request may use of this pod's configuration.

        Whoever names an endpoint that is not the pod's gets none of the pod's
        credentials there, nor those of the default chain.
        """
        result = self.merged(caller)
        if caller.endpoint and caller.endpoint != self.endpoint:
            result = replace(
                result, access_key=caller.access_key, secret_key=caller.secret_key,
                session_token=caller.session_token, ambient=False,
            )  # fmt: skip
        if caller.hf_endpoint and caller.hub_url != self.hub_url:
            result = replace(result, hf_token=caller.hf_token)
        return result

    def bytes_beyond(self, other: Config) -> int:
        """Return how long the values are that `other` does not have: what they cost."""
        values, known = self.to_wire(), other.to_wire()
        return sum(len(str(value)) for key, value in values.items() if value != known[key])

    def to_wire(self) -> dict[str, Any]:
        """Return what goes to the worker's standard input, secrets in clear: never log it."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {key: value.reveal() if isinstance(value, Secret) else value for key, value in values.items()}

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Config:
        """Undo `to_wire`."""
        values: dict[str, Any] = {
            key: Secret(value) if key in _SECRETS and value else value for key, value in data.items()
        }
        return cls(**values)


def endpoint_url(text: str) -> str:
    """Return an endpoint as a URL without a slash at its end; https when it names no scheme.

    Raises:
        ValueError: It is no http or https URL.
    """
    url = text.strip().rstrip("/")
    url = url if "://" in url else f"https://{url}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in url):
        raise ValueError("must be an http or https URL such as https://obs.example.com")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("must hold no credentials, query or fragment")
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
    """Let a key pair replace the other's session token too: they belong together."""
    if "access_key" in changes or changes.get("anonymous"):
        changes.setdefault("session_token", None)
    return changes


def _decode(text: str, origin: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        # Not `from`: the error quotes the text, and the text holds secrets.
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
    """Return what `true` or `false`, and a few words like them, mean.

    Raises:
        ConfigError: It is none of them; the message names `origin`.
    """
    text = str(value).strip().lower()
    if text not in _TRUE + _FALSE:
        raise ConfigError(f"{origin} is true or false")
    return text in _TRUE
