"""The table of all flags and environment variables: names, default, help, and the parser of the value.

`exporter.cli` builds the command line from it, `exporter.settings` reads the values,
and the docs are tested against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from exporter import values
from storage.memory import memory_size

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OPTIONS", "Option"]

LOG_FORMATS: Final = ("text", "json")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table.

    Attributes:
        name: The field of `Settings` that it fills.
        flags: The flags, the long one last; empty for an option that only a variable sets.
        help: One sentence for `--help` and the docs.
        parse: Parses the text; raises ValueError with the end of a sentence, such as "must be a number".
        default: The default as a text; `None` when there is none.
        variable: The environment variable that is used without a flag.
        required: Whether a value must be given.
        metavar: The placeholder for the value in the help; `None` for a switch.
        older: Variables of older runtimes, used when `variable` is not set.
        secret: Whether the value must not be shown, not even in an error.
        repeatable: Whether the flag may be given several times; the value is a tuple.
    """

    name: str
    flags: tuple[str, ...]
    help: str
    parse: Callable[[str], Any]
    default: str | None = None
    variable: str | None = None
    required: bool = False
    metavar: str | None = None
    older: tuple[str, ...] = ()
    secret: bool = False
    repeatable: bool = False

    @property
    def variables(self) -> tuple[str, ...]:
        """All variables of the option, in the order of precedence."""
        return ((self.variable,) if self.variable else ()) + self.older


