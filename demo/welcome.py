"""The words around the numbers: what runs, where to look, and how it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from demo.history import METRICS, WINDOW_SECONDS
from demo.style import Span
from exporter.telemetry.names import STANDARD

if TYPE_CHECKING:
    from demo.history import History
    from demo.style import Line

__all__ = ["farewell", "legend", "links", "title"]

_ENGINES: Final = {"vllm": "vLLM", "sglang": "SGLang"}
_GRAPH: Final = "kthena:num_requests_running"
_GET_PROMETHEUS: Final = "not on the PATH: `apt-get install prometheus` adds it here"


def title(engine: str, load: float) -> list[Line]:
    """Say what is being started."""
    what = f"before an embedded {_ENGINES[engine]} under {load:g} requests a second"
    return [(), (Span("  Kthena Runtime", "bold"), Span(f"  {what}", "dim")), ()]


def links(url: str, graphs: str | None) -> list[Line]:
    """Say where to look, once all is there."""
    prometheus = (
        [_link("Prometheus", graphs), _label("", Span(f"query {_GRAPH}"))]
        if graphs
        else [_label("Prometheus", Span(_GET_PROMETHEUS))]
    )
    return [
        _link("Landing page", f"{url}/"),
        _link("Metrics", f"{url}/metrics"),
        _link("Readiness", f"{url}/ready"),
        *prometheus,
        _label("Try", Span(f"curl -g '{url}/metrics?name[]={STANDARD[1]}'")),
        (),
    ]


def legend() -> list[Line]:
    """Say what stands for which metric in plain lines."""
    lines = [_label(metric.short, Span(metric.name)) for metric in METRICS]
    latencies = "/".join(metric.short for metric in METRICS if metric.kind == "latency")
    return [*lines, (), (Span(f"  {latencies}: mean/p50/p95 of the last {WINDOW_SECONDS:.0f} s"),), ()]


def farewell(history: History) -> list[Line]:
    """Say how it was."""
    seen = (
        f"{history.tokens:,.0f} tokens and {history.requests:,.0f} finished requests in {history.scrapes:,} scrapes. "
    )
    return [(), (Span(f"  {seen if history.scrapes else ''}All programs have ended."),), ()]


def _link(label: str, url: str) -> Line:
    return _label(label, Span(url, "link"))


def _label(label: str, span: Span) -> Line:
    return Span(f"  {label:14}", "dim"), span
