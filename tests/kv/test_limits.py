"""What bounds KV events: replies of Redis, large payloads, replays, the ledger."""

from __future__ import annotations

import socket
import tracemalloc
from itertools import count, pairwise, repeat
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from exporter.kv.decode import Cleared, Drop, Removed, Stored, decode
from exporter.kv.frames import receive
from exporter.kv.large import LARGE
from exporter.kv.ledger import Ledger
from exporter.kv.limits import MAX_PAYLOAD, QUEUE_BYTES, queue_length
from exporter.kv.replay import OversizedReplyError, Replay, ReplayError, UnsoundReplayError
from exporter.kv.replies import BoundedParser
from simulators.kv.frames import FORMS, Clear, Form, Remove, Store
from tests.kv.stream_bench import Bench, store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.unit


class Connected:
    """A parser at the end of a socket pair; a context manager."""

    def __init__(self, *pieces: bytes, seconds: float = 5.0, is_closed: bool = True) -> None:
        self._theirs, self._ours = socket.socketpair()
        self.socket_timeout = seconds
        self._pieces = pieces
        self._is_closed = is_closed
        self._thread = Thread(target=self._send)

    @property
    def _sock(self) -> socket.socket:
        return self._ours

    def __enter__(self) -> BoundedParser:
        self._ours.settimeout(self.socket_timeout)
        self._thread.start()
        parser = BoundedParser(65536)
        parser.on_connect(self)  # type: ignore[arg-type]
        return parser

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._theirs.close()
        self._thread.join()

    def _send(self) -> None:
        try:
            for piece in self._pieces:
                self._theirs.sendall(piece)
            if self._is_closed:
                self._theirs.shutdown(socket.SHUT_WR)
        except OSError:
            return


def encoded(value: Any) -> bytes:
    """Return a reply as Redis writes it."""
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, list):
        return b"*%d\r\n" % len(value) + b"".join(map(encoded, value))
    return b":%d\r\n" % value if isinstance(value, int) else b"$%d\r\n%b\r\n" % (len(value), value)


values = st.recursive(
    st.none() | st.integers(-(1 << 63), (1 << 63) - 1) | st.binary(max_size=30),
    lambda inner: st.lists(inner, max_size=4), max_leaves=8,
).filter(lambda value: depth(value) <= 4)  # fmt: skip


