"""Every route but /metrics: what it answers, what errors look like, and how requests are counted."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import replace
from html.parser import HTMLParser
from http import HTTPStatus
from importlib.metadata import version
from time import sleep
from typing import TYPE_CHECKING, Final

import pytest

from exporter.api.app import ROUTES as ALL_ROUTES
from exporter.telemetry.names import EXTENDED, STANDARD
from simulators.engine.__main__ import Engine
from simulators.misbehaving.engine import BEHAVIOURS, BadEngine
from simulators.misbehaving.pages import PAGE, response
from simulators.reading import samples
from tests.harness.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from simulators.misbehaving.exchange import Exchange

# The routes that can be read by anyone, at any time.
ROUTES: Final = ("/", "/metrics", "/health", "/ready", "/version")
PROBLEM: Final = "application/problem+json"
REQUESTS: Final = "kthena_runtime_http_requests_total"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as running:
        running.run_requests(5)
        yield running


@pytest.fixture(scope="module")
def runtime(engine: Engine) -> Iterator[Runtime]:
    with Runtime(engine.url) as running:
        yield running


class Landing(HTMLParser):
    """The links, the tags and the words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name == "href" and value]

    def handle_data(self, data: str) -> None:
        self.words += f"{data}\n"


def counted(runtime: Runtime) -> dict[tuple[str, str, str], float]:
    """Return the requests counted by route, method and status."""
    pattern = re.compile(REQUESTS + r'\{route="(.*)",method="(.*)",status="(.*)"\}')
    page = samples(runtime.page(params={"name[]": REQUESTS}))
    found = {}
    for series, value in page.items():
        labels = pattern.fullmatch(series)
        assert labels is not None
        found[labels[1], labels[2], labels[3]] = value
    return found


def test_health_is_about_this_process() -> None:
    """It is healthy though there is no engine, in the words that the probes' authors agreed on."""
    with BadEngine("refused") as away, Runtime(away.url) as runtime:
        answer = runtime.get("/health")

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {"status": "healthy", "service": "runtime"}


def test_ready_when_the_engine_can_be_read(runtime: Runtime, engine: Engine) -> None:
    """It is ready, and says how much the engine has to tell."""
    answer = runtime.get("/ready")
    count = len(samples(engine.page().decode()))

    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    assert answer.json()["checks"]["engine"] == {"status": "ok", "samples": count, "standard_metrics": "11 of 11"}


def test_ready_tells_of_a_wrong_engine(start_runtime: Callable[..., Runtime], engine: Engine) -> None:
    """It is ready, because the page can be read, and shows that hardly anything is found on it."""
    runtime = start_runtime(engine.url, engine="sglang")
    answer = runtime.get("/ready")
    runtime.get("/ready")

    assert answer.status_code == 200
    assert answer.json()["checks"]["engine"]["standard_metrics"] == "0 of 10"
    assert runtime.log.count("is --engine sglang right?") == 1


@pytest.mark.parametrize(
    ("behaviour", "reason"), [("refused", "refused"), ("slow", "timeout"), ("html", "not_metrics")]
)
def test_not_ready_and_why(start_runtime: Callable[..., Runtime], behaviour: str, reason: str) -> None:
    """Without the engine it is 503 within a probe's second or so, and tells the reason."""
    with BadEngine(behaviour) as bad:
        answer = start_runtime(bad.url).get("/ready")

    engine = answer.json()["checks"]["engine"]
    assert answer.status_code == 503
    assert answer.json()["status"] == "not_ready"
    assert (engine["status"], engine["reason"]) == ("failing", reason)
    assert engine["detail"]
    assert answer.elapsed.total_seconds() < 10


