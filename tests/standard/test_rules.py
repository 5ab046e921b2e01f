"""Rule files: a user's own over the built-in ones, and errors that say what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exporter.standard.rules import Rule, RuleError, RuleSet, Source, builtin_engines, engine_of, load_rules

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.unit

RULE = """\
metrics:
  kthena:x:
    type: gauge
    help: Help.
    sources: [my_x]
"""
SYNTAX = "check indent and quotes there"
FILE_KEYS = "the outermost keys are metrics, engine, extends: are all rules indented below metrics?"
RULE_KEYS = (
    "a rule has type, help, sources; a source is a name, or has name, where, copies, scale, type; is the indent right?"
)
KNOWN = ", ".join(builtin_engines())


@pytest.fixture
def rule_file(tmp_path: Path) -> Callable[[str | bytes], Path]:
    path = tmp_path / "rules.yaml"

    def write(text: str | bytes) -> Path:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def error_of(path: Path, engine: str = "vllm") -> str:
    """Return the error of loading a file, less the file's own directory."""
    with pytest.raises(RuleError) as caught:
        load_rules(engine, path)
    return str(caught.value).replace(str(path.parent) + "/", "")


@pytest.mark.parametrize("engine", builtin_engines())
def test_every_built_in_file_loads(engine: str) -> None:
    """Each engine has at least one rule, each rule a source."""
    rule_set = load_rules(engine)

    assert rule_set.engine == engine
    assert rule_set.rules
    assert all(rule.sources for rule in rule_set.rules)


def test_the_built_in_engines_are_known() -> None:
    """Their names are those of their files."""
    assert ", ".join(builtin_engines()) == KNOWN


def test_a_file_adds_to_the_engines_rules(rule_file: Callable[[str], Path]) -> None:
    """Without `engine` and `extends` it stands over the rules of whichever engine was chosen."""
    rules = load_rules("sglang", rule_file(RULE)).rules

    assert rules == (*load_rules("sglang").rules, Rule("kthena:x", "gauge", "Help.", (Source("my_x"),)))


def test_a_file_replaces_and_removes_rules(rule_file: Callable[[str], Path]) -> None:
    """A rule of the same name stands in the old one's place; null takes one away."""
    text = RULE.replace("kthena:x", "kthena:num_requests_waiting") + "  kthena:num_requests_running: null\n"

    rules = {rule.name: rule for rule in load_rules("vllm", rule_file(text)).rules}

    assert rules["kthena:num_requests_waiting"] == Rule(
        "kthena:num_requests_waiting", "gauge", "Help.", (Source("my_x"),)
    )
    builtin = [rule.name for rule in load_rules("vllm").rules]
    assert list(rules) == [name for name in builtin if name != "kthena:num_requests_running"]


def test_a_file_brings_a_new_engine(rule_file: Callable[[str], Path]) -> None:
    """Its rules are all that engine has."""
    path = rule_file("engine: My-Engine\n" + RULE)

    assert engine_of(path) == "my-engine"
    assert load_rules("my-engine", path) == RuleSet(
        "my-engine", (Rule("kthena:x", "gauge", "Help.", (Source("my_x"),)),)
    )


def test_a_new_engine_extends_a_built_in_one(rule_file: Callable[[str], Path]) -> None:
    """It starts from those rules, under its own name."""
    rule_set = load_rules("mine", rule_file("engine: mine\nextends: VLLM\n" + RULE))

    assert rule_set.engine == "mine"
    assert [rule.name for rule in rule_set.rules] == [*(rule.name for rule in load_rules("vllm").rules), "kthena:x"]


def test_a_file_without_an_engine_declares_none(rule_file: Callable[[str], Path]) -> None:
    """It goes with any."""
    assert engine_of(rule_file(RULE)) is None


