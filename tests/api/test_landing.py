"""The landing page by itself: the page that is asked, and the reason when it cannot be read."""

from __future__ import annotations

from typing import NoReturn

import falcon.testing
import pytest

from exporter.api.landing import LandingResource
from exporter.engine.collector import EngineCollector
from exporter.page.errors import Reason, ScrapeError
from exporter.standard.rules import load_rules

pytestmark = pytest.mark.unit

VERSIONS = {"engine": "vllm", "version": "0.1.0"}


def refuse(_budget: float) -> NoReturn:
    raise ScrapeError(Reason.REFUSED, "nobody <listens>")


def landing(metrics_url: str) -> str:
    """Return the page of an engine that refuses connections."""
    app = falcon.App()
    collector = EngineCollector(refuse, load_rules("vllm"))
    app.add_route("/", LandingResource(collector, "m", "p.n", VERSIONS, metrics_url=metrics_url))
    return falcon.testing.TestClient(app).simulate_get("/").text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://localhost:8000/metrics", "http://localhost:8000/metrics"),
        ("http://e/<a>&b", "http://e/&lt;a&gt;&amp;b"),
        ("http://e/metrics?token=s3cret", "http://e/metrics?***"),
    ],
)
def test_it_shows_which_page_is_asked(url: str, shown: str) -> None:
    """As text, and without what may be a secret."""
    assert f"<code>{shown}</code>" in landing(url)


def test_it_shows_the_reason_with_its_code() -> None:
    """The code can be looked up in the documents; the words are escaped."""
    assert "<code>refused</code>: nobody &lt;listens&gt;" in landing("http://e/metrics")
