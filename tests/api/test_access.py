"""The token cannot be bypassed: every route of the application, in every spelling that reaches it.

The routes are those that the application's own router has. Each is asked for in
the application and over a socket, with and without the token; what a spelling
leads to is what Falcon's router says, and whether that wants the token is in
its template: everything below /v1 does.
"""

from __future__ import annotations

import socket
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from wsgiref.util import setup_testing_defaults

import pytest
from falcon.routing import CompiledRouter
from hypothesis import example, given, settings
from hypothesis import strategies as st
from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser

from exporter.api.app import ROUTES
from exporter.cli import build_parser
from exporter.service import build
from exporter.settings import resolve
from simulators.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from exporter.service import Service

TOKEN: Final = "s3cret"
METHODS: Final = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "FOO")
PUBLIC: Final = {"/", "/metrics", "/health", "/ready", "/version"}
NOWHERE: Final = "http://127.0.0.1:9"


class Given(NamedTuple):
    """A request: how a route is spelled, and what is sent with it."""

    target: str
    method: str = "GET"
    token: str = ""


@pytest.fixture(scope="module", params=["vllm", "tgi"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The runtime as the composition root builds it, serving on a port."""
    token = tmp_path_factory.mktemp("secrets") / "token"
    token.write_text(TOKEN)
    made = build(resolve(vars(build_parser().parse_args(arguments(request.param, token))), {}))
    stop = Event()
    thread = Thread(target=made.server.serve, args=(stop,))
    made.start()
    thread.start()
    yield made
    stop.set()
    made.server.wake()
    thread.join()
    made.stop()
    made.server.drain()
    made.close()


def arguments(engine: str, token: Path) -> list[str]:
    where = ["--engine-base-url", NOWHERE, "--host", "127.0.0.1", "--port", "0"]
    return ["-E", engine, "-I", "pod-0.default", "-N", "test-model", *where, "--api-token-file", str(token)]


def templates(app: Any) -> set[str]:
    """Walk the application's router, and return the template of each route."""

    def walk(nodes: list[Any]) -> Iterator[str]:
        for node in nodes:
            if node.resource is not None:
                yield node.uri_template
            yield from walk(node.children)

    return set(walk(app._router._roots))


def quoted(characters: str) -> st.SearchStrategy[str]:
    """Spell each character as it is, or in hexadecimal, in either case."""
    each = [st.sampled_from([one, f"%{ord(one):02X}", f"%{ord(one):02x}"]) for one in characters]
    return st.tuples(*each).map("".join)


@st.composite
def spellings(draw: st.DrawFn, template: str) -> str:
    """Write a route in a way that may reach it."""
    names = st.text(st.sampled_from("abc%./:*;~ é"), max_size=6).map(str.encode)
    slash = (
        st.sampled_from(["/", "//", "%2F", "%2f", "/./", "/x/../"]) if draw(st.integers(0, 3)) == 0 else st.just("/")
    )
    parts = []
    for part in template.lstrip("/").split("/"):
        if "{" in part:
            parts.append("".join(f"%{byte:02x}" if byte > 126 or byte in b"% " else chr(byte) for byte in draw(names)))
        else:
            parts.append(draw(quoted(part) | st.just(part) | st.just(part)))
    path = "".join(draw(slash) + part for part in parts).removeprefix(draw(st.sampled_from(["", "", "", "/"])))
    origins = [
        "",
        "",
        "",
        "http://host",
        "HTTPS://host:80",
        "http:",
        "foo:",
        "http:/",
        "foo://host",
        "//host",
        "http://",
    ]
    ends = st.sampled_from(["", "", "/", "//", "?", "?a=/b", "#", "#v", ";a", "%00", "\t"])
    return draw(st.sampled_from(origins)) + path + draw(ends)


@st.composite
def requests(draw: st.DrawFn) -> Given:
    target = draw(st.sampled_from(sorted({*ROUTES, "/v1", "/v1/nothing", "/nothing"})).flatmap(spellings))
    return Given(target, draw(st.sampled_from(METHODS)), draw(st.sampled_from(["", "", "", "wrong", TOKEN])))


def parsed(target: str) -> HTTPRequestParser:
    parser = HTTPRequestParser(Adjustments())
    parser.received(f"GET {target} HTTP/1.1\r\n\r\n".encode("latin-1"))
    return parser


def path_of(parser: HTTPRequestParser) -> str:
    path: str = parser.path  # type: ignore[attr-defined]  # left out of Waitress's types
    return path


def is_served(target: str) -> bool:
    """Tell whether a target has one of the two forms, by other means than the runtime's."""
    scheme, found, rest = target.partition("://")
    has_origin = bool(found) and scheme.lower() in ("http", "https") and rest[:1] not in ("", "/", "?")
    return (has_origin or target.startswith("/")) and "#" not in target and target.isprintable()


def route_of(app: Any, path: str) -> str | None:
    """Ask the router where a path leads, without the runtime's own part of it."""
    stripped = path[:-1] if len(path) > 1 and path.endswith("/") else path
    route = CompiledRouter.find(app._router, stripped)
    return route[3] if route else None


def wants_token(app: Any, path: str) -> bool:
    route = route_of(app, path)
    return route.startswith("/v1/") if route else path.lstrip("/").split("/")[0] == "v1"


def asked_inside(app: Any, request: Given, path: str, *, shows_target: bool) -> int:
    """Call the application, with the target or only with the path that the server made of it."""
    environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": request.method}
    environ |= {"REQUEST_URI": request.target} if shows_target else {}
    environ |= {"HTTP_AUTHORIZATION": f"Bearer {request.token}"} if request.token else {}
    setup_testing_defaults(environ)
    statuses: list[str] = []
    app(environ, lambda status, _: statuses.append(status))
    return int(statuses[0].split()[0])


def asked_outside(service: Service, request: Given) -> int:
    """Send the request over a connection."""
    host, _, port = service.server.url.removeprefix("http://").partition(":")
    token = f"Authorization: Bearer {request.token}\r\n" if request.token else ""
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
        head = f"{request.method} {request.target} HTTP/1.1\r\nHost: r\r\nConnection: close\r\n{token}\r\n"
        client.sendall(head.encode("latin-1"))
        return int(client.makefile("rb").readline().split()[1])


def check(status: int, request: Given, *, protected: bool, served: bool) -> None:
    """Compare a status with what must come of a request."""
    if not served:
        assert status == 400
    elif protected and request.token != TOKEN:
        assert status == 401
    else:
        assert status != 401
        assert status < 500 or status in (501, 503)


def of_every_spelling(test: Callable[..., None]) -> Callable[..., None]:
    """Have a test tried with what was found once, and with what Hypothesis makes up."""
    found = ["v1/downloads", "http:v1/downloads", "foo:v1/downloads", "http:/v1/downloads", "foo://host/v1/downloads"]
    found += ["//v1/downloads", "/v1/downloads/", "/%76%31/downloads", "/v1%2Fdownloads", "http://host/v1/downloads"]
    found += ["*", "host:80", "/v1", "/v1/", "/v1/nothing", "http://host", "/nothing", "/v1/downloads#", "/health"]
    for target in found:
        test = example(Given(target))(test)
    return settings(max_examples=300)(given(requests())(test))


def test_the_routes_are_those_that_are_known(service: Service) -> None:
    """What the router has is what is listed, and everything that is not public is below /v1."""
    assert templates(service.app) == set(ROUTES)
    assert {route for route in ROUTES if not route.startswith("/v1/")} == PUBLIC


@of_every_spelling
def test_the_application_wants_its_token(service: Service, asked: Given) -> None:
    """The form of a target is checked, and without that no spelling leads past the token either."""
    parser = parsed(asked.target)
    if parser.error:
        return
    # As Waitress hands it on.
    path = path_of(parser)
    path = "/" + path.lstrip("/") if path.startswith("/") else path
    protected = wants_token(service.app, path or "/")
    inside = asked_inside(service.app, asked, path, shows_target=True)
    check(inside, asked, protected=protected, served=is_served(asked.target))
    bare = asked_inside(service.app, asked, path, shows_target=False)
    check(bare, asked, protected=protected, served=(path or "/").startswith("/"))


@of_every_spelling
def test_the_port_wants_the_token(service: Service, asked: Given) -> None:
    """The same over a connection, with Waitress in front of the application."""
    parser = parsed(asked.target)
    path = "" if parser.error else "/" + path_of(parser).lstrip("/")
    served = not parser.error and is_served(asked.target)
    check(asked_outside(service, asked), asked, protected=wants_token(service.app, path), served=served)
