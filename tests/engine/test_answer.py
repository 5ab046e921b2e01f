"""The head of an HTTP answer is read as http.client reads it, in less time."""

from __future__ import annotations

import io
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import TYPE_CHECKING, Any, Final, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.engine.answer import Answer
from storage.framing import FramingError

if TYPE_CHECKING:
    import socket

NAMES: Final = ("Content-Length", "content-type", "Transfer-Encoding", "Connection", "Location", "Keep-Alive", "X")
VALUES: Final = (
    "0",
    "17",
    "-1",
    "+5",
    "5_0",
    "5, 6",
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
STATUSES: Final = ("200 OK", "204 No Content", "301 Moved", "304", "404 Not Found", "508 Loop", "600 What")


class Sock:
    """A socket from which an answer comes."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._text)


def head(kind: type[HTTPResponse], text: bytes, method: str) -> Any:
    """Return what is read of a head, or the error."""
    response: Any = kind(cast("socket.socket", Sock(text)), method=method)
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
    """Law: the same status, fields, length and end of the connection, or the same error; or its framing is refused."""
    answer = text.encode("iso-8859-1") + b"\r\n5\r\nhello\r\n0\r\n\r\n and more"

    found = head(Answer, answer, method)

    assert found == head(HTTPResponse, answer, method) or (found is FramingError and is_framed_badly(text))


def is_framed_badly(text: str) -> bool:
    """Tell whether a head names a length that is none, two of them, or a coding other than chunked."""
    named = [line.partition(":") for line in text.lower().splitlines()[1:]]
    lengths = {one.strip() for name, _, value in named if name == "content-length" for one in value.split(",")}
    codings = [value.strip() for name, _, value in named if name == "transfer-encoding"]
    is_length = len(lengths) < 2 and all(length.isdecimal() for length in lengths)
    return not is_length or codings not in ([], ["chunked"])


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


def body(framed: bytes) -> bytes:
    """Return what is read of a chunked body."""
    response: Any = Answer(Sock(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed))  # type: ignore[arg-type]
    response.begin()
    pieces = iter(lambda: response.read(3), b"")
    return b"".join(pieces)


@pytest.mark.parametrize(
    "framed",
    [
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\n\n",
        b"0005\r\nhello\r\n000\r\n\r\n",
        b'5;a=b;c="d"\r\nhello\r\n0;e\r\nTrailer: 1\r\n\r\n',
        b"1\r\nh\r\n4 \r\nello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n",
    ],
)
def test_a_chunked_body_is_read(framed: bytes) -> None:
    """Sizes in hexadecimal, whatever extensions and trailers there are; the last empty line may be missing."""
    assert body(framed) == b"hello"


@pytest.mark.parametrize(
    "framed",
    [
        b"-1\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b"1" + b"0" * 15 + b"\r\nhello",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n" + b"1;" + b"x" * 4000 + b"\r\nh\r\n" * 1,
    ],
)
def test_bad_framing_is_refused(framed: bytes) -> None:
    """No size but a hexadecimal one counts, and a chunk ends where its size says."""
    with pytest.raises((FramingError, IncompleteRead)):
        body(framed)


@pytest.mark.parametrize(
    "framed",
    [
        b"5\r\nhello\r\n" + (b"1;" + b"x" * 4000 + b"\r\nh\r\n") * 100,
        b"5\r\nhello\r\n0\r\n" + b"Trailer: 1\r\n" * 100_000,
    ],
    ids=["extensions", "trailers"],
)
def test_framing_that_outweighs_the_body_is_refused(framed: bytes) -> None:
    """Small chunks are fine; extensions and trailers are not skipped for ever."""
    assert body(b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n") == b"x" * 50_000
    with pytest.raises(FramingError, match="without end"):
        body(framed)


def test_interim_answers_are_skipped_but_not_for_ever() -> None:
    """Up to a dozen of them, whatever their status."""
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
    final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    response: Any = Answer(Sock(interim * 12 + final))  # type: ignore[arg-type]
    response.begin()

    assert (response.status, response.read()) == (200, b"ok")
    with pytest.raises(FramingError, match="without end"):
        Answer(Sock(interim * 1000 + final)).begin()  # type: ignore[arg-type]


def test_a_length_that_is_repeated_is_one_length() -> None:
    """RFC 9112 6.3 allows it; http.client reads up to the end of the connection instead."""
    facts, _, body = head(Answer, b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello and more", "GET")

    assert (facts[-1], body) == (False, b"hello")
