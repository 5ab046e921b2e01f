"""Every engine version gives its standard families, with exactly its own numbers."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from exporter.page.parse import parse_page
from exporter.standard.rules import builtin_engines, load_rules
from exporter.standard.twins import standardize
from simulators.files import CAPTURES
from simulators.versions import EXTENDED, ORDERED, PAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client.samples import Sample

    from exporter.page.family import TextFamily
    from simulators.versions import VersionPage

pytestmark = pytest.mark.unit

TYPES = {
    "kthena:generation_tokens_total": "counter",
    "kthena:num_requests_waiting": "gauge",
    "kthena:time_to_first_token_seconds": "histogram",
    "kthena:time_per_output_token_seconds": "histogram",
    "kthena:e2e_request_latency_seconds": "histogram",
    "kthena:num_requests_running": "gauge",
    "kthena:prompt_tokens_total": "counter",
    "kthena:kv_cache_usage_ratio": "gauge",
    "kthena:prefix_cache_queries_total": "counter",
    "kthena:prefix_cache_hits_total": "counter",
    "kthena:request_success_total": "counter",
}
# (part of a histogram, labels) -> value
Samples = dict[tuple[str, frozenset[tuple[str, str | float]]], float]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.engine} {page.version}")


rules_of = cache(load_rules)


@cache
def read(text: bytes) -> tuple[Sample, ...]:
    """Return the samples of a page; the parser renames nothing where it knows no types."""
    untyped = re.sub(rb"(?m)^# TYPE .*\n", b"", text).decode()
    return tuple(sample for family in text_string_to_metric_families(untyped) for sample in family.samples)


@cache
def twins_of(text: bytes, engine: str) -> dict[str, TextFamily]:
    families = standardize(parse_page(text), rules_of(engine)).families
    twins = {family.full_name: family for family in families}
    assert len(twins) == len(families)
    return twins


def samples_of(text: bytes, name: str, kind: str, *, scale: float = 1) -> Samples:
    """Read one family's samples."""
    parts = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
    found: Samples = {}
    for sample in read(text):
        part = sample.name.removeprefix(name)
        if not sample.name.startswith(name) or part not in parts:
            continue
        labels: dict[str, str | float] = dict(sample.labels)
        if part == "_bucket":
            labels["le"] = round(float(sample.labels["le"]) * scale, 9)
        key = (part, frozenset(labels.items()))
        assert key not in found
        found[key] = sample.value * scale if part in ("", "_sum") else sample.value
    return found


def without(samples: Samples, dropped: tuple[Mapping[str, str], ...]) -> Samples:
    """Take away the samples that carry one of the sets of labels."""
    return {
        key: value for key, value in samples.items() if not any(set(labels.items()) <= key[1] for labels in dropped)
    }


@each_page
def test_exactly_the_expected_families_are_there(page: VersionPage) -> None:
    """A version has a standard family for each source that it exposes, and no other."""
    expected = {name for name, source in page.expected.items() if source}

    twins = twins_of(page.text, page.engine)

    assert set(page.expected) == set(TYPES)
    assert expected == set(twins)


@each_page
def test_values_and_labels_are_the_sources(page: VersionPage) -> None:
    """A standard family has the samples of its source, less copies and breakdowns."""
    twins = twins_of(page.text, page.engine)

    for name, twin in twins.items():
        source = page.expected[name]
        assert source
        scale = page.scale.get(name, 1)
        dropped = page.dropped.get(name, ())
        expected = without(samples_of(page.text, source, TYPES[name], scale=scale), dropped)
        assert expected
        assert pytest.approx(expected) == samples_of(twin.text, name, TYPES[name])


@each_page
def test_each_family_has_one_type_line_and_one_help_line(page: VersionPage) -> None:
    """Go's parsers refuse a page with a second TYPE or HELP line for a name."""
    for name, twin in twins_of(page.text, page.engine).items():
        comments = [line for line in twin.text.decode().splitlines() if line.startswith("#")]

        assert [line for line in comments if line.startswith("# TYPE")] == [f"# TYPE {name} {TYPES[name]}"]
        assert len(comments) == 2
        assert comments[0].startswith(f"# HELP {name} ")


@each_page
def test_the_twins_and_the_page_make_a_valid_page(page: VersionPage) -> None:
    """The raw families and their twins can stand on one page."""
    twins = twins_of(page.text, page.engine)
    added = b"".join(twin.text for twin in twins.values())

    whole = parse_page(page.text + added)

    assert whole.raw == page.text + added


@each_page
def test_samples_are_those_of_the_text(page: VersionPage) -> None:
    """A registry that reads a family's samples gets what its text says."""
    for name, twin in twins_of(page.text, page.engine).items():
        read = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in twin.samples}
        untyped = re.sub(rb"(?m)^# TYPE .*\n", b"", twin.text).decode()
        parsed = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(untyped)
            for sample in family.samples
        }

        assert parsed == read
        assert all(sample.name.startswith(name) for sample in twin.samples)


def test_every_engine_has_its_pages() -> None:
    """No rule file is left without a version that it is tested with."""
    assert set(builtin_engines()) == {page.engine for page in PAGES}


