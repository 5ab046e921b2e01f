"""Settings: one table of flags and variables, and what it makes of them.

A flag wins over its variable, a variable over the default. Variables that are
set but empty count as not set, as manifests often leave them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit

from exporter.metrics.rules import RuleError, builtin_engines, canonical, engine_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["OPTIONS", "ConfigError", "Option", "Settings", "resolve"]

LOG_FORMATS: Final = ("text", "json")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")

_MAX_PORT: Final = 65535
# A name, an IPv4 or an IPv6 address; what HTTP clients refuse is not taken here either.
_HOST: Final = re.compile(r"[\w.-]+|[\da-f.]*:[\da-f:.]*(%[\w.-]+)?", re.ASCII)


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

    @property
    def engine_metrics_url(self) -> str:
        """The page that is scraped."""
        return self.engine_base_url + self.engine_metrics_path


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table.

    Attributes:
        name: The field of `Settings` it fills.
        flags: Its flags, long one last.
        help: One sentence for `--help` and the docs.
        parse: Makes the value of a text; raises ValueError with a reason.
        default: The default as a text; `None` when there is none.
        variable: The environment variable that stands in for the flag.
        required: Whether it must be given.
        metavar: What stands for the value in the help; none for a switch.
    """

    name: str
    flags: tuple[str, ...]
    help: str
    parse: Callable[[str], Any]
    default: str | None = None
    variable: str | None = None
    required: bool = False
    metavar: str | None = None


def _text(value: str) -> str:
    if not value.strip():
        message = "must not be empty"
        raise ValueError(message)
    return value.strip()


def _port(value: str) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,5}\s*", value) or int(value) > _MAX_PORT:
        message = f"must be a number from 0 to {_MAX_PORT} (0 takes a free port)"
        raise ValueError(message)
    return int(value)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:  # noqa: PLR2004 - an hour; said in the message
        message = "must be a number of seconds above 0 and up to 3600"
        raise ValueError(message)
    return seconds


_SIZES: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def _bytes(value: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([kmg]i?)?b?", value.strip().lower())
    size = int(match[1]) * _SIZES[match[2] or ""] if match else 0
    if not size:
        message = "must be a size in bytes above 0, such as 67108864 or 64Mi"
        raise ValueError(message)
    return size


def _url(value: str) -> str:
    parts = _split_url(value.strip())
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.hostname or "") or len(value.split()) != 1:
        message = "must be an http or https URL such as http://localhost:8000"
        raise ValueError(message)
    if parts.username is not None:
        message = "must not hold credentials"
        raise ValueError(message)
    if "?" in value or "#" in value:
        message = "must not have a query or a fragment"
        raise ValueError(message)
    return value.strip().rstrip("/")


