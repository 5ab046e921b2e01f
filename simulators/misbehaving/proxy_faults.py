"""What a bad proxy can do to one request, each a function of the exchange.

A fault that needs a number or a text is made by a function of that name: ``cut(after=1000)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from simulators.misbehaving.proxy_exchange import Answer, Exchange

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Mapping

__all__ = [
    "EXPIRED",
    "Fault",
    "answers",
    "changes_headers",
    "corrupts",
    "cut",
    "drip",
    "endless",
    "first",
    "holds",
    "ignores_range",
    "passes",
    "resets",
    "rewrites",
    "stalls",
    "throttles",
]

Fault = Callable[[Exchange], None]

EXPIRED: Final = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message>"
    b"<Expires>2026-01-01T00:00:00Z</Expires><RequestId>1</RequestId></Error>"
)


def passes(exchange: Exchange) -> None:
    """Do what an honest proxy does."""
    exchange.reply(exchange.ask())


def answers(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Fault:
    """Answer this, and never ask the server."""
    return lambda exchange: exchange.reply(Answer.of(status, body, headers))


def cut(*, after: int) -> Fault:
    """Close politely after so many bytes of the body."""

    def act(exchange: Exchange) -> None:
        _begin(exchange, after)

    return act


def resets(*, after: int) -> Fault:
    """Reset the connection after so many bytes of the body."""

    def act(exchange: Exchange) -> None:
        _begin(exchange, after)
        exchange.reset()

    return act


def stalls(*, after: int) -> Fault:
    """Send so many bytes of the body, then nothing more for ever."""

    def act(exchange: Exchange) -> None:
        _begin(exchange, after)
        exchange.stall()

    return act


def drip(*, after: int) -> Fault:
    """Send so many bytes of the body, then byte by byte, twenty a second."""

    def act(exchange: Exchange) -> None:
        exchange.drip(_begin(exchange, after))

    return act


def endless(piece: bytes, *, begin: bytes = b"", status: int = 200, headers: Mapping[str, str] | None = None) -> Fault:
    """Answer with a body that begins so, and then has `piece` again and again, as long as the client listens."""

    def act(exchange: Exchange) -> None:
        exchange.begin(Answer(status, headers or {}, 10**15))
        exchange.send(begin)
        block = piece * (65536 // len(piece) + 1)
        while True:
            exchange.send(block)

    return act


def corrupts(*, at: int) -> Fault:
    """Flip one bit of the body's byte `at`."""

    def act(exchange: Exchange) -> None:
        answer = exchange.ask()
        exchange.reply(replace(answer, body=_flipped(exchange.pieces(answer), at)))

    return act


def rewrites(old: bytes, new: bytes) -> Fault:
    """Replace `old` by `new` throughout the body."""

    def act(exchange: Exchange) -> None:
        answer = exchange.ask()
        body = b"".join(answer.body)
        assert old in body, f"nothing to rewrite in {body[:500]!r}"
        exchange.reply(Answer.of(answer.status, body.replace(old, new), answer.headers))

    return act


def changes_headers(**changed: str) -> Fault:
    """Answer with other values for these headers, whose names are written with underscores."""
    changes = {name.replace("_", "-").lower(): value for name, value in changed.items()}

    def act(exchange: Exchange) -> None:
        answer = exchange.ask()
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in changes}
        exchange.reply(replace(answer, headers=kept | changes))

    return act


def ignores_range(whole: bytes) -> Fault:
    """Answer 200 with the whole object, which is `whole`, whatever range was asked for.

    The real server cannot be asked for it: clients sign the range that they want.
    """

    def act(exchange: Exchange) -> None:
        headers = {name: value for name, value in exchange.ask().headers.items() if name.lower() != "content-range"}
        exchange.reply(Answer.of(200, whole, headers))

    return act


def throttles(*, seconds: float) -> Fault:
    """Take a pause before each 64 kB of the body."""

    def act(exchange: Exchange) -> None:
        answer = exchange.ask()
        exchange.reply(replace(answer, body=exchange.slowly(answer.body, seconds)))

    return act


def first(action: Callable[[], object]) -> Fault:
    """Do something else before the request is passed on: change the object, say."""

    def act(exchange: Exchange) -> None:
        action()
        passes(exchange)

    return act


def holds(gate: threading.Event) -> Fault:
    """Pass the request on when `gate` is set."""

    def act(exchange: Exchange) -> None:
        exchange.wait(gate)
        passes(exchange)

    return act


def _begin(exchange: Exchange, after: int) -> bytes:
    """Send headers and the first bytes of the body; return what follows of it, at least a block."""
    answer = exchange.ask()
    exchange.begin(answer)
    left = after
    for piece in exchange.pieces(answer):
        if len(piece) > left:
            exchange.send(piece[:left])
            return piece[left:]
        exchange.send(piece)
        left -= len(piece)
    return b""


def _flipped(pieces: Iterable[bytes], at: int) -> Iterable[bytes]:
    position = 0
    for piece in pieces:
        index = at - position
        position += len(piece)
        inside = 0 <= index < len(piece)
        yield piece[:index] + bytes([piece[index] ^ 1]) + piece[index + 1 :] if inside else piece
