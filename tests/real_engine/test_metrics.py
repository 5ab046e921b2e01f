"""The runtime before a real vLLM, and both before a real Prometheus."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.page.reserved import OWN_PREFIX
from exporter.telemetry.names import EXTENDED, STANDARD
from simulators.prometheus import Prometheus
from simulators.waiting import wait_until
from tests.real_engine.server import MODEL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.harness.runtime import Runtime
    from tests.real_engine.server import RealEngine

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

Series = frozenset[tuple[str, str]]

# What the engine moves by itself, and by being scraped.
_RESTLESS: Final = ("process_", "python_", "http_")
_REQUESTS: Final = 12
_TOKENS: Final = 16


def samples(page: str) -> dict[str, float]:
    """Return the values of a page by name, summed over labels."""
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if "le" not in sample.labels:
                totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    return totals


def send_requests(vllm: RealEngine) -> None:
    """Send requests, some at a time, each of a given length."""
    prompts = [f"the word of number {number} is not one of them" for number in range(_REQUESTS)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda prompt: vllm.complete(prompt, max_tokens=_TOKENS), prompts))


def test_the_standard_metrics_count_what_was_sent(vllm: RealEngine, start_runtime: Callable[..., Runtime]) -> None:
    """All eleven are there, and move by exactly the requests and tokens that went through the engine."""
    runtime = start_runtime(vllm.url)
    before = samples(runtime.page())

    send_requests(vllm)
    after = samples(runtime.page())

    moved = {name: after[name] - before[name] for name in after if name in before}
    assert moved["kthena:generation_tokens_total"] == _REQUESTS * _TOKENS
    assert moved["kthena:time_to_first_token_seconds_count"] == _REQUESTS
    assert moved["kthena:time_per_output_token_seconds_count"] == _REQUESTS * (_TOKENS - 1)
    assert moved["kthena:e2e_request_latency_seconds_count"] == _REQUESTS
    assert moved["kthena:request_success_total"] == _REQUESTS
    assert after["kthena:num_requests_waiting"] == 0
    for name in (*STANDARD, *EXTENDED):
        assert f'kthena_runtime_standard_metric_present{{metric="{name}"}} 1.0\n' in runtime.page()


def test_every_raw_series_is_the_same_in_prometheus(
    vllm: RealEngine, start_runtime: Callable[..., Runtime], tmp_path: Path
) -> None:
    """Scraped directly and through the runtime, a quiet engine has the same series with the same values."""
    runtime = start_runtime(vllm.url)
    send_requests(vllm)
    jobs = {"direct": [vllm.url], "runtime": [runtime.url]}

    with Prometheus(tmp_path, jobs) as prometheus:

        def scraped(job: str) -> dict[Series, str]:
            expression = f'{{job="{job}",__name__!~"(up|scrape_.*|kthena.*|{"|".join(f"{p}.*" for p in _RESTLESS)})"}}'
            return {_series(one["metric"]): one["value"][1] for one in prometheus.query(expression)}

        def settled() -> bool:
            return (
                len(prometheus.query("up == 1")) == len(jobs)
                and bool(scraped("direct"))
                and scraped("direct") == scraped("runtime")
            )

        wait_until(settled, "both jobs have the same series", seconds=30)
        assert len(scraped("runtime")) > 300
        names = {
            dict(series)["__name__"]
            for series in map(_series, (one["metric"] for one in prometheus.query('{job="runtime"}')))
        }
        assert any(name.startswith(OWN_PREFIX) for name in names)
        for name in STANDARD:
            assert {name, f"{name}_count"} & names, name


def _series(labels: dict[str, Any]) -> Series:
    return frozenset((name, value) for name, value in labels.items() if name not in ("job", "instance"))


def test_the_model_is_the_one_that_was_asked_for(vllm: RealEngine, start_runtime: Callable[..., Runtime]) -> None:
    """Standard metrics carry the engine's own labels."""
    runtime = start_runtime(vllm.url)

    assert f'kthena:num_requests_waiting{{engine="0",model_name="{MODEL}"}} 0.0\n' in runtime.page()
