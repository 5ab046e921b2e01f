"""The metrics of vLLM 0.32: one process, so every series exists from the start."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from simulators.engine.families import Families
from simulators.engine.http import Exchange
from simulators.engine.traffic import BLOCK_TOKENS, MAX_MODEL_LEN
from simulators.engine.vllm.families import CACHE_CONFIG, CACHE_SIZES, ENGINE, HTTP

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.engine.scheduler import Scheduler, Step
    from simulators.engine.traffic import Request


class VllmMetrics:
    """Observes the scheduler the way vLLM's own loggers do."""

    content_type = "text/plain; version=1.0.0; charset=utf-8"

    def __init__(self, model: str, *, clock: Callable[[], float] = time.time) -> None:
        """Create all series of an idle engine that serves `model`."""
        self._clock = clock
        self._registry = CollectorRegistry()
        GCCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        ProcessCollector(registry=self._registry)
        constants = {"model_name": model, "engine": "0"}
        self._families = Families(self._registry, (*ENGINE, *HTTP), constants | CACHE_CONFIG, eager=True)
        self._families.set("vllm:engine_sleep_state", 1, "awake")
        self._seen_adapter = False

    def page(self) -> bytes:
        """Return the exposition."""
        return generate_latest(self._registry)

    def on_start(self, scheduler: Scheduler) -> None:
        """Publish the size of the KV cache."""
        tokens = scheduler.total_blocks * BLOCK_TOKENS
        sizes = {
            "kv_cache_max_concurrency": str(tokens / MAX_MODEL_LEN),
            "kv_cache_size_tokens": str(tokens),
            "num_gpu_blocks": str(scheduler.total_blocks),
        }
        self._families.set("vllm:cache_config_info", 1, *(sizes[name] for name in CACHE_SIZES))

    def on_scheduled(self, request: Request) -> None:
        """Count prefix-cache lookups, in tokens."""
        add = self._families.add
        add("vllm:prefix_cache_queries", request.prompt)
        add("vllm:prefix_cache_hits", request.cached)
        add("vllm:prompt_tokens_cached_by_source", request.cached, "device")

    def on_first_token(self, request: Request) -> None:
        """Count the prompt, and the token that its prefill gave."""
        add = self._families.add
        add("vllm:prompt_tokens", request.prompt)
        add("vllm:prompt_tokens_cached", request.cached)
        add("vllm:prompt_tokens_by_source", request.prompt - request.cached, "local_compute")
        add("vllm:prompt_tokens_by_source", request.cached, "local_cache_hit")
        add("vllm:generation_tokens")
        waited = request.first_token - request.arrived
        self._families.observe("vllm:time_to_first_token_seconds", waited)

    def on_token(self, _request: Request, seconds: float) -> None:
        """Count a token as it comes, not when its request ends."""
        self._families.add("vllm:generation_tokens")
        self._families.observe("vllm:inter_token_latency_seconds", seconds)

    def on_preempted(self, _request: Request) -> None:
        """Count a preemption."""
        self._families.add("vllm:num_preemptions")

    def on_finished(self, request: Request) -> None:
        """Observe everything that is known of a request only at its end."""
        self._families.add("vllm:request_success", 1, request.reason)
        for name, value in _per_request(request).items():
            self._families.observe(f"vllm:{name}", value)
        self.on_http(_exchange(request))

    def on_step(self, step: Step, scheduler: Scheduler) -> None:
        """Publish the state of queue, batch and cache."""
        families = self._families
        if step.prefilled or step.decoded:
            families.observe("vllm:iteration_tokens_total", step.prefilled + step.decoded)
        waiting, deferred = len(scheduler.waiting), scheduler.deferred
        families.set("vllm:num_requests_running", len(scheduler.running))
        families.set("vllm:num_requests_waiting", waiting)
        families.set("vllm:num_requests_waiting_by_reason", waiting - deferred, "capacity")
        families.set("vllm:num_requests_waiting_by_reason", deferred, "deferred")
        usage = min(1.0, scheduler.used_blocks / scheduler.total_blocks)
        families.set("vllm:kv_cache_usage_perc", usage)
        self._publish_adapters(scheduler)

    def on_http(self, exchange: Exchange) -> None:
        """Record one answered HTTP request."""
        method, handler, status, seconds, received, sent = exchange
        families = self._families
        families.add("http_requests", 1, method, f"{status // 100}xx", handler)
        families.observe("http_request_size_bytes", received, handler)
        families.observe("http_response_size_bytes", sent, handler)
        families.observe("http_request_duration_highr_seconds", seconds)
        families.observe("http_request_duration_seconds", seconds, method, handler)

    def _publish_adapters(self, scheduler: Scheduler) -> None:
        names = ",".join(sorted(scheduler.active_adapters))
        self._seen_adapter = self._seen_adapter or bool(names)
        if not self._seen_adapter:
            return
        # 0.32 gives both adapter labels the same value, and the time as the sample's.
        self._families.set("vllm:lora_requests_info", self._clock(), str(scheduler.max_adapters), names, names)


def _exchange(request: Request) -> Exchange:
    seconds = request.last_token - request.arrived
    received = request.prompt * 5
    if request.streaming:
        return Exchange("POST", "/v1/chat/completions", 200, seconds, received, request.generated * 180)
    return Exchange("POST", "/v1/completions", 200, seconds, received, request.generated * 5 + 420)


def _per_request(request: Request) -> dict[str, float]:
    decode = request.last_token - request.first_token
    return {
        "request_prompt_tokens": request.prompt,
        "request_generation_tokens": request.generated,
        "request_max_num_generation_tokens": request.generated,
        "request_params_n": 1,
        "request_params_max_tokens": request.max_tokens,
        "request_time_per_output_token_seconds": decode / max(1, request.generated - 1),
        "e2e_request_latency_seconds": request.last_token - request.arrived,
        "request_queue_time_seconds": request.scheduled - request.arrived,
        "request_inference_time_seconds": request.last_token - request.scheduled,
        "request_prefill_time_seconds": request.first_token - request.scheduled,
        "request_decode_time_seconds": decode,
        "request_num_preemptions": request.preemptions,
        "request_prefill_kv_computed_tokens": request.prompt - request.cached,
    }