def test_all_that_a_source_can_say_is_read(rule_file: Callable[[str], Path]) -> None:
    """Short and long forms stand in one list."""
    long = "{name: my_y, where: {kind: total}, copies: [rank], scale: 0.001, type: counter}"

    rules = load_rules("mine", rule_file("engine: mine\n" + RULE.replace("[my_x]", f"[my_x, {long}]"))).rules

    assert rules[0].sources == (
        Source("my_x"),
        Source("my_y", where={"kind": "total"}, copies=("rank",), scale=0.001, kind="counter"),
    )
    assert [source.picks for source in rules[0].sources] == [False, True]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "[my_x]",
            "[my_x",
            f"rules.yaml line 6: not valid YAML: while parsing a flow sequence: did not find expected ',' or ']'; {SYNTAX}",
        ),
        (
            "    help",
            "   help",
            f"rules.yaml line 4: not valid YAML: while parsing a block mapping: did not find expected key; {SYNTAX}",
        ),
        (
            "Help.",
            "%x",
            f"rules.yaml line 4: not valid YAML: while scanning for the next token: found character that cannot start any token; {SYNTAX}",
        ),
        (
            "    help: Help.",
            "    type: gauge",
            "rules.yaml line 4: not valid YAML: the key 'type' stands twice, first in line 3",
        ),
        (
            "[my_x]",
            "[{name: y, name: z}]",
            "rules.yaml line 5: not valid YAML: the key 'name' stands twice, first in line 5",
        ),
        (
            "[my_x]\n",
            "[my_x]\n  kthena:x: null\n",
            "rules.yaml line 6: not valid YAML: the key 'kthena:x' stands twice, first in line 2",
        ),
        (
            "gauge",
            "gauge\n    kind: gauge",
            f"rules.yaml: metric 'kthena:x': Object contains unknown field `kind`; {RULE_KEYS}",
        ),
        (
            "[my_x]",
            "[my_x, {name: y, wher: {a: b}}]",
            f"rules.yaml: metric 'kthena:x': Object contains unknown field `wher` - at `$.sources[1]`; {RULE_KEYS}",
        ),
        (
            "[my_x]",
            "[{name: y, where: {rank: 0}}]",
            "rules.yaml: metric 'kthena:x' has a value of label rank that is not text: put it in quotes, such as rank: \"0\"",
        ),
        ("[my_x]", "my_x", f"rules.yaml: metric 'kthena:x': Expected `array`, got `str` - at `$.sources`; {RULE_KEYS}"),
        (
            "    type",
            "  type",
            f"rules.yaml line 4: not valid YAML: mapping values are not allowed in this context; {SYNTAX}",
        ),
        ("  kthena:x", "kthena:x", f"rules.yaml: Expected `object`, got `null` - at `$.metrics`; {FILE_KEYS}"),
        ("    help: Help.\n", "", f"rules.yaml: metric 'kthena:x': Object missing required field `help`; {RULE_KEYS}"),
        ("gauge", "guage", "rules.yaml: metric 'kthena:x' has type 'guage': it must be counter, gauge or histogram"),
        (
            "[my_x]",
            "[{name: y, type: guage}]",
            "rules.yaml: metric 'kthena:x' has type 'guage': it must be counter, gauge or histogram",
        ),
        (
            "[my_x]",
            "[{name: y, type: histogram}]",
            "rules.yaml: metric 'kthena:x' is a gauge: it cannot be made of a histogram",
        ),
        ("metrics", "metric", f"rules.yaml: Object contains unknown field `metric`; {FILE_KEYS}"),
        ("metrics", "engine: 5\nmetrics", f"rules.yaml: Expected `str | null`, got `int` - at `$.engine`; {FILE_KEYS}"),
        (
            "kthena:x",
            "kthena-x",
            "rules.yaml: metric 'kthena-x' is not a metric name ([a-zA-Z_:][a-zA-Z0-9_:]*)",
        ),
        ("gauge", "counter", "rules.yaml: metric 'kthena:x' is a counter: its name must end in _total"),
        (
            "kthena:x",
            "kthena_runtime_x",
            "rules.yaml: metric 'kthena_runtime_x' is taken: kthena_runtime_* is the runtime's own",
        ),
        (
            "[my_x]",
            "[]",
            "rules.yaml: metric 'kthena:x' has no sources: name at least one, or write null to take the rule away",
        ),
        ("my_x", "my-x", "rules.yaml: metric 'kthena:x' has a source that is not a metric name: 'my-x'"),
        (
            "Help.",
            "2024-13-45",
            "rules.yaml: not valid YAML: a value that cannot be read: month must be in 1..12",
        ),
        (
            "Help.",
            "!!int x",
            "rules.yaml: not valid YAML: a value that cannot be read: invalid literal for int() with base 10: 'x'",
        ),
        ("Help.", "!!bool x", "rules.yaml: not valid YAML: a value that cannot be read: 'x'"),
        (
            "Help.",
            "!!python/name:os.system",
            (
                "rules.yaml line 4: not valid YAML: could not determine a constructor for the tag "
                "'tag:yaml.org,2002:python/name:os.system'"
            ),
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(rule_file: Callable[[str], Path], old: str, new: str, problem: str) -> None:
    """The message has the file, the line or the metric, and what is wrong there."""
    assert error_of(rule_file(RULE.replace(old, new, 1))) == problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "rules.yaml is empty: it must have metrics (docs/metrics.md)"),
        ("# nothing yet\n", "rules.yaml is empty: it must have metrics (docs/metrics.md)"),
        ("- kthena:x\n", f"rules.yaml: Expected `object`, got `array`; {FILE_KEYS}"),
        ("kthena:x\n", f"rules.yaml: Expected `object`, got `str`; {FILE_KEYS}"),
        ("engine: mine\n", f"rules.yaml: Object missing required field `metrics`; {FILE_KEYS}"),
        (
            RULE + "---\n" + RULE,
            "rules.yaml line 6: not valid YAML: expected a single document in the stream: but found another document",
        ),
    ],
)
def test_what_is_no_rule_file_is_refused(rule_file: Callable[[str], Path], text: str, problem: str) -> None:
    """Empty files, lists and plain texts among them."""
    assert error_of(rule_file(text)) == problem


