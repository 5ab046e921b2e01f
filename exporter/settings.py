"""Settings: the values of all flags and variables of `exporter.options`, as one frozen object.

A flag wins over its variable, and a variable over the default. A variable that is
set but empty counts as not set, because manifests often contain empty ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import quote, urlsplit

from exporter import values
from exporter.options import OPTIONS
from exporter.standard.rules import RuleError, builtin_engines, canonical, engine_of, other_engine
from storage.errors import ConfigError as StorageConfigError
from storage.request.config import Config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exporter.options import Option

__all__ = ["KV_ENGINES", "ConfigError", "Settings", "resolve"]

# The text of a flag; a list for a repeatable one.
_Text: TypeAlias = str | list[str] | None


class ConfigError(ValueError):
    """A flag or variable cannot be used; the message names it and says what to do. Exit code 2."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration of the process.

    Attributes:
        engine: The engine whose rules are used: lower case, with aliases resolved.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        engine_base_url: Scheme and authority of the engine, with a path prefix
            if it has one, without a trailing slash.
        engine_metrics_path: Path of the engine's metrics page.
        pod: This pod, as `name.namespace`.
        model: The name of the base model.
        metric_rules: A file with the user's own rules for standard metrics.
        request_timeout: Seconds for the engine to answer when the scraper sends no timeout.
        max_scrape_bytes: The highest cost of a page in bytes (docs/adr/0018).
        raw_metrics: Whether the engine's own families are exported, too.
        log_format: `text` or `json`.
        log_level: `debug`, `info`, `warning` or `error`.
        write_roots: Directories that confine downloads; no restriction when empty.
        stall_timeout: Seconds without a byte after which a download's worker is restarted.
        worker_memory: Memory limit of a download's process, in bytes.
        download_replace: Whether downloads may replace files of another source when a request does not say.
        worker_nice: The niceness of download workers, 0 to 19.
        lora_dir: The directory for adapters whose request names none.
        state_dir: The directory that keeps the desired adapters; without it, a restart forgets them.
        model_config: The Model YAML file to follow.
        backend: The backend of the Model to use.
        reconcile_interval: Seconds between two comparisons of the engine's adapters with the desired ones.
        engine_api_key_file: The file with the engine's API key.
        api_token_file: The file with the bearer token for /v1.
        storage: The pod's own credentials and endpoints for downloads.
        redis_url: Redis for KV events, with credentials; `None` turns KV events off.
        kv_endpoint: ZeroMQ endpoint of the engine's KV events (DP rank 0).
        kv_topic: The required beginning of an event's topic.
        kv_replay_endpoint: ZeroMQ endpoint of the engine's replay socket (DP rank 0).
        data_parallel_size: The number of the engine's DP ranks.
        kv_max_blocks: The highest number of the engine's blocks in memory (docs/adr/0019).
    """

    engine: str
    host: str
    port: int
    engine_base_url: str
    engine_metrics_path: str
    pod: str
    model: str
    metric_rules: Path | None
    request_timeout: float
    max_scrape_bytes: int
    raw_metrics: bool
    log_format: str
    log_level: str
    write_roots: tuple[str, ...]
    stall_timeout: float
    worker_memory: int
    download_replace: bool
    worker_nice: int
    lora_dir: Path
    state_dir: Path | None
    model_config: Path | None
    backend: str | None
    reconcile_interval: float
    engine_api_key_file: Path | None
    api_token_file: Path | None
    storage: Config
    redis_url: str | None = field(repr=False)
    kv_endpoint: str
    kv_topic: str
    kv_replay_endpoint: str | None
    data_parallel_size: int
    kv_max_blocks: int

    @property
    def engine_metrics_url(self) -> str:
        """The URL of the engine's metrics page."""
        return self.engine_base_url + self.engine_metrics_path

    @property
    def warnings(self) -> tuple[str, ...]:
        """Messages about values that are valid and most likely a mistake; the service logs them."""
        if _NAME_AND_NAMESPACE.fullmatch(self.pod):
            return ()
        return (f"--pod {self.pod!r} has no namespace: give it as name.namespace, by which the router knows pods",)