def test_probes_say_nothing_of_scrapes(start_runtime: Callable[..., Runtime]) -> None:
    """An engine that answers scrapers in time, and is too slow for probes and people, is neither logged nor counted."""

    def act(exchange: Exchange, _: int) -> None:
        sleep(2.5)
        exchange.send(response(PAGE))

    with BadEngine(replace(BEHAVIOURS["slow"], act=act)) as slow:
        runtime = start_runtime(slow.url)
        for path in ("/metrics", "/ready", "/"):
            runtime.get(path)
        page = samples(runtime.page())
        reason = runtime.get("/ready").json()["checks"]["engine"]["reason"]

    assert reason == "timeout"
    assert page['kthena_runtime_engine_scrape_errors_total{reason="timeout"}'] == 0
    assert "engine metrics" not in runtime.log


def test_version(runtime: Runtime) -> None:
    """It says what runs, as the package's own metadata have it."""
    answer = runtime.get("/version").json()

    assert answer["version"] == version("kthena-runtime")
    assert answer["engine"] == "vllm"
    assert re.fullmatch(r"3\.\d+\.\d+\S*", answer["python"])


def test_the_landing_page_shows_the_state(runtime: Runtime) -> None:
    """A person sees that the engine is up, which standard metrics are there, and where to go on."""
    answer = runtime.get("/")
    page = Landing(answer.text)

    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert all(f"{text}\n" in page.words for text in ("up", "test-model", "pod-0.default", "vllm"))
    assert "down" not in page.words.split()
    assert all(name in page.words for name in (*STANDARD, *EXTENDED))


def test_the_landing_page_leads_everywhere(runtime: Runtime) -> None:
    """Each of its links can be followed, and together they reach all routes that can be read without a name."""
    links = Landing(runtime.get("/").text).links

    assert [link for link in links if runtime.get(link).status_code != 200] == []
    readable = {route for route, method in ALL_ROUTES.items() if method == "GET" and "{" not in route}
    assert readable - {"/"} == {link.partition("?")[0] for link in links}


def test_the_landing_page_of_an_engine_that_is_away(start_runtime: Callable[..., Runtime]) -> None:
    """It is there all the same, and says what is wrong."""
    with BadEngine("status_404") as bad:
        page = Landing(start_runtime(bad.url).get("/").text)

    assert "down\n" in page.words
    assert "http_status\n" in page.words
    assert "answered 404" in page.words
    assert page.words.count("–\n") == len((*STANDARD, *EXTENDED))  # noqa: RUF001 - a dash
    assert not {"present\n", "not on the page\n"} & set(page.words.splitlines(keepends=True))


def test_the_landing_page_tells_what_is_absent(start_runtime: Callable[..., Runtime], engine: Engine) -> None:
    """Of an engine that is read, what is not found is not on its page."""
    page = Landing(start_runtime(engine.url, engine="sglang").get("/").text)

    assert "up\n" in page.words
    assert page.words.count("not on the page\n") == 10
    assert "–" not in page.words  # noqa: RUF001 - a dash


def test_the_landing_page_escapes_what_it_is_given(start_runtime: Callable[..., Runtime], engine: Engine) -> None:
    """A name is shown, not run."""
    name = "<script>alert('&amp;')</script>"
    page = Landing(start_runtime(engine.url, "--model", name, "--pod", "<b>.$model").get("/").text)

    assert "script" not in page.tags
    assert f"{name}\n" in page.words
    assert "<b>.$model\n" in page.words


@pytest.mark.parametrize("route", ROUTES)
def test_a_trailing_slash_makes_no_difference(runtime: Runtime, route: str) -> None:
    """A route is found with a slash behind it, too, without a redirect."""
    assert runtime.get(route.rstrip("/") + "/", allow_redirects=False).status_code == 200


@pytest.mark.parametrize("route", ROUTES)
def test_head_is_get_without_a_body(runtime: Runtime, route: str) -> None:
    """Load balancers may probe with HEAD."""
    answer = runtime.session.head(runtime.url + route, timeout=60)

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Type"] == runtime.get(route).headers["Content-Type"]


