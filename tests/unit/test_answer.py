"""The head of an HTTP answer is read as http.client reads it, in less time."""

from __future__ import annotations

import io
from http.client import HTTPException, HTTPResponse
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.metrics.answer import Answer

NAMES: Final = ("Content-Length", "content-type", "Transfer-Encoding", "Connection", "Location", "Keep-Alive", "X")
VALUES: Final = (
    "0",
    "17",
    "-1",
    "1e3",
    "chunked",
    "CHUNKED",
    "gzip",
    "close",
    "keep-alive",
    "text/plain",
    "",
    "\xe9: a",
)
STATUSES: Final = ("200 OK", "204 No Content", "301 Moved", "304", "404 Not Found", "508 Loop", "199 What")


class Sock:
    """A socket from which an answer comes."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._text)


def head(kind: type[HTTPResponse], text: bytes, method: str) -> Any:
    """Return what is read of a head, or the error."""
    response: Any = kind(Sock(text), method=method)
    try:
        response.begin()
        body = response.read()
    except HTTPException as error:
        return type(error)
    facts = ("version", "status", "reason", "chunked", "will_close")
    return [getattr(response, fact) for fact in facts], [response.getheader(name) for name in NAMES], body


fields = st.tuples(st.sampled_from(NAMES), st.sampled_from([":", ": ", ":\t"]), st.sampled_from(VALUES))
heads = st.builds(
    lambda version, status, lines, end: f"{version} {status}{end}" + "".join(map("".join, lines)),
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP", "hello"]),
    st.sampled_from(STATUSES),
    st.lists(fields.map(lambda field: ("".join(field), "\r\n")), max_size=6),
    st.sampled_from(["\r\n", "\n"]),
)


@given(heads, st.sampled_from(["GET", "HEAD"]))
@example("HTTP/1.1 200 OK\r\n" + "X: 1\r\n" * 99, "GET")
@example("HTTP/1.1 200 OK\r\n" + "X: 1\r\n" * 100, "GET")
@example("HTTP/1.1 200 OK\r\n" + "X: 1\r\n" * 101, "GET")
@example("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n", "GET")
@example("HTTP/1.1 200 OK\r\nX: " + "a" * 70_000 + "\r\n", "GET")
@example("", "GET")
def test_a_head_is_read_as_the_standard_library_reads_it(text: str, method: str) -> None:
    """Law: the same status, fields, length and end of the connection, or the same error."""
    answer = text.encode("iso-8859-1") + b"\r\n5\r\nhello\r\n0\r\n\r\n and more"

    assert head(Answer, answer, method) == head(HTTPResponse, answer, method)


def test_a_field_may_go_on_in_the_next_line() -> None:
    response: Any = Answer(Sock(b"HTTP/1.1 200 OK\r\nContent-Type:\r\n application/openmetrics-text;\r\n\ta=b\r\n\r\n"))  # type: ignore[arg-type]
    response.begin()

    assert response.getheader("Content-Type") == "application/openmetrics-text; a=b"


@pytest.mark.parametrize("name", ["content-length", "CONTENT-LENGTH"])
def test_names_are_found_in_any_case(name: str) -> None:
    response: Any = Answer(Sock(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"))  # type: ignore[arg-type]
    response.begin()

    assert response.getheader(name) == "3"
    assert response.read() == b"abc"