# Engines whose KV events can be decoded.
KV_ENGINES: Final = ("vllm", "sglang")
_NAME_AND_NAMESPACE: Final = re.compile(r"[^.\s]+\.\S+")
_REDIS_PARTS: Final = ("redis_host", "redis_port", "redis_db", "redis_username", "redis_password")


def resolve(flags: Mapping[str, _Text], environ: Mapping[str, str]) -> Settings:
    """Parse flags and variables.

    Args:
        flags: The flags' texts by option name; `None` for a flag that is not given.
        environ: The environment variables.

    Raises:
        ConfigError: A value is missing, not valid, or contradicts another one.
    """
    given = {option: _given(option, flags.get(option.name), environ) for option in OPTIONS}
    if missing := [option for option, (_, text) in given.items() if option.required and text is None]:
        names = ", ".join(f"{'/'.join(option.flags)} {option.metavar}" for option in missing)
        message = f"missing: {names}; see --help"
        raise ConfigError(message)
    found = {option.name: _value(option, *given[option]) for option in OPTIONS}
    found["engine"] = _engine(found["engine"], found["metric_rules"])
    base, path = found["engine_base_url"], found["engine_metrics_path"]
    # Accept the URL of the metrics page itself as the base URL: http://localhost:8000/metrics.
    if urlsplit(base).path.endswith(path.rstrip("/")):
        found["engine_base_url"] = base.removesuffix(path.rstrip("/")).rstrip("/")
    parts = {name: found.pop(name) for name in _REDIS_PARTS}
    found["redis_url"] = found["redis_url"] or _redis_url(**parts)
    if found["redis_url"] and found["engine"] in KV_ENGINES and not _NAME_AND_NAMESPACE.fullmatch(found["pod"]):
        message = (
            f"--pod must look like name.namespace: the router knows pods by it, got {values.shown(found['pod'])!r}"
        )
        raise ConfigError(message)
    try:
        found["storage"] = Config.from_environ(environ)
    except StorageConfigError as error:
        raise ConfigError(error.message) from None
    return Settings(**found)


def _redis_url(
    *, redis_host: str | None, redis_port: int, redis_db: int, redis_username: str | None, redis_password: str | None
) -> str | None:
    """Build a Redis URL from the single variables; `None` without a host."""
    if not redis_host:
        return None
    login = f"{quote(redis_username or '', safe='')}:{quote(redis_password, safe='')}@" if redis_password else ""
    host = f"[{redis_host}]" if ":" in redis_host else redis_host
    return f"redis://{login}{host}:{redis_port}/{redis_db}"


def _given(option: Option, flag: _Text, environ: Mapping[str, str]) -> tuple[str | None, _Text]:
    """Return the flag or variable that gives a value, and the value's text; the text is `None` without a value."""
    variable = next((name for name in option.variables if environ.get(name, "").strip()), None)
    if flag is None and variable:
        return variable, environ[variable].strip()
    name = option.flags[-1] if option.flags else option.variable
    return name, flag if flag is not None else option.default


def _value(option: Option, origin: str | None, text: _Text) -> Any:
    if option.repeatable:
        return tuple(_parsed(option, origin, one) for one in text or ())
    return None if text is None else _parsed(option, origin, str(text))


def _parsed(option: Option, origin: str | None, text: str) -> Any:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{origin} is not valid UTF-8") from None
    try:
        return option.parse(text)
    except ValueError as error:
        message = f"{origin} {error}" + ("" if option.secret else f", got {values.shown(text)!r}")
        raise ConfigError(message) from None


def _engine(name: str, rule_file: Path | None) -> str:
    engine = canonical(name)
    try:
        declared = engine_of(rule_file) if rule_file else None
        if declared and declared != engine:
            raise other_engine(rule_file, declared, engine)
    except RuleError as error:
        message = f"--metric-rules {error}"
        raise ConfigError(message) from None
    if engine not in (*builtin_engines(), declared):
        way = f"write 'engine: {engine}' into {rule_file}" if rule_file else "bring rules for it with --metric-rules"
        known = ", ".join(builtin_engines())
        message = f"--engine {values.shown(name)!r} is not known: use one of {known}, or {way}"
        raise ConfigError(message)
    return engine