OPTIONS: Final = (
    Option(
        "engine",
        ("-E", "--engine"),
        "Inference engine, in any case: vllm, sglang, another with built-in rules, or one named by --metric-rules.",
        values.text,
        required=True,
        metavar="NAME",
    ),
    Option("host", ("-H", "--host"), "Address to listen on.", values.text, default="0.0.0.0", metavar="ADDRESS"),
    Option(
        "port",
        ("-P", "--port"),
        "Port to listen on; 0 takes a free one.",
        values.port,
        default="9000",
        variable="RUNTIME_PORT",
        metavar="PORT",
    ),
    Option(
        "engine_base_url",
        ("-B", "--engine-base-url"),
        "Base URL of the engine; one that ends in the metrics path is understood.",
        values.http_url,
        default="http://localhost:8000",
        variable="RUNTIME_URL",
        metavar="URL",
    ),
    Option(
        "engine_metrics_path",
        ("-M", "--engine-metrics-path"),
        "Path of the engine's metrics page.",
        values.path,
        default="/metrics",
        variable="RUNTIME_METRICS_PATH",
        metavar="PATH",
    ),
    Option("pod", ("-I", "--pod"), "This pod, as name.namespace.", values.expanded, required=True, metavar="POD"),
    Option("model", ("-N", "--model"), "Name of the model.", values.expanded, required=True, metavar="MODEL"),
    Option(
        "metric_rules",
        ("--metric-rules",),
        "YAML file with rules of your own for standard metrics (docs/metrics.md).",
        lambda value: Path(values.text(value)),
        metavar="FILE",
    ),
    Option(
        "request_timeout",
        ("--request-timeout",),
        "Seconds for the engine to answer when the scraper does not say how long it waits.",
        values.seconds,
        default="30",
        variable="REQUEST_TIMEOUT",
        metavar="SECONDS",
    ),
    Option(
        "max_scrape_bytes",
        ("--max-scrape-bytes",),
        "Largest metrics page taken from the engine; a suffix such as Mi is understood.",
        values.size,
        default="16Mi",
        metavar="BYTES",
    ),
    Option(
        "raw_metrics",
        ("--no-raw-metrics",),
        "Export only the standard metrics and the runtime's own, not the engine's.",
        lambda value: not values.switch(value),
        default="false",
    ),
    Option(
        "log_format",
        ("--log-format",),
        "Form of the log: text or json.",
        values.one_of(*LOG_FORMATS),
        default="text",
        metavar="FORMAT",
    ),
    Option(
        "log_level",
        ("--log-level",),
        "Least level that is logged: debug, info, warning or error.",
        values.one_of(*LOG_LEVELS),
        default="info",
        metavar="LEVEL",
    ),
    Option(
        "write_roots",
        ("--write-root",),
        "Directory that downloads must lie in; may be given several times.",
        values.directory,
        metavar="DIR",
        repeatable=True,
    ),
    Option(
        "stall_timeout",
        ("--stall-timeout",),
        "Seconds without a byte after which a download is started again where it was.",
        values.seconds,
        default="60",
        metavar="SECONDS",
    ),
    Option(
        "worker_memory",
        ("--worker-memory",),
        "Memory limit of each download's process; two run at a time.",
        memory_size,
        default="80Mi",
        metavar="MEMORY",
    ),
    Option(
        "worker_nice",
        ("--worker-nice",),
        "How far downloads step back for the other processes of the container, as in nice(1): 0 to 19.",
        values.count(19, least=0),
        default="19",
        metavar="NUMBER",
    ),
    Option(
        "lora_dir",
        ("--lora-dir",),
        "Directory for adapters that name none; the engine must see it at the same path.",
        lambda value: Path(values.directory(value)),
        default="/models/lora-adapters",
        metavar="DIR",
    ),
    Option(
        "state_dir",
        ("--state-dir",),
        "Directory for the desired adapters, so that they outlive the runtime; none are kept without.",
        lambda value: Path(values.directory(value)),
        metavar="DIR",
    ),
    Option(
        "model_config",
        ("--model-config",),
        "Model YAML whose loraAdapters are kept loaded; followed as it changes.",
        lambda value: Path(values.text(value)),
        metavar="FILE",
    ),
    Option("backend", ("--backend",), "Backend of the Model YAML, when it has several.", values.text, metavar="NAME"),
    Option(
        "reconcile_interval",
        ("--reconcile-interval",),
        "Seconds between two comparisons of the engine's adapters with the desired ones.",
        values.seconds,
        default="5",
        metavar="SECONDS",
    ),
    Option(
        "engine_api_key_file",
        ("--engine-api-key-file",),
        "File with the key of an engine that wants one.",
        lambda value: Path(values.text(value)),
        metavar="FILE",
    ),
    Option(
        "api_token_file",
        ("--api-token-file",),
        "File with the bearer token that everything under /v1 then wants.",
        lambda value: Path(values.text(value)),
        metavar="FILE",
    ),
    Option(
        "download_replace",
        (),
        "Whether downloads may remove or overwrite files of another source when the request does not say: true or false.",
        values.boolean,
        default="false",
        variable="DOWNLOAD_REPLACE",
    ),
    Option(
        "redis_url",
        (),
        "Redis for KV events, as a URL; wins over the five variables below.",
        values.redis_url,
        variable="REDIS_URL",
        secret=True,
    ),
    Option(
        "redis_host",
        (),
        "Host of the Redis for KV events; without it and REDIS_URL there are none.",
        values.redis_host,
        variable="REDIS_HOST",
    ),
    Option(
        "redis_port",
        (),
        "Port of Redis; tcp://host:port is understood.",
        values.redis_port,
        default="6379",
        variable="REDIS_PORT",
    ),
    Option("redis_db", (), "Database of Redis.", values.number, default="0", variable="REDIS_DB"),
    Option("redis_username", (), "User for Redis.", values.text, variable="REDIS_USERNAME"),
    Option("redis_password", (), "Password for Redis.", values.text, variable="REDIS_PASSWORD", secret=True),
    Option(
        "kv_endpoint",
        (),
        "Where the engine publishes its KV events, DP rank 0; a further rank is a port on.",
        values.endpoint,
        default="tcp://localhost:5557",
        variable="KV_EVENTS_ENDPOINT",
        older=("VLLM_ZMQ_ENDPOINT", "SGLANG_ZMQ_ENDPOINT"),
    ),
    Option(
        "kv_topic",
        (),
        "What a KV event's topic must begin with; all topics when not set.",
        str.strip,
        default="",
        variable="KV_EVENTS_TOPIC_FILTER",
        older=("VLLM_ZMQ_TOPIC_FILTER", "SGLANG_ZMQ_TOPIC_FILTER"),
    ),
    Option(
        "kv_replay_endpoint",
        (),
        "Where the engine replays KV events that were missed, DP rank 0.",
        values.endpoint,
        variable="KV_EVENTS_REPLAY_ENDPOINT",
    ),
    Option(
        "data_parallel_size",
        (),
        "How many DP ranks the engine has.",
        values.count(1024),
        default="1",
        variable="DATA_PARALLEL_SIZE",
    ),
    Option(
        "kv_max_blocks",
        (),
        "How many of the engine's blocks the index may have; each takes 360 bytes of memory.",
        values.count(100_000_000),
        default="200000",
        variable="KV_EVENTS_MAX_BLOCKS",
    ),
)