def test_every_source_is_used_by_some_page() -> None:
    """A source that no version has is a guess, or a page is missing."""
    unused = []
    for engine in builtin_engines():
        used = {source for page in PAGES if page.engine == engine for source in page.expected.values()}
        names = {source.name for rule in rules_of(engine).rules for source in rule.sources}
        unused += sorted(names - used)

    # These always stand beside a better one on the same page; vLLM has hidden and removed such before.
    assert unused == [
        "lmdeploy:iter_token_latency",
        "ray_vllm:request_time_per_output_token_seconds",
        "sglang:request_time_per_output_token_seconds",
        "vllm:request_time_per_output_token_seconds",
    ]


@pytest.mark.parametrize("engine", builtin_engines())
def test_engines_agree_on_what_a_standard_metric_is(engine: str) -> None:
    """Type and help of a standard metric are the same for every engine, in the same order."""
    rules = rules_of(engine).rules
    vllm = {rule.name: rule for rule in rules_of("vllm").rules}

    order = [name for name in ORDERED + EXTENDED if name in {rule.name for rule in rules}]

    assert order == [rule.name for rule in rules]
    for rule in rules:
        assert (vllm[rule.name].kind, vllm[rule.name].help) == (rule.kind, rule.help)


@pytest.mark.parametrize("engine", builtin_engines())
def test_rule_files_begin_with_what_they_cover(engine: str) -> None:
    """The first lines of a rule file say which engine and where its page is."""
    text = resources.files("exporter.standard").joinpath("engines", f"{engine}.yaml").read_text()

    assert re.match(r"# .*\n(#.*\n)*metrics:\n", text)
    assert set(yaml.safe_load(text)) == {"metrics"}


def value(twin: TextFamily, suffix: str = "", **labels: str) -> float:
    """Return the one sample of a family with this suffix and these labels."""
    name = twin.full_name + suffix
    (found,) = [
        sample.value for sample in twin.samples if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return found


def test_idle_capture() -> None:
    """A vLLM 0.32 that has had no request has all five ordered families, at zero."""
    twins = twins_of((CAPTURES / "vllm-0.32-idle.prom").read_bytes(), "vllm")

    assert set(twins) == set(TYPES)
    assert value(twins["kthena:generation_tokens_total"]) == 0
    assert value(twins["kthena:num_requests_waiting"]) == 0
    for name in ORDERED[2:]:
        assert value(twins[name], "_count") == 0
        assert value(twins[name], "_sum") == 0


def test_traffic_capture() -> None:
    """A vLLM 0.32 after some traffic gives the numbers that stand on its page."""
    twins = twins_of((CAPTURES / "vllm-0.32-traffic.prom").read_bytes(), "vllm")

    assert value(twins["kthena:generation_tokens_total"], model_name="tiny-llama", engine="0") == 1110
    assert value(twins["kthena:num_requests_waiting"]) == 0
    ttft = twins["kthena:time_to_first_token_seconds"]
    assert value(ttft, "_bucket", le="0.1") == 19
    assert value(ttft, "_count") == 39
    assert value(ttft, "_sum") == 5.451819896697998
    tpot = twins["kthena:time_per_output_token_seconds"]
    assert value(tpot, "_bucket", le="0.025") == 1069
    assert value(tpot, "_count") == 1071
    assert value(tpot, "_sum") == 7.800998890998812
    e2e = twins["kthena:e2e_request_latency_seconds"]
    assert value(e2e, "_bucket", le="1.0") == 30
    assert value(e2e, "_count") == 35
    assert value(e2e, "_sum") == 12.542625427246094


def test_traffic_capture_extended() -> None:
    """The rest of the standard families of the same page."""
    twins = twins_of((CAPTURES / "vllm-0.32-traffic.prom").read_bytes(), "vllm")

    assert value(twins["kthena:num_requests_running"]) == 0
    assert value(twins["kthena:prompt_tokens_total"]) == 12979
    assert value(twins["kthena:kv_cache_usage_ratio"]) == 0
    assert value(twins["kthena:prefix_cache_queries_total"]) == 12979
    assert value(twins["kthena:prefix_cache_hits_total"]) == 8064
    assert value(twins["kthena:request_success_total"], finished_reason="stop") == 4
    assert value(twins["kthena:request_success_total"], finished_reason="length") == 31


def test_lora_capture() -> None:
    """LoRA traffic counts in the same families, under the base model's name."""
    twins = twins_of((CAPTURES / "vllm-0.32-lora.prom").read_bytes(), "vllm")

    assert value(twins["kthena:generation_tokens_total"], model_name="tiny-llama") == 2590
    assert value(twins["kthena:num_requests_waiting"]) == 0
    assert value(twins["kthena:time_to_first_token_seconds"], "_count") == 88
    assert value(twins["kthena:time_to_first_token_seconds"], "_bucket", le="2.5") == 72
    assert value(twins["kthena:time_per_output_token_seconds"], "_count") == 2502
    assert value(twins["kthena:time_per_output_token_seconds"], "_sum") == 82.61193729399895
    assert value(twins["kthena:e2e_request_latency_seconds"], "_count") == 80
    assert value(twins["kthena:e2e_request_latency_seconds"], "_bucket", le="5.0") == 67
