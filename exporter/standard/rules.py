"""Rules: which engine family feeds which standard metric.

Rules are data. Each built-in engine has a YAML file in `engines/`. A user's own
file (`--metric-rules`) adds to these rules or defines a new engine:

    engine: my-engine        # optional: the --engine these rules are for
    extends: vllm            # optional: start from a built-in engine's rules
    metrics:
      kthena:num_requests_waiting:
        type: gauge
        help: Requests waiting for a place.
        sources:
          - my_engine_queue_length
          - {name: my_engine_waiting, where: {kind: total}, scale: 0.001}
      kthena:e2e_request_latency_seconds: null      # removes a built-in rule

A source is a whole sample name as it appears on the page. The first source that
is present, with a suitable type and at least one sample, wins. The others are
not used, even if they are present.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

import msgspec

from exporter.page.reserved import OWN_PREFIX
from exporter.page.text_format import series_names
from exporter.patience import in_time
from exporter.standard.strict_yaml import InvalidYamlError, read_yaml
from exporter.suggestions import did_you_mean
from storage.disk.regular import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = [
    "ENGINE_ALIASES",
    "Kind",
    "Rule",
    "RuleError",
    "RuleSet",
    "Source",
    "builtin_engines",
    "canonical",
    "engine_of",
    "load_rules",
    "other_engine",
]

Kind = Literal["counter", "gauge", "histogram"]
KINDS: Final = get_args(Kind)

# kthena's controller uses this name for a vLLM that separates prefill and decode.
ENGINE_ALIASES: Final = {"vllmdisaggregated": "vllm"}

_MOST_BYTES: Final = 4 << 20  # of a rule file
_METRIC_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class RuleError(ValueError):
    """A rule file cannot be used; the message names the file, the place and what to do."""


@dataclass(frozen=True, slots=True)
class Source:
    """A possible source of a standard metric.

    Attributes:
        name: The whole sample name on the engine's page.
        where: Labels that must have these values; a sample without the label passes.
        copies: Labels that number copies of one value, such as the ranks of a
            group. Of series that differ in these labels only, the one with the
            lowest number is kept (SGLang repeats a gauge for each tp_rank).
        scale: Factor for the values; for a histogram, for `le` and `_sum`.
        kind: The type that the source must have, when it differs from the metric's type.
    """

    name: str
    where: Mapping[str, str] = field(default_factory=dict)
    copies: tuple[str, ...] = ()
    scale: float = 1.0
    kind: Kind | None = None

    @property
    def picks(self) -> bool:
        """Whether samples must be read one by one; without conditions, the lines are renamed in bulk."""
        return bool(self.where or self.copies or self.scale != 1.0)


@dataclass(frozen=True, slots=True)
class Rule:
    """One standard metric: its name, type, help and sources; the first source present wins."""

    name: str
    kind: Kind
    help: str
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules for one engine, in the order in which their families are exported."""

    engine: str
    rules: tuple[Rule, ...]


