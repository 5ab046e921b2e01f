"""The metrics of SGLang 0.5.23, as its multiprocess mode exposes them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from simulators.engine.families import Families
from simulators.engine.sglang.families import ENGINE, UNUSED
from simulators.engine.traffic import BLOCK_TOKENS, MAX_MODEL_LEN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

    from simulators.engine.http import Exchange
    from simulators.engine.scheduler import Scheduler, Step
    from simulators.engine.traffic import Request

_CONSTANT_LABELS = {
    "engine_type": "unified",
    "tp_rank": "0",
    "pp_rank": "0",
    "moe_ep_rank": "0",
    "pid": str(os.getpid()),
}
_DECODE_LOG_INTERVAL = 40


class MultiprocessView(Collector):
    """Shows a registry as prometheus_client's multiprocess mode would.

    There is no ``_created`` series, no family without samples, and a histogram's sums come
    before its buckets::

        # TYPE sglang:time_to_first_token_seconds histogram
        sglang:time_to_first_token_seconds_sum{engine_type="unified",…} 0.052
        sglang:time_to_first_token_seconds_bucket{engine_type="unified",…,le="0.1"} 1.0
        sglang:time_to_first_token_seconds_count{engine_type="unified",…} 1.0
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Show `registry`."""
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        """Yield the families that have samples."""
        for metric in self._registry.collect():
            kept = [each for each in metric.samples if not each.name.endswith("_created")]
            metric.samples = sorted(kept, key=lambda sample: not sample.name.endswith("_sum"))
            if metric.samples:
                yield metric


class SglangMetrics:
    """Observes the scheduler the way SGLang's scheduler and tokenizer collectors do."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, model: str) -> None:
        """Declare all families; hardly any has a series yet."""
        registry = CollectorRegistry()
        self._families = Families(registry, ENGINE, _CONSTANT_LABELS | {"model_name": model}, eager=False)
        self._page = CollectorRegistry()
        self._page.register(MultiprocessView(registry))
        self._steps = 0
        self._decoded = 0
        self._interval_start = 0.0
        self._prefill = [0, 0]

    def page(self) -> bytes:
        """Return the exposition."""
        return generate_latest(self._page)

    def on_start(self, scheduler: Scheduler) -> None:
        """Publish the sizes that are known once the model is loaded."""
        families = self._families
        families.set("sglang:max_total_num_tokens", scheduler.total_blocks * BLOCK_TOKENS)
        families.set("sglang:page_size", BLOCK_TOKENS)
        families.set("sglang:num_pages", scheduler.total_blocks)
        families.set("sglang:context_len", MAX_MODEL_LEN)

    def on_scheduled(self, request: Request) -> None:
        """Observe the wait, and look the prompt up in the radix cache."""
        families, computed = self._families, request.prompt - request.cached
        waited = request.scheduled - request.arrived
        families.observe("sglang:queue_time_seconds", waited)
        families.observe("sglang:per_stage_req_latency_seconds", waited, "request_process")
        families.add("sglang:prefill_effective_tokens", computed, "input")
        families.add("sglang:prefill_effective_tokens", request.cached, "device_hit")
        families.add("sglang:realtime_tokens", request.cached, "prefill_cache")
        self._prefill[0] += request.cached
        self._prefill[1] += request.prompt

    def on_first_token(self, request: Request) -> None:
        """Observe time to first token."""
        families = self._families
        waited = request.first_token - request.arrived
        prefill = request.first_token - request.scheduled
        families.observe("sglang:time_to_first_token_seconds", waited, _streaming(request))
        families.observe("sglang:per_stage_req_latency_seconds", prefill, "prefill_forward")

    def on_token(self, _request: Request, seconds: float) -> None:
        """Observe inter-token latency; tokens are counted when their request ends."""
        self._families.observe("sglang:inter_token_latency_seconds", seconds)

    def on_preempted(self, _request: Request) -> None:
        """Count a retraction."""
        self._families.add("sglang:num_retracted_requests")

    def on_finished(self, request: Request) -> None:
        """Count the request and its tokens."""
        families = self._families
        if request.reason == "abort":
            families.add("sglang:num_aborted_requests")
            return
        streaming = _streaming(request)
        families.add("sglang:prompt_tokens", request.prompt, streaming)
        families.add("sglang:generation_tokens", request.generated, streaming)
        families.add("sglang:num_requests", 1, streaming)
        if request.cached:
            families.add("sglang:cached_tokens", request.cached, "device")
        computed = request.prompt - request.cached
        families.observe("sglang:prompt_tokens_histogram", request.prompt)
        families.observe("sglang:uncached_prompt_tokens_histogram", computed)
        families.observe("sglang:generation_tokens_histogram", request.generated)
        e2e = request.last_token - request.arrived
        families.observe("sglang:e2e_request_latency_seconds", e2e, streaming)
        if request.generated > 1:
            tpot = (request.last_token - request.first_token) / (request.generated - 1)
            families.observe("sglang:request_time_per_output_token_seconds", tpot, streaming)

    def on_step(self, step: Step, scheduler: Scheduler) -> None:
        """Publish the state with each prefill, every 40th step, and once when all is done."""
        self._steps += 1
        self._decoded += step.decoded
        self._families.add("sglang:realtime_tokens", step.prefilled, "prefill_compute")
        self._families.add("sglang:realtime_tokens", step.decoded, "decode")
        idle = not (scheduler.running or scheduler.waiting)
        if self._steps % _DECODE_LOG_INTERVAL == 0 or idle:
            self._publish_throughput(step.now, idle=idle)
        if step.prefilled or self._steps % _DECODE_LOG_INTERVAL == 0 or idle:
            self._publish_state(scheduler)

    def on_http(self, exchange: Exchange) -> None:
        """Ignore HTTP: SGLang's own HTTP families need a flag of their own."""

    def _publish_throughput(self, now: float, *, idle: bool) -> None:
        seconds = now - self._interval_start
        rate = 0.0 if idle else self._decoded / seconds
        self._families.set("sglang:gen_throughput", rate)
        self._decoded, self._interval_start = 0, now
        cached, prompt = self._prefill
        if prompt:
            self._families.set("sglang:cache_hit_rate", cached / prompt)
            self._prefill = [0, 0]

    def _publish_state(self, scheduler: Scheduler) -> None:
        adapters = len(scheduler.active_adapters)
        used, total = scheduler.used_blocks, scheduler.total_blocks
        decoding = [request for request in scheduler.running if not request.to_prefill]
        usage = min(1.0, used / total)
        state: dict[str, float] = {
            "num_running_reqs": len(scheduler.running),
            "num_queue_reqs": len(scheduler.waiting),
            "decode_sum_seq_lens": sum(each.prompt + each.generated for each in decoding),
            "token_usage": usage,
            "full_token_usage": usage,
            "num_used_tokens": used * BLOCK_TOKENS,
            "kv_used_tokens": used * BLOCK_TOKENS,
            "kv_available_tokens": max(0, total - used) * BLOCK_TOKENS,
            "lora_pool_slots_used": adapters,
            "lora_pool_slots_total": scheduler.max_adapters,
            "lora_pool_utilization": adapters / scheduler.max_adapters,
            "num_retracted_reqs": sum(1 for each in scheduler.waiting if each.preemptions),
            "num_paused_reqs": 0,
        }
        for name, value in state.items():
            self._families.set(f"sglang:{name}", value)
        for family in UNUSED:
            self._families.set(family.name, 0)


def _streaming(request: Request) -> str:
    return "true" if request.streaming else "false"