@pytest.mark.parametrize("value", ["0", "1.5", "true", "2024-01-31", "", "[a]"])
def test_a_label_value_needs_quotes(rule_file: Callable[[str], Path], value: str) -> None:
    """What YAML takes for something else than text is refused with the way to write it."""
    problem = error_of(rule_file(RULE.replace("[my_x]", f"[{{name: x, where: {{rank: {value}}}}}]")))

    assert problem.endswith('has a value of label rank that is not text: put it in quotes, such as rank: "0"')


def test_keys_may_repeat_in_different_mappings(rule_file: Callable[[str], Path]) -> None:
    """An alias or a merge may bring a key again, and what stands beside it wins as YAML has it."""
    text = RULE.replace("kthena:x:", "kthena:x: &x") + '  kthena:y: {<<: *x, help: "Other."}\n  kthena:z: *x\n'

    rules = {rule.name: rule.help for rule in load_rules("vllm", rule_file(text)).rules}

    assert [rules[name] for name in ("kthena:x", "kthena:y", "kthena:z")] == ["Help.", "Other.", "Help."]


@pytest.mark.parametrize(
    ("engine", "name", "hint"),
    [
        ("vllm", "kthena:num_requests_wating", " (did you mean kthena:num_requests_waiting?)"),
        ("vllm", "x", ""),
        ("mine", "kthena:num_requests_waiting", ""),
    ],
)
def test_a_null_that_takes_nothing_away_is_refused(
    rule_file: Callable[[str], Path], engine: str, name: str, hint: str
) -> None:
    """Most likely the name is wrong, and the rule that was meant is still there."""
    path = rule_file(f"engine: {engine}\nmetrics:\n  {name}: null\n")

    problem = f"rules.yaml: metric {name!r} is null, but there is no such rule to take away{hint}"
    assert error_of(path, engine) == problem