def _split_url(value: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError as error:
        message = f"is not a URL: {error}"
        raise ValueError(message) from None
    return parts


def _path(value: str) -> str:
    if not re.fullmatch(r"/[^\s#]*", value.strip()):
        message = "must be a path that begins with '/', such as /metrics"
        raise ValueError(message)
    return value.strip()


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.strip().lower() not in choices:
            message = f"must be one of {', '.join(choices)}"
            raise ValueError(message)
        return value.strip().lower()

    return parse


def _switch(value: str) -> bool:
    return value == "true"


OPTIONS: Final = (
    Option(
        "engine",
        ("-E", "--engine"),
        "Inference engine, in any case: vllm, sglang, another with built-in rules, or one named by --metric-rules.",
        _text,
        required=True,
        metavar="NAME",
    ),
    Option("host", ("-H", "--host"), "Address to listen on.", _text, default="0.0.0.0", metavar="ADDRESS"),  # noqa: S104 - ordered
    Option(
        "port",
        ("-P", "--port"),
        "Port to listen on; 0 takes a free one.",
        _port,
        default="9000",
        variable="RUNTIME_PORT",
        metavar="PORT",
    ),
    Option(
        "engine_base_url",
        ("-B", "--engine-base-url"),
        "Base URL of the engine; one that ends in the metrics path is understood.",
        _url,
        default="http://localhost:8000",
        variable="RUNTIME_URL",
        metavar="URL",
    ),
    Option(
        "engine_metrics_path",
        ("-M", "--engine-metrics-path"),
        "Path of the engine's metrics page.",
        _path,
        default="/metrics",
        variable="RUNTIME_METRICS_PATH",
        metavar="PATH",
    ),
    Option("pod", ("-I", "--pod"), "This pod, as name.namespace.", _text, required=True, metavar="POD"),
    Option("model", ("-N", "--model"), "Name of the model.", _text, required=True, metavar="MODEL"),
    Option(
        "metric_rules",
        ("--metric-rules",),
        "YAML file with rules of your own for standard metrics (docs/metrics.md).",
        lambda value: Path(_text(value)),
        metavar="FILE",
    ),
    Option(
        "request_timeout",
        ("--request-timeout",),
        "Seconds for the engine to answer when the scraper does not say how long it waits.",
        _seconds,
        default="30",
        variable="REQUEST_TIMEOUT",
        metavar="SECONDS",
    ),
    Option(
        "max_scrape_bytes",
        ("--max-scrape-bytes",),
        "Largest metrics page taken from the engine; a suffix such as Mi is understood.",
        _bytes,
        default="64Mi",
        metavar="BYTES",
    ),
    Option(
        "raw_metrics",
        ("--no-raw-metrics",),
        "Export only the standard metrics and the runtime's own, not the engine's.",
        lambda value: not _switch(value),
        default="false",
    ),
    Option(
        "log_format",
        ("--log-format",),
        "Form of the log: text or json.",
        _one_of(*LOG_FORMATS),
        default="text",
        metavar="FORMAT",
    ),
    Option(
        "log_level",
        ("--log-level",),
        "Least level that is logged: debug, info, warning or error.",
        _one_of(*LOG_LEVELS),
        default="info",
        metavar="LEVEL",
    ),
)


def resolve(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Settings:
    """Make settings of flags (by option name; `None` when not given) and variables.

    Raises:
        ConfigError: A value is missing or cannot be used.
    """
    values = {option.name: _value(option, flags.get(option.name), environ) for option in OPTIONS}
    values["engine"] = _engine(values["engine"], values["metric_rules"])
    base, path = values["engine_base_url"], values["engine_metrics_path"]
    # A base URL may come with the metrics path on it: http://localhost:8000/metrics.
    if urlsplit(base).path.endswith(path.rstrip("/")):
        values["engine_base_url"] = base.removesuffix(path.rstrip("/")).rstrip("/")
    return Settings(**values)


def _value(option: Option, flag: str | None, environ: Mapping[str, str]) -> Any:  # noqa: ANN401 - a field of Settings
    variable = environ.get(option.variable, "").strip() if option.variable else ""
    text = flag if flag is not None else variable or option.default
    origin = option.variable if flag is None and variable else option.flags[-1]
    if text is None:
        if option.required:
            message = f"{'/'.join(option.flags)} is required: {option.help}"
            raise ConfigError(message)
        return None
    try:
        return option.parse(text)
    except ValueError as error:
        message = f"{origin} {error}, got {text!r}"
        raise ConfigError(message) from None


def _engine(name: str, rule_file: Path | None) -> str:
    engine = canonical(name)
    try:
        declared = engine_of(rule_file) if rule_file else None
    except RuleError as error:
        message = f"--metric-rules {error}"
        raise ConfigError(message) from None
    known = {*builtin_engines(), *([declared] if declared else [])}
    if engine not in known:
        message = f"--engine {name!r} is not known: use one of {', '.join(sorted(known))}, or bring rules for it with --metric-rules"
        raise ConfigError(message)
    return engine