class _SourceForm(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    where: dict[str, Any] = {}  # of str; `_source_problems` checks the values, for a better error than msgspec's
    copies: list[str] = []
    scale: float = 1.0
    type: str | None = None  # a Kind

    def source(self) -> Source:
        return Source(self.name, self.where, tuple(self.copies), self.scale, cast("Kind | None", self.type))


class _RuleForm(msgspec.Struct, forbid_unknown_fields=True):
    type: str  # a Kind
    help: str
    sources: list[str | _SourceForm]


class _FileForm(msgspec.Struct, forbid_unknown_fields=True):
    metrics: dict[str, Any]  # of _RuleForm | None; `_convert` handles each, so that errors name the metric
    engine: str | None = None
    extends: str | None = None


def _keys(form: type[msgspec.Struct]) -> str:
    return ", ".join(form.__struct_fields__)


_FILE_HELP: Final = f"the outermost keys are {_keys(_FileForm)}: are all rules indented below metrics?"
_RULE_HELP: Final = (
    f"a rule has {_keys(_RuleForm)}; a source is a name, or has {_keys(_SourceForm)}; is the indent right?"
)


def canonical(engine: str) -> str:
    """Return an engine's name as rules use it: lower case, with aliases resolved."""
    return ENGINE_ALIASES.get(engine.lower(), engine.lower())


def builtin_engines() -> tuple[str, ...]:
    """Return the names of the engines with built-in rules, sorted."""
    files = resources.files(__package__).joinpath("engines").iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def engine_of(path: Path) -> str | None:
    """Return the canonical name of the engine that a user's rule file declares, if any.

    Raises:
        RuleError: The file cannot be read or is not a rule file.
    """
    engine = _read_file(path).engine
    return canonical(engine) if engine else None


def load_rules(engine: str, path: Path | None = None) -> RuleSet:
    """Load the rules for an engine; a user's file overrides, adds or removes rules.

    Raises:
        RuleError: There are no rules for `engine`, or the file is not valid.
    """
    own = _read_file(path) if path else None
    base = _base_engine(engine, own, path)
    metrics: dict[str, _RuleForm | None] = dict(_read_builtin(base).metrics) if base else {}
    if own:
        _refuse_idle_nulls(own, metrics, path)
        metrics |= own.metrics
    rules = tuple(_rule(name, form) for name, form in metrics.items() if form is not None)
    if not rules:
        message = f"no metric rules for engine {engine!r}"
        raise RuleError(message)
    _refuse_collisions(rules, path)
    return RuleSet(engine, rules)


def other_engine(path: Path | None, declared: str, engine: str) -> RuleError:
    """Return the error for a rule file that declares an engine other than the chosen one."""
    return RuleError(f"{path} is for engine {declared!r}, not for {engine!r}: change --engine, or 'engine' in the file")


def _base_engine(engine: str, own: _FileForm | None, path: Path | None) -> str | None:
    """Return the built-in engine whose rules are the base of the user's rules, if any."""
    declared = canonical(own.engine) if own and own.engine else None
    if declared and declared != engine:
        raise other_engine(path, declared, engine)
    if own and own.extends:
        if canonical(own.extends) not in builtin_engines():
            message = f"{path}: extends {own.extends!r}: it must be one of {', '.join(builtin_engines())}"
            raise RuleError(message)
        return canonical(own.extends)
    # A file that declares a new engine has no base.
    return engine if not declared or engine in builtin_engines() else None


def _refuse_idle_nulls(own: _FileForm, metrics: Mapping[str, object], path: Path | None) -> None:
    """Refuse a null for a rule that does not exist: most likely its name is misspelled."""
    for name, form in own.metrics.items():
        if form is None and name not in metrics:
            message = (
                f"{path}: metric {name!r} is null, but there is no such rule to take away{did_you_mean(name, metrics)}"
            )
            raise RuleError(message)


def _refuse_collisions(rules: tuple[Rule, ...], path: Path | None) -> None:
    """Refuse a metric that is named like a series of another one: Go's parsers refuse a page with both."""
    kinds = {rule.name: rule.kind for rule in rules}
    for name, kind in kinds.items():
        for part in sorted(series_names(name, kind) - {name}):
            if part in kinds:
                where = path or "built-in rules"
                message = f"{where}: metric {part!r} has the name of a series of the histogram {name!r}: rename one"
                raise RuleError(message)


def _read_builtin(engine: str) -> _FileForm:
    file = resources.files(__package__).joinpath("engines", f"{engine}.yaml")
    if engine not in builtin_engines():
        message = f"no metric rules for engine {engine!r}; known: {', '.join(builtin_engines())}"
        raise RuleError(message)
    return _decode(file.read_bytes(), f"built-in rules of {engine}")


def _read_file(path: Path) -> _FileForm:
    try:
        return _decode(in_time(partial(read_regular, path, _MOST_BYTES)), str(path))
    except OSError as error:
        message = f"cannot read metric rules {path}: {error.strerror}"
        raise RuleError(message) from None


def _decode(text: bytes, where: str) -> _FileForm:
    try:
        content = read_yaml(text)
    except InvalidYamlError as error:
        message = f"{where}{error}"
        raise RuleError(message) from None
    if content is None:
        message = f"{where} is empty: it must have metrics (docs/metrics.md)"
        raise RuleError(message)
    try:
        form = msgspec.convert(content, _FileForm)
    except msgspec.ValidationError as error:
        message = f"{where}: {error}; {_FILE_HELP}"
        raise RuleError(message) from None
    for name, rule in form.metrics.items():
        form.metrics[name] = _convert(name, rule, where)
        _check(name, form.metrics[name], where)
    return form


def _convert(name: str, rule: object, where: str) -> _RuleForm | None:
    try:
        return msgspec.convert(rule, _RuleForm | None)
    except msgspec.ValidationError as error:
        message = f"{where}: metric {name!r}: {error}; {_RULE_HELP}"
        raise RuleError(message) from None


def _check(name: str, form: _RuleForm | None, where: str) -> None:
    """Refuse a rule that would make a page invalid; report the first problem."""
    for problem in _problems(name, form):
        message = f"{where}: metric {name!r} {problem}"
        raise RuleError(message)


def _problems(name: str, form: _RuleForm | None) -> Iterator[str]:
    if not _METRIC_NAME.fullmatch(name):
        yield "is not a metric name ([a-zA-Z_:][a-zA-Z0-9_:]*)"
    if name.startswith(OWN_PREFIX):
        yield f"is taken: {OWN_PREFIX}* is the runtime's own"
    if form is None:
        return
    yield from _type_problems(form.type)
    # prometheus_client and OpenMetrics know a counter by this suffix.
    if form.type == "counter" and not name.endswith("_total"):
        yield "is a counter: its name must end in _total"
    if not form.sources:
        yield "has no sources: name at least one, or write null to take the rule away"
    for source in form.sources:
        yield from _source_problems(source if isinstance(source, _SourceForm) else _SourceForm(source), form.type)


def _type_problems(kind: str) -> Iterator[str]:
    if kind not in KINDS:
        yield f"has type {kind!r}: it must be {', '.join(KINDS[:-1])} or {KINDS[-1]}"


def _source_problems(source: _SourceForm, kind: str) -> Iterator[str]:
    if not _METRIC_NAME.fullmatch(source.name):
        yield f"has a source that is not a metric name: {source.name!r}"
    if source.type is not None:
        yield from _type_problems(source.type)
        if source.type != kind and "histogram" in (source.type, kind):
            yield f"is a {kind}: it cannot be made of a {source.type}"
    if not 0 < source.scale < inf:
        yield f"has a source with scale {source.scale:g}: it must be above 0 and finite"
    for label, value in source.where.items():
        if not isinstance(value, str):
            yield f'has a value of label {label} that is not text: put it in quotes, such as {label}: "0"'


def _rule(name: str, form: _RuleForm) -> Rule:
    return Rule(name, cast("Kind", form.type), form.help, tuple(map(_source, form.sources)))


def _source(item: str | _SourceForm) -> Source:
    return Source(item) if isinstance(item, str) else item.source()
