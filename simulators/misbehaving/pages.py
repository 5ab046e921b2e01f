"""What the bad engines send: metrics pages, mostly spoilt, and the HTTP around them."""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TEXT = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_WAITING = b"""\
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="demo"} 3.0
"""

_TOKENS = b"""\
# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="demo"} 12345.0
"""

_TTFT = b"""\
# HELP vllm:time_to_first_token_seconds Histogram of time to first token in seconds.
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="demo"} 40.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="1.0",model_name="demo"} 98.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="demo"} 100.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="demo"} 100.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="demo"} 23.5
"""

PAGE = _WAITING + _TOKENS + _TTFT
DUPLICATE_FAMILY = PAGE + _WAITING
TRUNCATED_LINE = PAGE[: PAGE.rindex(b'model_name="demo"')]
BAD_VALUE = PAGE.replace(b"} 3.0\n", b"} three\n")
INVALID_UTF8 = PAGE.replace(b'engine="0"', b'engine="\xff\xfe"')

KTHENA_NAMES = (
    PAGE
    + b"""\
# HELP kthena:num_requests_waiting Requests that wait, by somebody else's count.
# TYPE kthena:num_requests_waiting gauge
kthena:num_requests_waiting{engine="0",model_name="demo"} 7.0
# HELP kthena_runtime_build_info Build of a runtime that is not this one.
# TYPE kthena_runtime_build_info gauge
kthena_runtime_build_info{version="0.0.1"} 1.0
"""
)

OPENMETRICS = b"""\
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="demo"} 3.0
# HELP vllm:generation_tokens Number of generation tokens processed.
# TYPE vllm:generation_tokens counter
vllm:generation_tokens_total{engine="0",model_name="demo"} 12345.0 # {trace_id="4bf92f35"} 1.0 1795468830.25
vllm:generation_tokens_created{engine="0",model_name="demo"} 1.795468683e+09
# HELP vllm:time_to_first_token_seconds Histogram of time to first token in seconds.
# TYPE vllm:time_to_first_token_seconds histogram
# UNIT vllm:time_to_first_token_seconds seconds
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="demo"} 40.0 # {trace_id="4bf92f35"} 0.06
vllm:time_to_first_token_seconds_bucket{engine="0",le="1.0",model_name="demo"} 98.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="demo"} 100.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="demo"} 100.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="demo"} 23.5
vllm:time_to_first_token_seconds_created{engine="0",model_name="demo"} 1.795468683e+09
# EOF
"""

HTML = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please sign in.</body></html>\n"
JSON = json.dumps([{"iter": 7, "numActiveRequests": 3, "iterLatencyMS": 21.5}]).encode()
BINARY = bytes(range(256)) * 16

_BIG_HEAD = b"# HELP vllm:block_age_seconds Age of each block.\n# TYPE vllm:block_age_seconds gauge\n"
_BIG_LINE = b'vllm:block_age_seconds{block="%08d",engine="0",model_name="demo"} 1.0\n'
_LINES_PER_PIECE = 1000


def response(
    body: bytes,
    *,
    status: str = "200 OK",
    content_type: str = TEXT,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Return a whole response; `headers` add to the usual ones or replace them."""
    return head(status, {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}) + body


def head(status: str, headers: Mapping[str, str]) -> bytes:
    """Return a status line and headers, of a connection that ends unless they say otherwise."""
    lines = [f"{name}: {value}" for name, value in {"Connection": "close", **headers}.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    """Return `data` framed as one chunk; of no data, the last one."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def big_length(size: int) -> int:
    """Return the exact length of `big_page(size)`, which is `size` to within a line."""
    return len(_BIG_HEAD) + _big_lines(size) * len(_BIG_LINE % 0)


def big_page(size: int) -> Iterator[bytes]:
    """Yield a valid page of one family with very many series, in pieces."""
    yield _BIG_HEAD
    yield from _pieces(range(_big_lines(size)))


def endless_page() -> Iterator[bytes]:
    """Yield a valid page that never ends, in pieces."""
    yield _BIG_HEAD
    yield from _pieces(itertools.count())


@cache
def gzip_bomb(size: int) -> bytes:
    """Return about a thousandth of `size` bytes that expand to `size` bytes of valid lines."""
    piece = _WAITING.splitlines(keepends=True)[-1] * 10_000
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    packed = [packer.compress(piece) for _ in range(-(-size // len(piece)))]
    return b"".join([*packed, packer.flush()])


def gzipped(body: bytes) -> bytes:
    """Return `body` compressed."""
    return gzip.compress(body, mtime=0)


def gzip_of_many(members: int) -> bytes:
    """Return a gzip stream of the page, behind so many members without content."""
    return gzip.compress(b"", mtime=0) * members + gzipped(PAGE)


def gzip_broken() -> bytes:
    """Return a gzip stream that begins well and is noise from the middle on."""
    whole = gzipped(PAGE)
    middle = len(whole) // 2
    return whole[:middle] + BINARY[: len(whole) - middle]


def _big_lines(size: int) -> int:
    return max(1, (size - len(_BIG_HEAD)) // len(_BIG_LINE % 0))


def _pieces(numbers: Iterable[int]) -> Iterator[bytes]:
    remaining = iter(numbers)
    while piece := b"".join(_BIG_LINE % number for number in itertools.islice(remaining, _LINES_PER_PIECE)):
        yield piece
