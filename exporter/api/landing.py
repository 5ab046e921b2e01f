"""GET /: the landing page for people, with the engine's state and links to all other pages."""

from __future__ import annotations

from html import escape
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from exporter.telemetry.names import STANDARD
from exporter.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from falcon import Request, Response

    from exporter.engine.collector import EngineCollector
    from exporter.engine.result import Scrape

__all__ = ["LandingResource"]

# Seconds for the engine: people wait longer than a probe, and less than a scraper.
BUDGET: Final = 2.0


class LandingResource:
    """The landing page. It scrapes the engine at each request, and loads nothing from other hosts."""

    public: Final = True

    def __init__(
        self, collector: EngineCollector, model: str, pod: str, versions: Mapping[str, str], *, metrics_url: str = ""
    ) -> None:
        """Prepare the parts of the page that do not change; all texts are escaped.

        Args:
            collector: Scrapes the engine.
            model: The model's name.
            pod: The pod's name.
            versions: The versions as in /version.
            metrics_url: The URL that the collector fetches; shown without credentials.
        """
        self._collector = collector
        self._fixed = {
            "model": escape(model),
            "pod": escape(pod),
            "engine": escape(versions["engine"]),
            "version": escape(versions["version"]),
            "metrics_url": escape(shown(metrics_url)),
            "selected": escape("/metrics?" + urlencode([("name[]", name) for name in STANDARD])),
        }

    def on_get(self, req: Request, resp: Response) -> None:
        scrape = self._collector.scrape(BUDGET, glance=True)
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
    error = scrape.error
    detail = f'<p class="detail"><code>{error.reason}</code>: {escape(error.detail)}</p>' if error else ""
    return {
        "state": _mark("up", "good") if scrape.up else _mark("down", "bad"),
        "facts": "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in facts.items()),
        "detail": detail,
        "metrics": "".join(_metric_rows(scrape)),
    }


def _metric_rows(scrape: Scrape) -> Iterator[str]:
    # When the engine cannot be read, its metrics are unknown, which is not the same as absent.
    absent = _mark("not on the page", "bad") if scrape.up else _mark("–", "unknown")  # noqa: RUF001 - a dash
    marks = dict.fromkeys(scrape.standard.missing, absent)
    marks |= dict.fromkeys(scrape.standard.present, _mark("present", "good"))
    for name, mark in sorted(marks.items(), key=lambda each: _standard_first(each[0])):
        yield f"<tr><td><code>{escape(name)}</code></td><td>{mark}</td></tr>"


def _standard_first(name: str) -> tuple[int, str]:
    return (STANDARD.index(name), "") if name in STANDARD else (len(STANDARD), name)


def _mark(text: str, style: str) -> str:
    return f'<span class="{style}">{text}</span>'