def depth(value: object) -> int:
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(st.lists(values, min_size=1, max_size=5), st.lists(st.integers(1, 200), max_size=6))
def test_replies_are_read_wherever_they_are_cut(replies: list[Any], cuts: list[int]) -> None:
    """Law: what was written comes back, whatever pieces it came in."""
    text = b"".join(map(encoded, replies))
    places = [0, *sorted({cut for cut in cuts if cut < len(text)}), len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    with Connected(*pieces) as parser:
        assert [parser.read_response() for _ in replies] == replies
        with pytest.raises(RedisConnectionError):
            parser.read_response()


# What redis-py takes apart further, by the first word.
errors = st.builds(
    lambda code, text: f"-{code} {text}\r\n".encode(),
    st.sampled_from(sorted(BoundedParser.EXCEPTION_CLASSES)), st.text("0 :.-", max_size=8),
)  # fmt: skip


@given(st.binary(max_size=60) | errors)
def test_no_bytes_break_the_parser(text: bytes) -> None:
    """Law: any bytes are replies or an error of Redis."""
    with Connected(text) as parser:
        try:
            for _ in range(len(text) + 1):
                parser.read_response()
        except RedisError:
            return
        pytest.fail("more replies than bytes")


@pytest.mark.parametrize(
    "text",
    [
        b"$2000000000\r\n", b"$4194305\r\n", b"*1000000000\r\n", b"*65537\r\n", b"*-2\r\n", b"$-2\r\n", b":\r\n", b":1.5\r\n",
        b":" + b"1" * 30 + b"\r\n", b"*x\r\n", b"\r\n", b"?\r\n", b"%1\r\n", b"*1\r\n" * 5 + b":1\r\n", b"+" + b"x" * 5_000_000,
        b"*2\r\n" + b"*40000\r\n" + b":1\r\n" * 40000 + b"*40000\r\n",
    ],
    ids=lambda text: repr(text[:12]),
)  # fmt: skip
def test_what_no_command_is_answered_with_is_refused(text: bytes) -> None:
    """As soon as it is announced, or when it has become too long."""
    with Connected(text, is_closed=False) as parser, pytest.raises(InvalidResponse):
        parser.read_response()


def test_errors_have_their_class() -> None:
    """Those of the server's state are what redis-py makes of them; others are plain."""
    with Connected(b"-READONLY no\r\n-ERR what\r\n-ERR max number of clients reached\r\n") as parser:
        assert isinstance(parser.read_response(), ReadOnlyError)
        assert type(parser.read_response()) is ResponseError
        with pytest.raises(RedisConnectionError):
            parser.read_response()


def test_many_replies_are_read_at_once() -> None:
    """Only the errors among them are of interest; what follows is left."""
    with Connected(b":1\r\n:0\r\n-ERR a\r\n:1\r", b"\n-OOM b\r\n:5\r\n+next\r\n") as parser:
        assert list(map(str, parser.read_errors(6))) == ["a", "b"]
        assert parser.read_response() == b"next"
        assert not parser.can_read() or parser.can_read()
    with Connected(b":1\r\n+OK\r\n") as parser, pytest.raises(InvalidResponse):
        parser.read_errors(2)


def test_a_reply_that_drips_has_an_end() -> None:
    """Its time is for all of it."""
    with Connected(b"*9\r\n", seconds=0.1, is_closed=False) as parser, pytest.raises(RedisTimeoutError):
        parser.read_response()


@pytest.mark.parametrize("wire", FORMS, ids=lambda wire: wire.name)
def test_large_payloads_say_the_same_as_small_ones(wire: Form) -> None:
    """They are opened in another way, and decoded to the same."""
    names, tokens = list(range(1 << 40, (1 << 40) + 2000)), range(70_000, 70_000 + 16 * 2000)
    payload = wire.batch(Store(names, tokens), Remove(names), Clear())
    halves = [
        wire.batch(Store(names[start : start + 50], tokens[start * 16 : (start + 50) * 16]))
        for start in range(0, 2000, 50)
    ]

    batch = decode(payload)

    assert max(map(len, halves)) < LARGE < len(payload)
    assert dict(batch.dropped) == {}
    small = [event for half in halves for event in decode(half).events]
    assert blocks(batch.events) == blocks(small)
    assert batch.events[-2:] == [Removed([wire.name_of(name) for name in names]), Cleared()]


def blocks(events: list[Any]) -> dict[Any, int]:
    return {
        name: block
        for event in events
        if isinstance(event, Stored)
        for name, block in zip(event.hashes, event.blocks, strict=True)
    }


def test_the_queues_of_all_ranks_have_one_bound() -> None:
    """As far as a queue can be short."""
    assert queue_length(1) * MAX_PAYLOAD == QUEUE_BYTES
    assert 8 * queue_length(8) * MAX_PAYLOAD == QUEUE_BYTES
    assert queue_length(1024) == 2


class Replies(Replay):
    """A replay whose answers come from functions, one after another."""

    def __init__(
        self, *answers: Callable[[int], Iterator[tuple[int, bytes]]], clock: Callable[[], float] = lambda: 0.0
    ) -> None:
        super().__init__(None, "", Event(), clock=clock)  # type: ignore[arg-type]
        self._answers = list(answers)
        self.asked: list[int] = []

    def _ask(self, start: int) -> Any:
        self.asked.append(start)
        return self._answers.pop(0)(start)


def numbered(start: int) -> Iterator[tuple[int, bytes]]:
    return ((number, b"x" * 100) for number in count(start))


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        (numbered, 50_007),
        (lambda start: repeat((start, b"")), 1),
        (lambda _: iter([(5, b""), (6, b""), (6, b"")]), 2),
        (lambda _: iter([(4, b"")]), 0),
        (lambda _: iter([(5, b""), ((1 << 64) - 2, b"")]), 1),
        (lambda start: ((number, bytes(2_000_000)) for number in count(start)), 268),
    ],
    ids=["numbers", "repeats", "backwards", "before", "huge", "bytes"],
)
def test_an_answer_that_no_engine_gives_is_left(answer: Any, taken: int) -> None:
    """Beyond what is missing and what an engine may have besides, in order; or beyond so many bytes."""
    found: list[int] = []
    with pytest.raises(UnsoundReplayError):
        found.extend(number for number, _ in Replies(answer).since(5, missing=7))

    assert found == list(range(5, 5 + taken))


def test_an_answer_that_drips_is_left() -> None:
    """After a minute, however few batches came."""
    seconds = count(0, 7)
    replay = Replies(numbered, clock=lambda: float(next(seconds)))

    with pytest.raises(UnsoundReplayError, match="no end"):
        assert len(list(replay.since(0))) < 10


def test_replies_that_keep_coming_are_worked_on_meanwhile() -> None:
    """A lull between them is not waited for beyond a second, nor when the runtime ends."""
    seconds = count(0, 7)
    slow, ending = Replies(clock=lambda: float(next(seconds))), Replies()
    ending._stopping.set()
    with zmq.Context() as context, context.socket(zmq.PUSH) as push, context.socket(zmq.PULL) as pull:
        push.bind("inproc://replies")
        pull.connect("inproc://replies")
        for _ in range(900):
            push.send_multipart([b"a", b"b", b"c"])

        assert [len(replay._gathered(pull)) for replay in (slow, ending, Replies())] == [256, 256, 388]


def test_a_large_reply_is_asked_for_again_with_more_room() -> None:
    """Most replies are small, so many may wait; the first that is not makes fewer wait, of any size."""

    def breaks(_: int) -> Iterator[tuple[int, bytes]]:
        yield 3, b"a"
        raise OversizedReplyError

    replay = Replies(breaks, lambda start: iter([(start, b"b")]), breaks)

    assert list(replay.since(3)) == [(3, b"a"), (4, b"b")]
    with pytest.raises(ReplayError):
        list(replay.since(3))
    assert replay.asked == [3, 4, 3]


