"""The misbehaviours, as a table: for each a short function, or just the bytes it sends."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from simulators.misbehaving import pages
from simulators.misbehaving.exchange import Behaviour
from simulators.misbehaving.pages import response

if TYPE_CHECKING:
    from simulators.misbehaving.exchange import Exchange


def sends(summary: str, raw: bytes) -> Behaviour:
    """Return the behaviour that answers `raw` to everything."""
    return Behaviour(summary, lambda exchange, _: exchange.send(raw))


def _serves(summary: str, body: bytes, content_type: str = pages.TEXT) -> Behaviour:
    return sends(summary, response(body, content_type=content_type))


def _refuse(_: Exchange, _size: int) -> None:
    """Never be asked."""


def _stall(exchange: Exchange, _: int) -> None:
    exchange.stall()


def _drip(exchange: Exchange, _: int) -> None:
    exchange.send(pages.head("200 OK", {"Content-Type": pages.TEXT, "Content-Length": "1000000"}))
    exchange.drip(bytes([byte]) for byte in itertools.cycle(pages.PAGE))


def _drip_headers(exchange: Exchange, _: int) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\n")
    exchange.drip(bytes([byte]) for byte in itertools.cycle(b"X-Padding: still thinking\r\n"))


def _short_body(exchange: Exchange, _: int) -> None:
    exchange.send(response(pages.PAGE, headers={"Content-Length": str(2 * len(pages.PAGE))}))


def _reset_half_way(exchange: Exchange, _: int) -> None:
    whole = response(pages.PAGE)
    exchange.send(whole[: len(whole) // 2])
    exchange.reset()


def _big(exchange: Exchange, size: int) -> None:
    exchange.send(pages.head("200 OK", {"Content-Type": pages.TEXT, "Content-Length": str(pages.big_length(size))}))
    for piece in pages.big_page(size):
        exchange.send(piece)


def _begin_chunked(exchange: Exchange) -> None:
    exchange.send(pages.head("200 OK", {"Content-Type": pages.TEXT, "Transfer-Encoding": "chunked"}))


def _chunked(exchange: Exchange, _: int) -> None:
    _chunked_cut(exchange, 0)
    exchange.send(pages.chunk(b""))


def _chunked_cut(exchange: Exchange, _: int) -> None:
    _begin_chunked(exchange)
    # Chunks that end anywhere but at the end of a line.
    for start in range(0, len(pages.PAGE), 100):
        exchange.send(pages.chunk(pages.PAGE[start : start + 100]))


def _endless(exchange: Exchange, _: int) -> None:
    _begin_chunked(exchange)
    for piece in pages.endless_page():
        exchange.send(pages.chunk(piece))


def _long_line(exchange: Exchange, size: int) -> None:
    exchange.send(response(b'a{b="' + b"x" * size + b'"} 1\n'))


def _gzip(exchange: Exchange, _: int) -> None:
    exchange.send(response(pages.gzipped(pages.PAGE), headers={"Content-Encoding": "gzip"}))


def _gzip_bomb(exchange: Exchange, size: int) -> None:
    exchange.send(response(pages.gzip_bomb(size), headers={"Content-Encoding": "gzip"}))


def _gzip_of_many(exchange: Exchange, size: int) -> None:
    exchange.send(response(pages.gzip_of_many(size), headers={"Content-Encoding": "gzip"}))


def _gzip_broken(exchange: Exchange, _: int) -> None:
    exchange.send(response(pages.gzip_broken(), headers={"Content-Encoding": "gzip"}))


def _redirect(exchange: Exchange, _: int) -> None:
    if exchange.path == "/metrics/":
        exchange.send(response(pages.PAGE))
    else:
        exchange.send(response(b"", status="307 Temporary Redirect", headers={"Location": "/metrics/"}))


def _redirect_loop(exchange: Exchange, _: int) -> None:
    exchange.send(response(b"", status="307 Temporary Redirect", headers={"Location": exchange.path}))


def _promise_keep_alive(exchange: Exchange) -> None:
    exchange.send(response(pages.PAGE, headers={"Connection": "keep-alive", "Keep-Alive": "timeout=60"}))


def _keepalive_closer(exchange: Exchange, _: int) -> None:
    _promise_keep_alive(exchange)


def _keepalive_dropper(exchange: Exchange, _: int) -> None:
    if exchange.number == 1:
        _promise_keep_alive(exchange)
        exchange.keep_open = True


BEHAVIOURS: dict[str, Behaviour] = {
    "refused": Behaviour("nobody listens on the port", _refuse, listens=False),
    "slow": Behaviour("takes the request and never answers", _stall),
    "drip": Behaviour("sends the body a byte now and then, for ever", _drip),
    "drip_headers": Behaviour("sends headers a byte now and then, for ever", _drip_headers),
    "status_404": sends(
        "has no such path",
        response(b'{"detail":"Not Found"}', status="404 Not Found", content_type="application/json"),
    ),
    "status_500": sends("fails", response(b"Internal Server Error", status="500 Internal Server Error")),
    "html": _serves("is a sign-in page", pages.HTML, "text/html; charset=utf-8"),
    "json": _serves("has metrics, as JSON", pages.JSON, "application/json"),
    "binary": _serves("is not text", pages.BINARY, "application/octet-stream"),
    "truncated_line": _serves("ends in the middle of a line, and says that is all", pages.TRUNCATED_LINE),
    "short_body": Behaviour("closes before all that it promised has come", _short_body),
    "bad_value": _serves("has a value that is no number", pages.BAD_VALUE),
    "invalid_utf8": _serves("has a label value that is not UTF-8", pages.INVALID_UTF8),
    "empty": _serves("has nothing on its page", b""),
    "big": Behaviour("has a valid page of many megabytes", _big, size=20_000_000),
    "endless": Behaviour("has a page that never ends, and sends it fast", _endless),
    "long_line": Behaviour("sends a line that is as long as a book", _long_line, size=2_000_000),
    "gzip": Behaviour("compresses unasked", _gzip),
    "gzip_bomb": Behaviour("compresses very much into very little", _gzip_bomb, size=200_000_000),
    "gzip_of_many": Behaviour("compresses nothing, very often, and then the page", _gzip_of_many, size=100_000),
    "gzip_broken": Behaviour("compresses, and damages the stream", _gzip_broken),
    "chunked": Behaviour("sends a good page in chunks that split lines", _chunked),
    "chunked_cut": Behaviour("closes without the last chunk", _chunked_cut),
    "reset_half_way": Behaviour("resets the connection half-way", _reset_half_way),
    "openmetrics": _serves("answers OpenMetrics whatever was asked", pages.OPENMETRICS, pages.OPENMETRICS_TEXT),
    "redirect": Behaviour("sends on to a path that works", _redirect),
    "redirect_loop": Behaviour("sends on to itself", _redirect_loop),
    "duplicate_family": _serves("has one family twice", pages.DUPLICATE_FAMILY),
    "kthena_names": _serves("uses the runtime's own names", pages.KTHENA_NAMES),
    "keepalive_closer": Behaviour("promises to keep the connection, and closes it", _keepalive_closer),
    "keepalive_dropper": Behaviour("keeps the connection, and drops the second request on it", _keepalive_dropper),
}
