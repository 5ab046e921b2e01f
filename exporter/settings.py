"""Settings: what the flags and variables of `exporter.options` come to, as one frozen value.

A flag wins over its variable, a variable over the default. Variables that are
set but empty count as not set, as manifests often leave them.
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

# What a flag was given as; a list for one that may be repeated.
_Text: TypeAlias = str | list[str] | None


class ConfigError(ValueError):
    """A flag or variable cannot be used; the message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the process is told from outside.

    Attributes:
        engine: Whose rules are used, lower case, aliases resolved.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        engine_base_url: Scheme and authority of the engine, with a path prefix
            if it has one, without a trailing slash.
        engine_metrics_path: Path of the engine's metrics page.
        pod: This pod, as `name.namespace`.
        model: The model's name.
        metric_rules: A file of the user's own rules.
        request_timeout: Seconds for the engine to answer when a scraper names none.
        max_scrape_bytes: The largest page that is taken from the engine.
        raw_metrics: Whether the engine's own families are exported too.
        log_format: `text` or `json`.
        log_level: `debug`, `info`, `warning` or `error`.
        write_roots: Directories that downloads must lie in; anywhere when empty.
        stall_timeout: Seconds without a byte after which a download is started again.
        worker_memory: Bytes that the process of a download may take.
        download_replace: Whether downloads may replace files of another source when a request does not say.
        worker_nice: How far downloads step back for the other processes of the container.
        lora_dir: Where adapters go that name no directory.
        state_dir: Where the desired adapters are kept.
        model_config: The Model YAML that is followed.
        backend: Which of its backends.
        reconcile_interval: Seconds between two looks at the engine's adapters.
        engine_api_key_file: A file with the engine's key.
        api_token_file: A file with the token for /v1.
        storage: The pod's own credentials and endpoints for downloads.
        redis_url: Redis for KV events, with credentials; none without Redis.
        kv_endpoint: ZeroMQ endpoint of the engine's KV events (DP rank 0).
        kv_topic: What the events' topic must begin with.
        kv_replay_endpoint: ZeroMQ endpoint of the engine's replay socket (DP rank 0).
        data_parallel_size: How many DP ranks the engine has.
        kv_max_blocks: How many of the engine's blocks are kept in memory.
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
        """The page that is scraped."""
        return self.engine_base_url + self.engine_metrics_path

    @property
    def warnings(self) -> tuple[str, ...]:
        """What can be used, and is most likely not what was meant."""
        if _NAME_AND_NAMESPACE.fullmatch(self.pod):
            return ()
        return (f"--pod {self.pod!r} has no namespace: give it as name.namespace, by which the router knows pods",)


# Engines whose KV events can be decoded.
KV_ENGINES: Final = ("vllm", "sglang")
_NAME_AND_NAMESPACE: Final = re.compile(r"[^.\s]+\.\S+")
_REDIS_PARTS: Final = ("redis_host", "redis_port", "redis_db", "redis_username", "redis_password")


def resolve(flags: Mapping[str, _Text], environ: Mapping[str, str]) -> Settings:
    """Make settings of flags (by option name; `None` when not given) and variables.

    Raises:
        ConfigError: A value is missing or cannot be used.
    """
    given = {option: _given(option, flags.get(option.name), environ) for option in OPTIONS}
    if missing := [option for option, (_, text) in given.items() if option.required and text is None]:
        names = ", ".join(f"{'/'.join(option.flags)} {option.metavar}" for option in missing)
        message = f"missing: {names}; see --help"
        raise ConfigError(message)
    found = {option.name: _value(option, *given[option]) for option in OPTIONS}
    found["engine"] = _engine(found["engine"], found["metric_rules"])
    base, path = found["engine_base_url"], found["engine_metrics_path"]
    # A base URL may come with the metrics path on it: http://localhost:8000/metrics.
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
    """Make a URL of the parts, for those who do not give one."""
    if not redis_host:
        return None
    login = f"{quote(redis_username or '', safe='')}:{quote(redis_password, safe='')}@" if redis_password else ""
    host = f"[{redis_host}]" if ":" in redis_host else redis_host
    return f"redis://{login}{host}:{redis_port}/{redis_db}"


def _given(option: Option, flag: _Text, environ: Mapping[str, str]) -> tuple[str | None, _Text]:
    """Return where a value comes from, and its text; `None` when there is none."""
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