def test_a_file_that_is_not_utf8_is_refused(rule_file: Callable[[bytes], Path]) -> None:
    """The message says which byte."""
    problem = error_of(rule_file(b"metrics: \xff\n"))

    assert problem.startswith("rules.yaml: not valid YAML: unacceptable character #x00ff: invalid leading UTF-8 octet")
    assert problem.endswith("position 9")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing.yaml", "No such file or directory"), ("", "Is a directory"), ("rules.yaml/x", "Not a directory")],
)
def test_a_file_that_cannot_be_read_is_named(rule_file: Callable[[str], Path], name: str, reason: str) -> None:
    """The message is the system's own."""
    path = rule_file(RULE).parent / name

    with pytest.raises(RuleError) as caught:
        load_rules("vllm", path)

    assert str(caught.value) == f"cannot read metric rules {path}: {reason}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "engine: other\n" + RULE,
            "rules.yaml is for engine 'other', not for 'vllm': change --engine, or 'engine' in the file",
        ),
        ("extends: nope\n" + RULE, f"rules.yaml: extends 'nope': it must be one of {KNOWN}"),
        ("extends: ../rules/vllm\n" + RULE, f"rules.yaml: extends '../rules/vllm': it must be one of {KNOWN}"),
    ],
)
def test_an_engine_that_does_not_fit_is_refused(rule_file: Callable[[str], Path], text: str, problem: str) -> None:
    """Another engine's file, or an unknown base."""
    assert error_of(rule_file(text)) == problem


def test_a_new_engine_needs_rules(rule_file: Callable[[str], Path]) -> None:
    """A file that declares an engine and brings nothing for it is refused."""
    assert error_of(rule_file("engine: acme\nmetrics: {}\n"), "acme") == "no metric rules for engine 'acme'"


@pytest.mark.parametrize("name", ["vllm", "vLLM", "vllmDisaggregated"])
def test_a_file_for_a_built_in_engine_goes_over_its_rules(rule_file: Callable[[str], Path], name: str) -> None:
    """Declaring a built-in engine, by any of its names, takes nothing away."""
    path = rule_file(f"engine: {name}\nmetrics:\n  kthena:num_requests_waiting: null\n")

    names = {rule.name for rule in load_rules("vllm", path).rules}

    assert names == {rule.name for rule in load_rules("vllm").rules} - {"kthena:num_requests_waiting"}


@pytest.mark.parametrize("part", ["kthena:h_bucket", "kthena:h_sum", "kthena:h_count"])
def test_a_metric_named_as_a_series_of_another_is_refused(rule_file: Callable[[str], Path], part: str) -> None:
    """The page would have one series twice, or under two types."""
    rule = "  {}: {{type: {}, help: h, sources: [x]}}\n"
    path = rule_file("metrics:\n" + rule.format(part, "gauge") + rule.format("kthena:h", "histogram"))

    assert error_of(path) == (
        f"rules.yaml: metric {part!r} has the name of a series of the histogram 'kthena:h': rename one"
    )


def test_a_metric_named_as_a_series_of_a_built_in_one_is_refused(rule_file: Callable[[str], Path]) -> None:
    """A file is checked together with the rules that it goes over."""
    path = rule_file(RULE.replace("kthena:x", "kthena:time_to_first_token_seconds_count"))

    assert "series of the histogram 'kthena:time_to_first_token_seconds'" in error_of(path)


@pytest.mark.parametrize(("scale", "shown"), [(".nan", "nan"), (".inf", "inf"), ("0", "0"), ("-1", "-1")])
def test_a_scale_that_makes_no_sense_is_refused(rule_file: Callable[[str], Path], scale: str, shown: str) -> None:
    """A factor must be a finite number above 0."""
    source = f"{{name: x, scale: {scale}}}"
    path = rule_file(f"metrics: {{'a:b': {{type: gauge, help: h, sources: [{source}]}}}}\n")

    assert error_of(path).endswith(f"metric 'a:b' has a source with scale {shown}: it must be above 0 and finite")


def test_an_unknown_engine_is_refused() -> None:
    """The message lists those that are known."""
    with pytest.raises(RuleError, match=f"^no metric rules for engine 'nope'; known: {KNOWN}$"):
        load_rules("nope")