def test_a_huge_gap_counts_as_a_million_batches() -> None:
    """Its number is whatever the peer says, and the counter stays of use."""
    bench = Bench(replay=False)
    bench.live(store(0))
    bench.engine.sequence = 1 << 62
    bench.live(store(1))

    assert bench.told.dropped == {Drop.LOST: 1_000_000}


def test_a_batch_that_is_too_large_is_passed_over() -> None:
    """It has a number like any other: nothing else is lost."""
    bench = Bench()
    bench.live(store(0))
    bench.engine.emit(store(1))
    bench.stream.skip()
    bench.live(store(2))

    assert bench.told.tally["gaps"] == 0
    assert bench.told.dropped == {Drop.TOO_LARGE: 1}
    assert len(bench.ledger.held()) == 2


def test_a_full_ledger_refuses_and_goes_on() -> None:
    """As soon as the engine drops blocks there is room for others."""
    ledger = Ledger("base", most=3)

    assert ledger.apply(0, [Stored([1, 2, 3, 4], [11, 12, 13, 14])]) == 1
    assert ledger.is_full
    assert ledger.apply(0, [Removed([1, 2]), Stored([5, 6, 7], [15, 16, 17])]) == 1
    assert ledger.held() == {("base", 13), ("base", 15), ("base", 16)}
    ledger.clear(0)
    assert (ledger.is_full, ledger.size) == (False, 0)
    assert ledger.apply(0, [Stored([7, 8, 9], [17, 18, 19])]) == 0


def test_names_of_the_same_block_count_each() -> None:
    """They take memory like those of others."""
    ledger = Ledger("base", most=3)

    assert ledger.apply(0, [Stored(list(range(10)), [11] * 10)]) == 7
    assert (ledger.size, ledger.is_full) == (1, True)


def test_repeats_count_as_blocks() -> None:
    """The first of each name does; without room for it the block goes with its first removal."""
    ledger = Ledger("base", most=3)

    assert ledger.apply(0, [Stored([1, 2], [11, 12]), Stored([1, 1, 1, 2], [11, 11, 11, 12])]) == 1
    assert ledger.apply(0, [Removed([2, 1, 1, 1])]) == 0
    assert ledger.held() == {("base", 11)}
    assert ledger.apply(0, [Stored([3, 4], [13, 14])]) == 0


@pytest.mark.parametrize("times", [1, 2])
def test_a_place_in_the_ledger_costs_what_the_documents_say(times: int) -> None:
    """With the longest hashes and names that are taken, and repeats."""
    ledger = Ledger("base", most=10_000)
    tracemalloc.start()
    for number in range(10_000 // times):
        for _ in range(times):
            ledger.apply(0, [Stored([number.to_bytes(64)], [(number << 40) + 1], (b"x" * 512).decode())])
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    assert ledger.is_full
    assert used < 360 * 10_000


def test_leftovers_give_way() -> None:
    """What the engine holds comes first; fields that nobody holds are forgotten, and adopted again later."""
    ledger = Ledger("base", most=20)
    for block in range(100):
        ledger.adopt("base", block)
    assert (ledger.size, ledger.forgotten) == (21, 79)

    assert ledger.apply(0, [Stored(list(range(20)), list(range(200, 220)))]) == 0

    assert (ledger.size, ledger.forgotten, ledger.pending) == (20, 100, 20)
    ledger.adopt("base", 5)
    ledger.adopt("base", 6)
    assert (ledger.size, ledger.forgotten) == (21, 101)


def test_a_model_has_one_name_in_memory() -> None:
    """However many events bring it, and whether the engine or Redis does."""
    ledger = Ledger("base")
    for number in range(3):
        ledger.apply(0, [Stored([number], [number], b"lora-a".decode())])
        ledger.adopt(b"lora-a".decode(), 10 + number)

    assert len({id(change.entry.model) for change in ledger.take(10)}) == 1


def test_adapters_have_a_bound() -> None:
    """Each takes memory of its own."""
    ledger = Ledger("base", most=10_000)

    refused = sum(ledger.apply(0, [Stored([number], [number], f"lora-{number}")]) for number in range(5000))

    assert (refused, ledger.size) == (5000 - 4096, 4096)


@pytest.mark.parametrize("frames", [5, 1000])
def test_a_message_of_many_frames_is_cut(frames: int) -> None:
    """More frames than any message of an engine has are kept, so that it is dropped; the next message is whole."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as push, context.socket(zmq.PULL) as pull:
        push.bind("inproc://frames")
        pull.connect("inproc://frames")
        push.send_multipart([b"x"] * frames)
        push.send_multipart([b"a", b"b", b"c"])

        assert receive(pull) == [[b"x"] * 5, [b"a", b"b", b"c"]]