@pytest.mark.parametrize("path", ["/metric", "/metrics/x", "/favicon.ico", "/../etc/passwd", "/%00", "/%ff", "/Health"])
def test_an_unknown_route_is_a_problem(runtime: Runtime, path: str) -> None:
    """A path that leads nowhere is answered as RFC 9457 has it, and told where to look."""
    answer = runtime.get(path)
    body = answer.json()

    assert (answer.status_code, answer.headers["Content-Type"]) == (404, PROBLEM)
    assert body | {"detail": ""} == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "code": "not_found",
        "detail": "",
    }
    assert "/ lists what there is" in body["detail"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_wrong_method_is_a_problem(runtime: Runtime, route: str, method: str) -> None:
    """It is told which methods there are, even with a body that nobody reads."""
    answer = runtime.session.request(method, runtime.url + route, data=b"x" * 10_000, timeout=60)

    assert (answer.status_code, answer.headers["Content-Type"]) == (405, PROBLEM)
    assert {"GET", "HEAD"} <= set(answer.headers["Allow"].split(", "))
    assert answer.json()["title"] == HTTPStatus.METHOD_NOT_ALLOWED.phrase
    assert (answer.json()["status"], answer.json()["code"]) == (405, "method_not_allowed")
    assert method in answer.json()["detail"]


@pytest.mark.parametrize("route", ROUTES)
def test_options_says_what_a_wrong_method_is_told(runtime: Runtime, route: str) -> None:
    """The Allow header is the same, with OPTIONS in it, and there is no body."""
    answer = runtime.session.options(runtime.url + route, timeout=60)
    refused = runtime.session.patch(runtime.url + route, timeout=60)

    assert (answer.status_code, refused.status_code, answer.content) == (204, 405, b"")
    assert answer.headers["Allow"] == refused.headers["Allow"]
    assert "OPTIONS" in answer.headers["Allow"].split(", ")


@pytest.mark.parametrize("path", ["/health", "/ready", "/version", "/nowhere"])
def test_json_ends_its_line(runtime: Runtime, path: str) -> None:
    """So that a shell's prompt does not stand behind it."""
    content = runtime.get(path).content

    assert content.endswith(b"}\n")
    assert content.count(b"\n") == 1


def test_requests_are_counted_by_route(start_runtime: Callable[..., Runtime], engine: Engine) -> None:
    """All known routes are there from the start; each answer is counted under its own."""
    runtime = start_runtime(engine.url)
    before = counted(runtime)
    assert {(route, "GET", "200") for route in ROUTES} <= set(before)
    assert set(before.values()) == {0}
    for path in ("/health", "/health/", "/health?verbose=1", "/version"):
        runtime.get(path)
    runtime.session.post(f"{runtime.url}/health", timeout=60)

    requests = counted(runtime)
    assert requests["/health", "GET", "200"] == 3
    assert requests["/version", "GET", "200"] == 1
    assert requests["/metrics", "GET", "200"] == 1
    assert requests["/health", "POST", "405"] == 1


def test_unknown_paths_share_one_series(start_runtime: Callable[..., Runtime], engine: Engine) -> None:
    """Who tries paths at random makes no series: they count as one, whatever they and their methods are called."""
    runtime = start_runtime(engine.url)
    known = len(counted(runtime))
    for _ in range(50):
        runtime.get(f"/{secrets.token_hex(8)}")
    for _ in range(5):
        runtime.session.request(secrets.token_hex(4).upper().translate({48 + i: "A" for i in range(10)}), runtime.url)

    requests = counted(runtime)
    assert requests["unmatched", "GET", "404"] == 50
    assert len(requests) <= known + 2
    assert "unmatched" in runtime.page(params={"name[]": "kthena_runtime_http_request_duration_seconds"})


def test_json_has_no_surprises(runtime: Runtime) -> None:
    """Problems with odd paths are still JSON in ASCII, which any client can read."""
    answer = runtime.get('/%22quoted%22/%F0%9F%98%80/"')

    assert answer.content.isascii()
    assert '/"quoted"/😀' in json.loads(answer.content)["detail"]
