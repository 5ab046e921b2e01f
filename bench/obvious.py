"""The collector as one writes it first: parse the page, rename, render it again.

That is what the runtimes for LLM engines that there are do, with
prometheus_client's parser and writer.

    python -m bench.obvious PORT URL
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import falcon
import requests
import waitress
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from bench.passthrough import THREADS, Health
from bench.process import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from falcon import Request, Response

__all__ = ["STANDARD", "main"]

# As the parser names families: a counter's without `_total`.
STANDARD: Final = {
    "vllm:generation_tokens": "kthena:generation_tokens",
    "vllm:num_requests_waiting": "kthena:num_requests_waiting",
    "vllm:time_to_first_token_seconds": "kthena:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds": "kthena:time_per_output_token_seconds",
    "vllm:e2e_request_latency_seconds": "kthena:e2e_request_latency_seconds",
}


class Renamer(Collector):
    """Yields all families, and the standard ones under their new names too."""

    def __init__(self, url: str) -> None:
        self._url = url

    def collect(self) -> Iterator[Metric]:
        """Fetch and parse the page."""
        page = requests.get(self._url, timeout=60)
        for family in text_string_to_metric_families(page.text):
            yield family
            if family.name in STANDARD:
                yield _renamed(family, STANDARD[family.name])


def _renamed(family: Metric, name: str) -> Metric:
    twin = Metric(name, family.documentation, family.type)
    for sample in family.samples:
        twin.add_sample(name + sample.name.removeprefix(family.name), sample.labels, sample.value, sample.timestamp)
    return twin


class Metrics:
    """Answers with what the collector collects."""

    def __init__(self, url: str) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(Renamer(url))

    def on_get(self, req: Request, resp: Response) -> None:
        """Collect and render."""
        resp.content_type = CONTENT_TYPE_LATEST
        resp.data = generate_latest(self._registry)


def main(arguments: Sequence[str]) -> None:
    """Serve the metrics made of the page at a URL until the process is ended."""
    port, url = arguments
    app = falcon.App()
    app.add_route("/metrics", Metrics(url))
    app.add_route("/health", Health())
    waitress.serve(app, host=HOST, port=int(port), threads=THREADS)


if __name__ == "__main__":
    main(sys.argv[1:])
