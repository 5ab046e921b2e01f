"""GET /: a page for people: what is up, and where to look."""

from __future__ import annotations

from html import escape
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from exporter.metrics.names import STANDARD

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from falcon import Request, Response

    from exporter.metrics.collector import EngineCollector, Scrape

__all__ = ["LandingResource"]

# A person waits, but not for long.
BUDGET: Final = 2.0


class LandingResource:
    """The landing page."""

    def __init__(self, collector: EngineCollector, model: str, pod: str, versions: Mapping[str, str]) -> None:
        """Show what `collector` finds, for this model and pod."""
        self._collector = collector
        self._fixed = {
            "model": escape(model),
            "pod": escape(pod),
            "engine": escape(versions["engine"]),
            "version": escape(versions["version"]),
            "selected": escape("/metrics?" + urlencode([("name[]", name) for name in STANDARD])),
        }

    def on_get(self, req: Request, resp: Response) -> None:  # noqa: ARG002 - Falcon's signature
        """Answer with the page."""
        scrape = self._collector.scrape(BUDGET)
        resp.content_type = "text/html; charset=utf-8"
        resp.set_header("Cache-Control", "no-store")
        resp.set_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        resp.text = _template().substitute(self._fixed, **_seen(scrape))

    on_head = on_get


def _template() -> Template:
    return Template(resources.files(__package__).joinpath("landing.html").read_text(encoding="utf-8"))


def _seen(scrape: Scrape) -> dict[str, str]:
    facts = {
        "samples": f"{scrape.page.samples:,}",
        "page": f"{scrape.size / 1024:,.1f} KiB",
        "last scrape": f"{scrape.duration * 1000:,.1f} ms",
    }
    detail = f'<p class="detail">{escape(scrape.error.detail)}</p>' if scrape.error else ""
    return {
        "state": _mark("up", "down", good=scrape.up),
        "facts": "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in facts.items()),
        "detail": detail,
        "metrics": "".join(_metric_rows(scrape)),
    }


def _metric_rows(scrape: Scrape) -> Iterator[str]:
    present = {family.full_name for family in scrape.standard.families} | set(scrape.standard.taken)
    for name in sorted(present | set(scrape.standard.missing), key=_standard_first):
        mark = _mark("present", "no source", good=name in present)
        yield f"<tr><td><code>{escape(name)}</code></td><td>{mark}</td></tr>"


def _standard_first(name: str) -> tuple[int, str]:
    return (STANDARD.index(name), "") if name in STANDARD else (len(STANDARD), name)


def _mark(good_text: str, bad_text: str, *, good: bool) -> str:
    return f'<span class="good">{good_text}</span>' if good else f'<span class="bad">{bad_text}</span>'
